"""StyleGAN2 networks under the names of rosinality/stylegan2-pytorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.kind import kind_of
from generators.stylegan2.pickles import read_snapshot
from generators.stylegan2.rosinality import as_stylegan2
from tests.cases.checkpoints import rosinality


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "network.pt")
        return tmp_path / "network.pt"

    return write


@torch.inference_mode()
def test_activations_are_those_of_the_original() -> None:
    network, wanted = rosinality.network(), rosinality.expected()
    image, maps = network.synthesis(wanted["ws"], keep=network.synthesis.layers)
    for name, x in {**maps, "image": image}.items():
        y = wanted[f"synthesis/{name}"]
        assert (x - y).abs().max() <= 1e-5 * y.abs().max()


def test_a_file_without_the_mean_of_w(written: Callable) -> None:
    file = written({"g": rosinality.state()})
    assert kind_of(file) == "stylegan2"
    network, name = read_snapshot(file)
    z = torch.randn(20_000, network.config.z_dim, generator=torch.Generator().manual_seed(1))
    w = network.mapping(z)
    assert name == "g"
    assert (network.mapping.w_avg - w.mean(dim=0)).abs().max() < 0.1 * w.std()


def test_networks_that_do_not_fit() -> None:
    def refusal(name: str, change: Callable[[Tensor], Tensor | None]) -> str:
        tensors = rosinality.state()
        changed = change(tensors.get(name, torch.zeros(1)))
        tensors.pop(name, None)
        with pytest.raises(ValueError, match=r"^the file: ") as caught:
            as_stylegan2(tensors | ({} if changed is None else {name: changed}), "the file")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for unknown in ("input", "convs.0.extra", "convs.999.conv.weight", "to_rgbs.1", "style.0.bias"):
        assert f"{unknown} belongs to no StyleGAN2" in refusal(unknown, lambda tensor: tensor)
    assert "found no tensor mapping.fc0.weight" in refusal("style.1.weight", lambda tensor: None)
    assert "found no tensor synthesis.b8.conv1.noise_const" in refusal(
        "noises.noise_2", lambda tensor: None
    )
    assert "is not the filter" in refusal("convs.0.conv.blur.kernel", torch.zeros_like)
    assert "is a single number" in refusal("conv1.noise.weight", torch.sum)
    assert "expected finite floats" in refusal("to_rgb1.bias", lambda tensor: tensor / 0)


def test_files_that_do_not_fit(written: Callable, evil: Any, tmp_path: Path) -> None:
    state = rosinality.state()
    shared = torch.zeros(9, 1000)
    for content, problem in (
        ({"generator": state}, "it holds no network g_ema: give the complete checkpoint"),
        ({"g_ema": {**state, "more": 1}}, "g_ema holds more than tensors"),
        ({"g_ema": state, "args": evil}, "refused, and nothing was run"),
        ({"g_ema": {**state, **{f"{n}": shared for n in range(999)}}}, "larger than the file"),
    ):
        file = written(content)
        with pytest.raises(ValueError, match=problem) as caught:
            read_snapshot(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
