"""A StyleGAN2 that the stylegan3 repository wrote, against its outputs there.

It relies on that program's defaults: its clamp of 256 bites.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.pickles import network_config, read_snapshot

FILE = Path(__file__).parents[2] / "cases" / "checkpoints" / "sg3repo_default_clamp.pkl"


@pytest.fixture(scope="module")
def network() -> StyleGAN2:
    return read_snapshot(FILE).network


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FILE.with_suffix(".golden.npz")) as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_defaults(network: StyleGAN2) -> None:
    assert (network.config.conv_clamp, network.config.num_fp16_res) == (256, 4)
    ada = network_config({"img_resolution": 64, "synthesis_kwargs": {"channel_base": 1024}})
    assert (ada.conv_clamp, ada.num_fp16_res) == (None, 0)
    newer = network_config({"img_resolution": 64, "channel_base": 1024, "conv_clamp": None})
    assert (newer.conv_clamp, newer.num_fp16_res) == (None, 4)
    by_its_modules = network_config({"img_resolution": 64}, newer=True)
    assert (by_its_modules.conv_clamp, by_its_modules.num_fp16_res) == (256, 4)


@torch.inference_mode()
def test_outputs(network: StyleGAN2, golden: dict[str, Tensor]) -> None:
    mapping, synthesis = network.mapping, network.synthesis
    w = mapping(golden["z"])
    assert_close(mapping.broadcast(w), golden["ws"])
    assert_close(mapping.broadcast(w, psi=0.7), golden["ws_psi"])
    assert_close(mapping.broadcast(w, psi=0.5, cutoff=3), golden["ws_cut"])
    assert_close(synthesis(golden["ws_psi"], "none")[0], golden["img_none"])
    image, kept = synthesis(golden["ws_psi"], "const", keep=synthesis.layers)
    assert_close(image, golden["img_const"])
    expected = {key.removeprefix("act."): t for key, t in golden.items() if key.startswith("act.")}
    assert set(expected) == set(kept)
    for name, activation in kept.items():
        assert_close(activation, expected[name])
    assert max(float(t.abs().max()) for t in expected.values()) == 256
