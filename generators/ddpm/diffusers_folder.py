"""Folders of diffusers: a pipeline, its old layout, or a U-Net alone.

    model_index.json              the pipeline's parts
    unet/config.json, weights     the network; in the old layout of google/ddpm-*, or
                                  alone, at the top
    scheduler/scheduler_config.json    the noise schedule; in the old layout, at the top

The library would fill missing tensors with random values, ignore unknown ones, and sample other
kinds of model as if they were diffusion models of pixels. So everything is checked here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import CMStochasticIterativeScheduler, DDPMScheduler, UNet2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from generators.ddpm.tensors import check_tensors, not_rgb
from generators.ddpm.unet import check_walkable
from generators.files.modules import plain
from generators.files.torch_file import TorchFile
from generators.files.unsupported import describe_download

UNET = "UNet2DModel"
# The schedules of these are those of training DDPMs; they differ in how they sample.
SCHEDULERS = re.compile(
    r"(DDPM|DDIM|PNDM|DEISMultistep|DPMSolver(Multistep|Singlestep|SDE)|UniPCMultistep|SASolver|"
    r"Euler(Ancestral)?Discrete|HeunDiscrete|KDPM2(Ancestral)?Discrete|LMSDiscrete|RePaint)"
    r"(Inverse|Parallel)?Scheduler"
)
# What else folders hold, by the class names in their files: name in them -> what it is.
OTHER_KINDS = {
    r"FlowMatch|FlowMap": "a flow-matching model",
    r"EDM|KarrasVe|CosineDPM": "an EDM model, whose network sees noise levels (sigma)",
    r"SdeVe|SdeVp": "a score-SDE model, with continuous noise levels",
    r"CMStochastic|ConsistencyModelPipeline": "a consistency model, which "
    "generator.parametrisation=consistency reads",
    r"LCM|TCD|Consistency": "a consistency model of latents",
    r"VQDiffusion": "a VQ diffusion model, of discrete latents",
    r"^VQ|VQModel": "a VQ autoencoder",
    r"Autoencoder|^VAE": "an autoencoder",
    r"Condition": "a network that needs a text or other condition, such as Stable Diffusion's",
    r"Transformer|DiT": "a transformer",
    r"Latent|LDM|StableDiffusion": "a latent diffusion model",
}
# The pipeline and the scheduler of consistency models of pixels.
CONSISTENCY_PIPELINE = "ConsistencyModelPipeline"
CONSISTENCY_SCHEDULER = CMStochasticIterativeScheduler.__name__
# Pipelines of other kinds, whatever parts are listed beside their name.
OTHER_PIPELINES = re.compile(
    r"LDM|Latent|StableDiffusion|DiTPipeline|VQDiffusion|FlowMatch|EDM|KarrasVe|ScoreSde|Consistency"
)
# Parts of a pipeline that decode latents.
DECODERS = ("vae", "vqvae", "movq", "first_stage", "autoencoder")
# Types of the library's arguments -> types of their values in a file.
NUMBERS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
# Names of weight files, the best first: as trained, half precision or another variant, pickled.
WEIGHTS = (
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index*.json"),
    *("model.safetensors", "diffusion_pytorch_model.*.safetensors", "model.*.safetensors"),
    *("diffusion_pytorch_model.bin", "diffusion_pytorch_model.bin.index.json"),
    *("pytorch_model.bin", "diffusion_pytorch_model.*.bin"),
)
SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
# Attention layers before diffusers 0.15 -> today.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_ATTENTION_NAME = re.compile(r"(attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)")


def pipeline_of(folder: Path) -> Path:
    """The pipeline that the folder of a U-Net belongs to, which has its schedule; else `folder`."""
    files = (folder / "config.json", folder.parent / "model_index.json")
    inside = folder.name == "unet" and all(file.is_file() for file in files)
    return folder.parent if inside else folder


def load_folder(
    path: Path, is_consistency: bool = False
) -> tuple[UNet2DModel, DDPMScheduler | None]:
    """The U-Net, in float32, and the schedule of training, None if the folder has none.

    A consistency model has noise levels instead, which must be those of all published ones.

    Raises FileNotFoundError if it holds no network, and ValueError, in one line, for other kinds of
    model, missing or unknown tensors, and damaged files.
    """
    index = _read_json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    _check_pipeline(path, index, is_consistency)
    # Checkpoints of diffusers' training script hold averaged weights, too.
    places = ("unet", ".") if index else ("unet_ema", "unet", ".")
    at = next((path / p for p in places if (path / p / "config.json").is_file()), None)
    if at is None:
        raise FileNotFoundError(f"no generator at {path}: {_without_config(path)}")
    unet = _load_unet(at)
    files = (path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json")
    file = next((file for file in files if file.is_file()), None)
    if is_consistency:
        _check_noise_levels(path, file)
        return unet, None
    return unet, None if file is None else _load_schedule(file)


def _without_config(path: Path) -> str:
    """Why a folder without a network's configuration cannot be used."""
    if path.is_dir() and any(path.glob("*.safetensors")):
        return "found weights without their config.json: copy the network's config.json beside them"
    return (
        "expected a diffusers folder with unet/config.json or config.json, or a guided-diffusion "
        ".pt file; train one with `factory train-generator`, or give a hub id"
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # also of its encoding
        damaged = f"{file} is damaged ({error}): copy or download it again"
        instead = describe_download(file)
        raise ValueError(f"{file}: {instead}" if instead else damaged) from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object; copy or download it again")
    return content


def _refuse_other(file: Path, name: str, expected: str) -> None:
    """Raise ValueError for a class that is not `expected`, saying what it belongs to."""
    kind = next((what for key, what in OTHER_KINDS.items() if re.search(key, name)), None)
    what = f"{name}, {kind}" if kind else name
    raise ValueError(f"{file}: found {what}: expected {expected}, of a diffusion model of pixels")


def _check_pipeline(path: Path, index: Mapping[str, Any], is_consistency: bool) -> None:
    """Raise ValueError if the table of contents lists parts of another kind of model."""
    file, pipeline = path / "model_index.json", str(index.get("_class_name", ""))
    classes = {
        part: str(names[1])
        for part, names in index.items()
        if isinstance(names, list) and len(names) == 2 and names[1]
    }
    if OTHER_PIPELINES.search(pipeline) and not (
        is_consistency and pipeline == CONSISTENCY_PIPELINE
    ):
        _refuse_other(file, pipeline, "DDPMPipeline or the like")
    decoders = [p for p in DECODERS if p in classes or (path / p / "config.json").is_file()]
    if decoders:
        raise ValueError(
            f"{path}: found {pipeline or 'a pipeline'} with a {decoders[0]}, a latent diffusion "
            f"model: expected a diffusion model of pixels, such as DDPMPipeline"
        )
    if (name := classes.get("unet", UNET)) != UNET:
        _refuse_other(file, name, UNET)
    name = classes.get("scheduler", "DDPMScheduler")
    if is_consistency:  # checked with its settings
        return
    if not SCHEDULERS.fullmatch(name):
        _refuse_other(file, name, "DDPMScheduler or the like")


def _load_unet(folder: Path) -> UNet2DModel:
    file = folder / "config.json"
    config = _read_json(file)
    if (name := str(config.get("_class_name", "nothing"))) != UNET:
        _refuse_other(file, name, f"_class_name {UNET}")
    settings = _settings(file, config, UNet2DModel)
    try:
        with torch.device("meta"):
            unet = UNet2DModel(**settings)
    except Exception as error:  # the library does not check its settings: TypeError, KeyError, ...
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} describes no U-Net ({reason}): download it again") from None
    _check_size(file, unet)
    channels = unet.config.in_channels, unet.config.out_channels
    if channels not in ((3, 3), (3, 6)):
        raise ValueError(f"{file}: {not_rgb(*channels)}")
    if unet.config.time_embedding_type == "fourier":
        _refuse_other(file, "the time embedding of an EDM or score SDE", "a positional one")
    try:
        check_walkable(unet)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    state = _read_weights(folder)
    try:
        check_tensors(state, {name: t.shape for name, t in unet.state_dict().items()})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}; download the weights again") from None
    shaped = {n: state[n].reshape(t.shape).float() for n, t in unet.state_dict().items()}
    unet.load_state_dict(shaped, assign=True)
    return unet.eval()


def _settings(file: Path, config: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The arguments of a class of the library in `config`.

    Raises ValueError for a number or flag of another type, which would fail only when it is used.
    """
    known = inspect.signature(kind).parameters
    settings = {key: value for key, value in config.items() if key in known}
    for key, value in settings.items():
        expected = NUMBERS.get(known[key].annotation)
        if expected is not None and type(value) not in expected:
            name = known[key].annotation.__name__
            raise ValueError(f"{file}: found {key} {value!r:.50}, expected {name}: copy it again")
    return settings


def _check_size(file: Path, unet: UNet2DModel) -> None:
    """Raise ValueError unless the network can make images of the size that its config gives."""
    size, factor = unet.config.sample_size, 2 ** (len(unet.config.block_out_channels) - 1)
    sides = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
    if size is not None and not all(type(n) is int and n > 0 and n % factor == 0 for n in sides):
        raise ValueError(f"{file}: found sample_size {size!r}, expected a multiple of {factor}")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the best weight file, or of its parts, by their names of today."""
    found = (f for pattern in WEIGHTS for f in sorted(folder.glob(pattern)))
    file = next((f for f in found if not SHARD.search(f.name)), None)
    if file is None:
        raise FileNotFoundError(
            f"found no weights in {folder}: expected {WEIGHTS[0]}, download it again"
        )
    files: Iterable[Path] = [file]
    if file.suffix == ".json":
        parts = _read_json(file).get("weight_map")
        if not isinstance(parts, dict):
            raise ValueError(f"{file} is damaged: expected a weight_map; download it again")
        files = [folder / Path(str(name)).name for name in sorted(set(map(str, parts.values())))]
    state: dict[str, Tensor] = {}
    for part in files:
        state |= _read_tensors(part)
    return {OLD_ATTENTION_NAME.sub(_renamed, name): tensor for name, tensor in state.items()}


def _renamed(name: re.Match[str]) -> str:
    return name[1] + OLD_ATTENTION[name[2]]


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file; programs in a pickled one are never run."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: download it again")
    try:
        content = load_file(file) if file.suffix == ".safetensors" else plain(TorchFile(file))
    except (ValueError, SafetensorError) as error:
        what = (
            describe_download(file)
            or f"cannot read the U-Net weights ({error}): download them again"
        )
        raise ValueError(f"{file}: {what}") from None
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{file}: expected tensors by name, and nothing else; download it again")
    return content


def _check_noise_levels(folder: Path, file: Path | None) -> None:
    """Raise ValueError unless a scheduler's file has a consistency model's noise levels."""
    config = {} if file is None else _read_json(file)
    name = str(config.get("_class_name", "no scheduler"))
    if file is None or name != CONSISTENCY_SCHEDULER:
        raise ValueError(
            f"{file or folder}: found {name}, but generator.parametrisation is consistency, "
            f"expected {CONSISTENCY_SCHEDULER}: set generator.parametrisation=null"
        )
    known = dict(CMStochasticIterativeScheduler().config)
    for key in ("sigma_min", "sigma_max", "sigma_data"):
        if (found := config.get(key, known[key])) != known[key]:
            raise ValueError(f"{file}: found {key} {found!r:.50}, expected {known[key]}")


def _load_schedule(file: Path) -> DDPMScheduler:
    """The schedule of training in a scheduler's configuration, whatever it samples with."""
    config = _read_json(file)
    if not SCHEDULERS.fullmatch(name := str(config.get("_class_name", "DDPMScheduler"))):
        _refuse_other(file, name, "DDPMScheduler or the like")
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        _refuse_other(file, f"{name} with flow sigmas (FlowMatch)", "DDPMScheduler or the like")
    if config.get("timestep_type") == "continuous":
        _refuse_other(file, f"{name} with continuous timesteps (EDM)", "DDPMScheduler or the like")
    if config.get("predict_epsilon") is False:  # of diffusers before 0.10
        config.setdefault("prediction_type", "sample")
    if (found := config.get("prediction_type", PREDICTIONS[0])) not in PREDICTIONS:
        raise ValueError(
            f"{file}: found prediction_type {found}, expected {', '.join(PREDICTIONS)}"
        )
    if isinstance(betas := config.get("trained_betas"), list):
        config["num_train_timesteps"] = len(betas)
    settings = _settings(file, config, DDPMScheduler)
    try:
        schedule = DDPMScheduler(**settings)
        abar = schedule.alphas_cumprod
        if not (abar[:-1] > 0).all() or not (abar.diff() <= 0).all() or not 0 <= abar[-1] <= 1:
            raise ValueError("its noise does not grow from step to step")
    except Exception as error:  # the library does not check its settings: TypeError, ...
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} describes no noise schedule ({reason}): copy it again") from None
    return schedule
