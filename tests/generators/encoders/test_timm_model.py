"""Models of timm by name, and the wide SwAV, whose network timm has under no name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck

from generators.encoders.swav import resnet


@pytest.fixture
def image() -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8, generator=stream)


def written(name: str, file: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    torch.save(model.state_dict(), file)
    return model


def test_a_transformer(load: Callable, image: torch.Tensor, tmp_path: Path) -> None:
    model = written("test_vit", tmp_path / "model.pth")
    how = {"weights": tmp_path / "model.pth", "network": "timm", "timm_model": "test_vit"}
    encoder = load("timm", **how, image_size=160)
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        maps = model.forward_intermediates(
            (image / 255 - mean) / std, indices=4, norm=True, intermediates_only=True
        )
    found = encoder.encode(image)
    assert list(found) == [f"norm.{n}" for n in range(len(model.blocks))][-4:]
    for ours, theirs in zip(found.values(), maps, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_resnet(load: Callable, image: torch.Tensor, tmp_path: Path) -> None:
    model = written("test_resnet", tmp_path / "model.pth")
    how = {"weights": tmp_path / "model.pth", "network": "timm", "timm_model": "test_resnet"}
    found = load("timm", **how, image_size=160, layers=("layer1.0", "layer3.0")).encode(image)
    assert list(found) == ["layer1.0", "layer3.0"]
    inputs = []
    model.layer3[0].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        model((image / 255 - mean) / std)
    torch.testing.assert_close(found["layer3.0"], inputs[0], rtol=1e-4, atol=1e-5)


def test_what_timm_has_not(load: Callable, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pth")
    for name, message in (
        ("no_such_model", "has no 'no_such_model'"),
        ("test_efficientnet", "expected a vision transformer or a ResNet"),
        ("test_vit", "not the weights of timm's test_vit: .* is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            load("timm", weights=tmp_path / "model.pth", network="timm", timm_model=name)


def test_the_widths_of_swav_follow_the_stem() -> None:
    with torch.device("meta"):
        plain = timm.create_model("resnet50", num_classes=0)
        names = {n: t.shape for n, t in plain.state_dict().items()}
        wide = {n: tuple(2 * s if s > 7 else s for s in shape) for n, shape in names.items()}
        for shapes in (names, wide):
            state = {n: torch.empty(tuple(shape)) for n, shape in shapes.items()}
            found = resnet(state)
            assert {n: tuple(t.shape) for n, t in found.state_dict().items()} == {
                n: tuple(shape) for n, shape in shapes.items()
            }
            assert isinstance(found.layer1[0], Bottleneck)
    assert sum(t.numel() for t in found.parameters()) == pytest.approx(93.9e6, rel=0.01)
