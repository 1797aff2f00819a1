"""guided-diffusion networks in the wrappers of trainers."""

from __future__ import annotations

import collections
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.cases.checkpoints.case import GOLDEN, Bench, Case

FILE = GOLDEN / "guided_diffusion" / "tiny_lsun_style.pt"
GIVEN = {"channels_per_head": 16}
State = dict[str, Tensor]


def raw(state: State) -> State:
    """The weights that are not averaged: a network that differs from the expected one."""
    return {name: torch.full_like(tensor, 0.5) for name, tensor in state.items()}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def flat(state: State) -> State:
    """As latent diffusion's LitEma keeps its averages: `model_ema.` and names without dots."""
    return {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in state.items()}


BETAS = torch.linspace(1e-4, 0.02, 1000)
BUFFERS = {"betas": BETAS, "alphas_cumprod": (1 - BETAS).cumprod(dim=0)}
COUNTS = {"initted": torch.tensor(True), "step": torch.tensor(9)}


def saved(wrap: Callable[[State], Any], bench: Bench, **settings: Any) -> Path:
    path = bench.folder / "checkpoint.pt"
    torch.save(wrap(torch.load(FILE, weights_only=True)), path, **settings)
    return path


def as_safetensors(bench: Bench) -> Path:
    path = bench.folder / "model.safetensors"
    save_file(torch.load(FILE, weights_only=True), path)
    return path


def as_module(bench: Bench) -> Path:
    """A whole network as torch.save pickles it: of classes that only its program has."""
    program = types.ModuleType("guided_diffusion.unet")
    classes = {}
    for name in ("UNetModel", "Part"):
        classes[name] = type(name, (torch.nn.Module,), {"__module__": program.__name__})
        setattr(program, name, classes[name])
    root = classes["UNetModel"]()
    for name, tensor in torch.load(FILE, weights_only=True).items():
        *parents, last = name.split(".")
        module: Any = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, classes["Part"]())
            module = module._modules[parent]
        module.register_parameter(last, torch.nn.Parameter(tensor))
    path = bench.folder / "module.pt"
    package = types.ModuleType("guided_diffusion")
    with patch.dict(sys.modules, {module.__name__: module for module in (package, program)}):
        torch.save({"model": root, "args": types.SimpleNamespace(lr=1e-4)}, path)
    return path


def case(file: str, says: str, wrap: Callable[[State], Any], **settings: Any) -> Case:
    write = partial(saved, wrap, **settings)
    return Case("guided-diffusion, improved-diffusion", file, True, says, write, GIVEN)


def wide(state: State) -> State:
    """As consistency_models saves it: attention over four dimensions."""
    return {n: t[..., None] if n.endswith("qkv.weight") else t for n, t in state.items()}


CASES = (
    *(
        Case(
            "consistency_models",
            f"{name}, with `parametrisation={kind}`",
            True,
            "the whole file",
            partial(saved, wide),
            # As the network that the cases hold.
            {"parametrisation": kind, "attention_order": "legacy", **GIVEN},
        )
        for name, kind in (("`edm_*.pt`", "edm"), ("`cd_*.pt`, `ct_*.pt`", "consistency"))
    ),
    case("state dict", "the whole file", lambda state: state),
    case(
        "state dict, PyTorch before 1.6",
        "the whole file",
        lambda state: state,
        _use_new_zipfile_serialization=False,
    ),
    case("state dict, pickle protocol 5", "the whole file", lambda s: s, pickle_protocol=5),
    case("state dict with a number beside it", "the whole file", lambda s: {**s, "step": 3}),
    Case(
        "guided-diffusion, improved-diffusion",
        "`.safetensors`",
        True,
        "the whole file",
        as_safetensors,
        GIVEN,
    ),
    Case(
        "guided-diffusion, improved-diffusion",
        "the whole module (`torch.save(model)`)",
        True,
        "model",
        as_module,
        GIVEN,
    ),
    case(
        "`{model, ema_model}`",
        "ema_model (averaged)",
        lambda s: {"model": raw(s), "ema_model": s, "step": 7},
    ),
    case("`{model, ema}`", "ema (averaged)", lambda s: {"model": raw(s), "ema": s}),
    case("`{model, ema: None}`", "model", lambda s: {"model": s, "ema": None}),
    case(
        "`{params, params_ema}` (BasicSR)",
        "params_ema (averaged)",
        lambda s: {"params": raw(s), "params_ema": s},
    ),
    case("`{net, net_ema}`", "net_ema (averaged)", lambda s: {"net": raw(s), "net_ema": s}),
    case(
        "`{model, ema}` with several decays",
        "ema/0.9999 (averaged)",
        lambda s: {"model": raw(s), "ema": {"0.999": raw(s), "0.9999": s}},
    ),
    case("list of network, optimizer, step", "[0]", lambda s: [s, {"state": {}}, 7]),
    case("`{unet}`", "unet", lambda s: {"unet": s, "epoch": 3}),
    case(
        "`{model, optimizer}`",
        "model",
        lambda s: {"model": s, "optimizer": {"state": {0: {"step": 1}}, "param_groups": []}},
    ),
    case("`module.` (DataParallel)", "module.", lambda s: prefixed("module.", s)),
    case("`_orig_mod.` (torch.compile)", "the whole file", lambda s: prefixed("_orig_mod.", s)),
    case(
        "AveragedModel",
        "module. (averaged)",
        lambda s: prefixed("module.", s) | {"n_averaged": torch.tensor(5)},
    ),
    case(
        "ema_pytorch",
        "ema: ema_model. (averaged)",
        lambda s: {
            "ema": prefixed("online_model.", raw(s)) | prefixed("ema_model.", s) | COUNTS,
        },
    ),
    case(
        "torch_ema, `ema.shadow_params`",
        "ema: shadow_params (averaged)",
        lambda s: {
            "model": prefixed("module.", raw(s)),
            "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": list(s.values())},
        },
    ),
    case(
        "Lightning",
        "state_dict: model.",
        lambda s: {
            "state_dict": BUFFERS | prefixed("model.", s),
            "hyper_parameters": collections.OrderedDict(lr=1e-4),
            "pytorch-lightning_version": "2.0.0",
        },
    ),
    case(
        "Lightning with `model_ema`",
        "state_dict: model_ema. (averaged)",
        lambda s: {
            "state_dict": prefixed("model.", raw(s)) | flat(s) | {"model_ema.decay": torch.ones(())}
        },
    ),
    case(
        "Lightning with objects in its settings",
        "state_dict: model.",
        lambda s: {
            "state_dict": prefixed("model.", s),
            "hyper_parameters": types.SimpleNamespace(path=Path("photos"), lr=1e-4),
            "callbacks": collections.defaultdict(dict, {Case: {"best": 1.0}}),
        },
    ),
)
