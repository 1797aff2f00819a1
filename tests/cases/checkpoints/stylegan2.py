"""StyleGAN2 snapshots as NVIDIA's programs write them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.pickles import network_config
from generators.stylegan2.storage import assemble
from tests.cases.checkpoints.case import GOLDEN, Bench, Case

NAME = "net_c_cond3_map2_r32"
ADA = "StyleGAN2-ADA (stylegan2-ada-pytorch)"
AVERAGED = "G_ema (averaged)"
NEWER = "StyleGAN2 of the stylegan3 repository"


def network() -> StyleGAN2:
    """The network that every case holds."""
    tensors = load_file(GOLDEN / "stylegan2" / f"{NAME}.G_ema.safetensors")
    return assemble(network_config(arguments()), tensors, NAME)


def arguments() -> dict[str, Any]:
    """What it was built with."""
    content = json.loads((GOLDEN / "stylegan2" / f"{NAME}.init.json").read_text())
    return content["init_kwargs"]


def top_level() -> dict[str, Any]:
    """The same arguments as the stylegan3 repository passes them."""
    given = arguments()
    return given | given.pop("synthesis_kwargs") | {"fused_modconv_default": "inference_only"}


def pickled(
    bench: Bench,
    given: Any = arguments,
    name: str = "network.pkl",
    protocol: int = 4,
    **settings: Any,
) -> Path:
    return bench.file(name, bench.ada_pickle(network(), given(), protocol, **settings))


def with_equal_widths() -> dict[str, Any]:
    """Widths of layers that are the default, given as numbers."""
    given = arguments()
    given["mapping_kwargs"] |= {"layer_features": given["w_dim"], "embed_features": given["w_dim"]}
    return given


def alone(bench: Bench) -> Path:
    return pickled(bench, alone=True)


def torch_saved(bench: Bench, **settings: Any) -> Path:
    """A snapshot as torch.save writes it: tensors are beside the pickle."""
    return bench.file("network.pt", bench.ada_pickle(network(), arguments(), torch_save=settings))


def without_average(bench: Bench) -> Path:
    return pickled(bench, entry="G")


CASES = (
    Case(ADA, "snapshot `.pkl`", True, AVERAGED, pickled),
    Case(ADA, "snapshot, pickle protocol 2", True, AVERAGED, partial(pickled, protocol=2)),
    Case(
        ADA,
        "snapshot without a suffix, pickle protocol 5",
        True,
        AVERAGED,
        partial(pickled, name="network", protocol=5),
    ),
    Case(ADA, "snapshot by `torch.save`", True, AVERAGED, torch_saved),
    Case(
        ADA,
        "snapshot by `torch.save` before PyTorch 1.6",
        True,
        AVERAGED,
        partial(torch_saved, _use_new_zipfile_serialization=False),
    ),
    Case(ADA, "network alone", True, "Generator", alone),
    Case(ADA, "snapshot without `G_ema`", True, "G", without_average),
    Case(
        ADA,
        "snapshot, widths of layers given",
        True,
        AVERAGED,
        partial(pickled, given=with_equal_widths),
    ),
    Case(NEWER, "snapshot `.pkl`", True, AVERAGED, partial(pickled, given=top_level)),
    Case(
        NEWER,
        "network alone by `torch.save`",
        True,
        "Generator",
        partial(pickled, given=top_level, alone=True, torch_save={}),
    ),
)
