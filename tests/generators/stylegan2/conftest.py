"""Golden networks, and StyleGAN2-ADA pickles built as the original program writes them."""

import collections
import json
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import nn

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2, SynthesisBlock, SynthesisLayer
from generators.stylegan2.pickles import network_config
from generators.stylegan2.resample import fir_filter
from generators.stylegan2.storage import assemble

GOLDEN = Path(__file__).parents[2] / "golden" / "stylegan2"
GOLDEN_NAMES = ("net_b_map2_r32", "net_c_cond3_map2_r32", "net_d_clamp1p5_r32")


@pytest.fixture
def golden_arguments() -> Callable[[str], dict[str, Any]]:
    """Name of a golden network -> the arguments that the original was built with."""
    return lambda name: json.loads((GOLDEN / f"{name}.init.json").read_text())["init_kwargs"]


@pytest.fixture
def golden_network(golden_arguments: Callable) -> Callable[[str], StyleGAN2]:
    """Name of a golden network -> the network."""

    def build(name: str) -> StyleGAN2:
        tensors = load_file(GOLDEN / f"{name}.G_ema.safetensors")
        return assemble(network_config(golden_arguments(name)), tensors, name)

    return build


@pytest.fixture
def tiny_config() -> NetworkConfig:
    return NetworkConfig(
        resolution=16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8
    )


class EasyDict(dict):
    """What the original keeps settings in: attributes are items, and there is no __dict__ use."""

    __module__ = "dnnlib.util"


class Persistent:
    """An object that pickles itself with the text of its program, as the original's modules do."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self) -> tuple:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("a test unpickled what it made with the plain unpickler")


def _persistent(module: nn.Module, source: str, **state: Any) -> Persistent:
    children = {name: _persistent(child, source) for name, child in module._modules.items()}
    buffers = collections.OrderedDict(module._buffers)
    if isinstance(module, SynthesisLayer | SynthesisBlock):
        buffers.setdefault("resample_filter", fir_filter())
    kept = {"training": False, "_non_persistent_buffers_set": set(), "_backward_hooks": {}}
    state |= kept | {
        "_parameters": collections.OrderedDict(module._parameters),
        "_buffers": buffers,
        "_modules": collections.OrderedDict(children),
    }
    return Persistent(type(module).__name__, state, source)


AdaPickle = Callable[..., bytes]


@pytest.fixture
def ada_pickle(monkeypatch: pytest.MonkeyPatch) -> AdaPickle:
    """`(network, arguments, protocol, source, **extra entries)` -> a snapshot's bytes."""
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    for module in (persistence, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        parent = module.__name__.split(".")[0]
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", persistence.__name__)

    def build(
        network: StyleGAN2,
        arguments: dict[str, Any],
        protocol: int = 4,
        source: str = "",
        **entries: Any,
    ) -> bytes:
        arguments = {k: EasyDict(v) if isinstance(v, dict) else v for k, v in arguments.items()}
        g_ema = _persistent(network, source, _init_args=(), _init_kwargs=EasyDict(arguments))
        snapshot = {
            "training_set_kwargs": EasyDict(path="images.zip", max_size=8),
            "G": None,
            "D": None,
            "G_ema": g_ema,
            "augment_pipe": None,
        }
        return pickle.dumps(snapshot | entries, protocol)

    return build
