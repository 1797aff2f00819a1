"""What every encoder does: sizes, batches, digests, baselines, several at once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import generators
from generators.base import Encoder, Generator
from generators.config import DDPMConfig
from generators.encoders.concatenated import Concatenated
from generators.encoders.config import EncoderConfig
from generators.encoders.model import choose_sizes
from generators.encoders.paired import Paired, maker_of
from generators.encoders.storage import EncoderFile, save

PIXELS = Path(generators.__file__).parent / "encoders" / "embedded" / "pixels"


@pytest.fixture
def images() -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=stream)


def test_is_an_encoder_and_no_generator(load: Callable) -> None:
    encoder = load("mae")
    assert isinstance(encoder, Encoder)
    assert not isinstance(encoder, Generator)
    assert encoder.image_size == (64, 64)  # of its positions


@pytest.mark.parametrize("network", ["mae", "swav", "dinov2", "dinov3"])
def test_the_spec_is_that_of_the_features(load: Callable, network: str) -> None:
    encoder = load(network, image_size=96, batch_size=1)
    image = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    found = encoder.encode(image)
    assert found.spec == encoder.feature_spec
    assert all(t.dtype == torch.float32 for t in found.values())


def test_features_do_not_depend_on_the_batch(load: Callable, images: torch.Tensor) -> None:
    encoder = load("swav", image_size=64)
    together, alone = encoder.encode(images), encoder.encode(images[2:])
    for name, found in together.items():
        torch.testing.assert_close(found[2:], alone[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="found a batch of 5 images, expected 1 to 4"):
        encoder.encode(images[:1].expand(5, -1, -1, -1))


@pytest.mark.parametrize(
    ("native", "multiple", "given", "expected"),
    [
        (224, 16, {}, (224, 224)),
        (224, 16, {"image_size": 256}, (256, 224)),
        (None, 14, {}, (256, 252)),
        (None, 14, {"image_size": 64}, (64, 70)),
        (None, 14, {"image_size": 64, "input_size": 140}, (64, 140)),
        (None, 16, {"input_size": 128}, (128, 128)),
    ],
)
def test_sizes(native: int | None, multiple: int, given: dict, expected: tuple) -> None:
    network = SimpleNamespace(native_size=native, multiple=multiple)
    config = EncoderConfig(weights="w", **given)
    assert choose_sizes(network, config) == expected  # type: ignore[arg-type]


def test_sizes_that_do_not_fit_are_refused(load: Callable) -> None:
    with pytest.raises(ValueError, match=r"input_size is 128, but the network was trained at 64"):
        load("mae", input_size=128)
    with pytest.raises(
        ValueError, match=r"input_size is 100, expected a multiple of 14, such as 98 or 112"
    ):
        load("dinov2", input_size=100)


def test_unknown_layers_are_refused(load: Callable) -> None:
    with pytest.raises(ValueError, match=r"unknown layer 'blocks.6': expected some of blocks.0"):
        load("mae", layers=("blocks.6",))


def test_the_digest_is_of_what_decides_the_features(load: Callable) -> None:
    digest = load("dinov2").digest
    assert load("dinov2", layers=("blocks.0",), batch_size=1).digest == digest
    assert load("dinov2", input_size=70).digest != digest
    assert load("dinov2", random_weights=0).digest != digest


def test_random_weights_depend_on_the_seed_alone(load: Callable, images: torch.Tensor) -> None:
    first, again, other = (load("swav", image_size=64, random_weights=s) for s in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    last = first.encode(images)["layer4.2"]
    assert last.isfinite().all()
    assert last.std() > 0
    assert first.notes == ()  # whose weights have no licence


def test_licences_are_named(load: Callable) -> None:
    assert "CC BY-NC 4.0" in load("mae").notes[0]
    assert "DINOv3 License" in load("dinov3").notes[0]


def test_pixels(images: torch.Tensor) -> None:
    encoder = generators.load_encoder(EncoderConfig(weights=str(PIXELS), image_size=64), "cpu")
    [rgb] = encoder.encode(images).values()
    assert torch.equal(((rgb + 1) * 127.5).round().to(torch.uint8), images)


def test_our_own_folder(load: Callable, tmp_path: Path) -> None:
    published = load("mae")
    state = published.network.transformer.state_dict()
    save(tmp_path, EncoderFile(network="mae", settings={"heads": 4}), state)
    ours = load("mae", weights=tmp_path, heads=None)
    assert {m.name for m in ours.feature_spec} == {m.name for m in published.feature_spec}
    assert ours.notes == ()
    for file, message in (
        ("encoder.safetensors", "is damaged"),
        ("encoder.json", "damaged|not"),
    ):
        (tmp_path / file).write_bytes(b"{")
        with pytest.raises(ValueError, match=message):
            load("mae", weights=tmp_path)


def test_several_encoders(load: Callable, images: torch.Tensor) -> None:
    parts = [load("mae"), load("swav", image_size=64), load("mae", layers=("norm.0",))]
    both = Concatenated(parts)
    found = both.encode(images)
    assert found.spec == both.feature_spec
    assert {name.split(".")[0] for name in found} == {"mae", "swav", "mae2"}
    assert torch.equal(found["mae2.norm.0"], parts[2].encode(images)["norm.0"])
    with pytest.raises(ValueError, match="64 and 256 pixels"):
        Concatenated([load("mae"), load("swav")])


def test_images_by_one_and_features_by_another(
    load: Callable, checkpoint: Callable, tiny_weights: Path
) -> None:
    encoder = EncoderConfig(weights=str(checkpoint("swav")), precision="float32", batch_size=1)
    how = {"weights": str(tiny_weights), "steps": 2, "precision": "float32"}
    paired = generators.load(DDPMConfig(**how, encoders=(encoder,)), "cpu")
    plain = generators.load(DDPMConfig(**how), "cpu")
    assert isinstance(paired, Paired)
    assert isinstance(paired, Generator)
    images, features = paired.sample([0, 5])
    assert torch.equal(images, plain.sample_images([0, 5]))
    assert paired.image_size == (16, 16)
    assert features.spec == paired.feature_spec
    alone = load("swav", image_size=16)
    assert paired.digest == alone.digest
    torch.testing.assert_close(features["layer1.0"], alone.encode(images)["layer1.0"])
    assert maker_of(paired).digest == plain.digest
    assert maker_of(plain) is plain


def test_an_encoder_alone_makes_no_images(checkpoint: Callable) -> None:
    with pytest.raises(ValueError, match="makes no images: give a generator too"):
        generators.load(EncoderConfig(weights=str(checkpoint("swav"))), "cpu")
