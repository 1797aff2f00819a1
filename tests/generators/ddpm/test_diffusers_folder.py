"""Folders of diffusers: every layout is read as written, and other kinds of model are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from generators.ddpm import samplers
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_weights: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline, to be changed."""
    return shutil.copytree(tiny_weights, tmp_path / "net")


@pytest.fixture(scope="module")
def state(tiny_weights: Path) -> dict[str, torch.Tensor]:
    return load_file(tiny_weights / "unet" / WEIGHTS)


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; `...` removes one."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def equals(folder: Path, state: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    found = load_unet(str(folder))[0].state_dict()
    assert found.keys() == state.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, state[name], rtol=0, atol=atol)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_unet(str(folder))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    for word in words:
        assert word in message


def test_the_old_layout(folder: Path, state: dict) -> None:
    """Everything at the top, as in google/ddpm-*."""
    for file in (*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()):
        file.rename(folder / file.name)
    schedule = folder / "scheduler_config.json"
    edit(schedule, beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=False)
    _, found, _ = load_unet(str(folder))
    assert (found.config.beta_schedule, found.config.prediction_type) == (
        "squaredcos_cap_v2",
        "v_prediction",
    )
    equals(folder, state)
    edit(schedule, prediction_type=..., predict_epsilon=False)
    assert load_unet(str(folder))[1].config.prediction_type == "sample"


def test_a_network_alone_takes_a_schedule(folder: Path, state: dict) -> None:
    alone = (folder / "unet").rename(folder.parent / "alone")
    equals(alone, state)
    assert load_unet(str(alone))[1].config.prediction_type == "epsilon"
    _, found, _ = load_unet(str(alone), schedule="cosine", train_steps=400, predicts="x_start")
    assert len(found.alphas_cumprod) == 400
    assert found.config.prediction_type == "sample"
    shutil.copytree(alone, folder / "unet")
    for whole in (folder, folder / "unet"):  # the pipeline's schedule is found from its part, too
        assert load_unet(str(whole))[1].config.prediction_type == "v_prediction"
        with pytest.raises(ValueError, match=r"generator.schedule with .*which has a schedule"):
            load_unet(str(whole), schedule="cosine")
    with pytest.raises(ValueError, match=r"generator.heads with .*=null"):
        load_unet(str(alone), heads=4)


def _half(folder: Path, state: dict) -> None:
    save_file(
        {n: t.half() for n, t in state.items()}, folder / "diffusion_pytorch_model.fp16.safetensors"
    )


def _pickled(folder: Path, state: dict) -> None:
    torch.save(state, folder / "diffusion_pytorch_model.bin")


def _accelerate(folder: Path, state: dict) -> None:
    save_file(state, folder / "model.safetensors")


def _sharded(folder: Path, state: dict) -> None:
    names = sorted(state)
    files = {f"diffusion_pytorch_model-0000{i}-of-00002.safetensors": names[i::2] for i in (0, 1)}
    for file, part in files.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {name: file for file, part in files.items() for name in part}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))


def _old_attention(folder: Path, state: dict) -> None:
    def old(name: str) -> str:
        for new, was in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            name = name.replace(f".{new}.", f".{was}.")
        return name.replace(".to_out.0.", ".proj_attn.")

    save_file({old(name): tensor for name, tensor in state.items()}, folder / WEIGHTS)


@pytest.mark.parametrize("write", [_half, _pickled, _accelerate, _sharded, _old_attention])
def test_weights_in_other_forms(
    folder: Path, state: dict, write: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    write(folder / "unet", state)
    equals(folder, state, atol=1e-3 if write is _half else 0.0)
    assert capfd.readouterr() == ("", "")


def test_full_precision_comes_before_half(folder: Path, state: dict) -> None:
    _half(folder / "unet", state)
    equals(folder, state)


class Program:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_programs_in_pickled_weights_are_not_run(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    torch.save({"conv_in.weight": Program()}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "cannot read the U-Net weights")
    torch.save({"step": 3}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "expected tensors by name")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("scheduler", "word"),
    [
        ("FlowMatchEulerDiscreteScheduler", "a flow-matching model"),
        ("EDMEulerScheduler", "an EDM model"),
        ("EDMDPMSolverMultistepScheduler", "an EDM model"),
        ("KarrasVeScheduler", "an EDM model"),
        ("ScoreSdeVeScheduler", "a score-SDE model"),
        ("CMStochasticIterativeScheduler", "a consistency model"),
        ("VQDiffusionScheduler", "a VQ diffusion model"),
        ("MyScheduler", "found MyScheduler: expected DDPMScheduler"),
    ],
)
def test_schedules_of_other_models_are_refused(folder: Path, scheduler: str, word: str) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", _class_name=scheduler)
    refused(folder, "scheduler_config.json", word)
    edit(folder / "model_index.json", scheduler=["diffusers", scheduler])
    refused(folder, "model_index.json", word)


@pytest.mark.parametrize(
    "change",
    [
        {"use_flow_sigmas": True},
        {"prediction_type": "flow_prediction"},
        {"timestep_type": "continuous"},
        {"prediction_type": "original"},
        {"beta_schedule": "unheard_of"},
        {"num_train_timesteps": "many"},
        {"beta_end": -1.0, "rescale_betas_zero_snr": False},
        {"trained_betas": [0.1, "x"]},
    ],
)
def test_unusable_schedules_are_refused(folder: Path, change: dict[str, Any]) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", **change)
    refused(folder, "scheduler_config.json")


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_other_samplers_of_the_same_training_are_read(folder: Path, name: str) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    before = load_unet(str(folder))[1].alphas_cumprod
    edit(file, _class_name=name, variance_type=..., set_alpha_to_one=True)
    assert torch.equal(load_unet(str(folder))[1].alphas_cumprod, before)


def test_latent_models_are_refused(folder: Path) -> None:
    index = folder / "model_index.json"
    edit(index, _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"])
    refused(folder, "LDMPipeline, a latent diffusion model")
    edit(index, _class_name="DDPMPipeline")
    refused(folder, "DDPMPipeline with a vqvae", "latent diffusion model")
    edit(index, vqvae=[None, None])
    load_unet(str(folder))
    edit(index, vqvae=..., unet=["diffusers", "UNet2DConditionModel"])
    refused(folder, "UNet2DConditionModel, a network that needs a text")
    index.unlink()
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text("{}")
    refused(folder, "with a vae", "latent diffusion model")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("StableDiffusionPipeline", "a latent diffusion model"),
        ("DiTPipeline", "a transformer"),
        ("KarrasVePipeline", "an EDM model"),
        ("ScoreSdeVePipeline", "a score-SDE model"),
        ("ConsistencyModelPipeline", "a consistency model"),
    ],
)
def test_pipelines_of_other_kinds_are_refused(folder: Path, name: str, what: str) -> None:
    edit(folder / "model_index.json", _class_name=name)
    refused(folder, f"{name}, {what}")


def test_files_that_came_instead_are_named(folder: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"
    for name in (WEIGHTS, "config.json"):
        (folder / "unet" / name).write_bytes(pointer)
        refused(folder, name, "this is a Git LFS pointer: run `git lfs pull`")


def test_a_pickled_program_is_refused(folder: Path, state: dict, evil: Any) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    torch.save({**state, "evil": evil}, folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "diffusion_pytorch_model.bin", "refused, and nothing was run")
    assert not evil.marker.exists()


def test_schedules_that_the_solvers_do_not_know(folder: Path) -> None:
    for betas in ({"beta_schedule": "sigmoid"}, {"trained_betas": [0.01 * n for n in range(1, 9)]}):
        edit(folder / "scheduler" / "scheduler_config.json", **betas, rescale_betas_zero_snr=False)
        _, schedule, _ = load_unet(str(folder))
        assert len(schedule.alphas_cumprod) == schedule.config.num_train_timesteps
        for sampler in ("dpmsolver++", "unipc"):
            config = DDPMConfig(weights="", sampler=sampler, steps=2)
            x_0 = samplers.sample(
                lambda x, t: x, schedule, config, lambda: torch.full((1, 3, 4, 4), 0.5)
            )
            assert x_0.isfinite().all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sample_size": 15}, "sample_size 15, expected a multiple of 2"),
        ({"sample_size": "16"}, "sample_size '16', expected a multiple of 2"),
        ({"time_embedding_type": "fourier"}, "an EDM or score SDE"),
        ({"_class_name": "VQModel"}, "a VQ autoencoder"),
        ({"_class_name": "AutoencoderKL"}, "an autoencoder"),
        ({"_class_name": "UNet2DConditionModel"}, "Stable Diffusion's"),
        ({"_class_name": "DiTTransformer2DModel"}, "a transformer"),
        ({"_class_name": ...}, "found nothing: expected _class_name UNet2DModel"),
        ({"in_channels": 1, "out_channels": 1}, "grey networks are not supported"),
        ({"in_channels": 4, "out_channels": 4}, "work on latents"),
        ({"in_channels": 6}, "enlarges images"),
        ({"block_out_channels": "wide"}, "describes no U-Net"),
        ({"layers_per_block": None}, "found layers_per_block None, expected int"),
    ],
)
def test_other_networks_are_refused(folder: Path, change: dict[str, Any], word: str) -> None:
    edit(folder / "unet" / "config.json", **change)
    refused(folder, "config.json", word)


def test_tensors_that_do_not_fit_are_named(folder: Path, state: dict) -> None:
    file = folder / "unet" / WEIGHTS

    def changed(change: dict[str, torch.Tensor | None], *words: str) -> None:
        content = {**state, **change}
        save_file({n: t for n, t in content.items() if t is not None}, file)
        refused(folder, *words)

    lost = dict.fromkeys([name for name in state if name.startswith("mid_block")])
    changed(lost, "missing: mid_block.", f"and {len(lost) - 3} more")
    changed({"conv_in.bias": None}, "missing: conv_in.bias")
    changed({"extra.weight": torch.zeros(2)}, "unknown: extra.weight")
    changed({"conv_in.bias": torch.zeros(9)}, "conv_in.bias (found [9], expected [8])")
    file.write_bytes(file.read_bytes()[:1000])
    refused(folder, "cannot read the U-Net weights")
    file.unlink()
    refused(folder, "found no weights")


def test_damaged_json_is_named(folder: Path) -> None:
    file = folder / "unet" / "config.json"
    for content in (b"{", b"[]", b"\xff\xfe"):
        file.write_bytes(content)
        refused(folder, "config.json is damaged")
    file.write_bytes(b"[" * 100_000)
    refused(folder, "config.json is damaged")
    file.unlink()
    refused(folder, "no generator at")
    bare = folder / "unet"
    refused(bare, "found weights without their config.json")


def test_averaged_weights_of_a_training_checkpoint(folder: Path, state: dict) -> None:
    """`unet_ema` beside `unet`, as diffusers' training script writes it."""
    averaged = shutil.copytree(folder / "unet", folder / "unet_ema")
    changed = {name: tensor + 1 for name, tensor in state.items()}
    save_file(changed, averaged / WEIGHTS)
    equals(folder, state)  # a pipeline says which network is its own
    (folder / "model_index.json").unlink()
    equals(folder, changed)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet/config.json", "freq_shift", None),
        ("unet/config.json", "dropout", "0.1"),
        ("scheduler/scheduler_config.json", "steps_offset", None),
        ("scheduler/scheduler_config.json", "clip_sample", 1),
    ],
)
def test_settings_that_would_fail_only_when_used(
    folder: Path, name: str, key: str, value: object
) -> None:
    edit(folder / name, **{key: value})
    refused(folder, f"found {key} {value!r}, expected ")
