"""e4e and pSp against the published program, and files that do not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from generators.encoders.config import EncoderConfig
from generators.encoders.e4e import E4E, build
from generators.encoders.files import read_checkpoint
from generators.encoders.network import Checkpoint
from tests.generators.encoders.published import GOLDEN, assert_equal, expected

FILE = GOLDEN / "e4e" / "e4e_tiny_encode.pt"
WANTED = expected("e4e")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return read_checkpoint(FILE)


def built(checkpoint: Checkpoint, **settings: Any) -> E4E:
    return build(checkpoint, EncoderConfig(weights=str(FILE), **settings))


@torch.inference_mode()
def test_the_encoder_is_that_of_the_published_program(checkpoint: Checkpoint) -> None:
    network = built(checkpoint)
    assert network.layers == ("body.2", "body.6", "body.20", "body.23", "p2", "p1")
    assert_equal(network(WANTED["image"]), WANTED)
    assert_equal({"input": network.normalise(WANTED["image"])}, WANTED)
    assert_equal({"ws": network.ws(WANTED["image"])}, WANTED)


@torch.inference_mode()
def test_all_units(checkpoint: Checkpoint) -> None:
    names = tuple(f"body.{number}" for number in range(24))
    maps = built(checkpoint, layers=names)(WANTED["image"])
    assert tuple(maps) == names
    assert_equal({name: maps[name] for name in ("body.2", "body.13", "body.23")}, WANTED)


@torch.inference_mode()
def test_the_inversion_has_the_activations_of_the_stylegan2(checkpoint: Checkpoint) -> None:
    network = built(checkpoint, activations="generator")
    maps = network(WANTED["image"])
    assert_equal(maps, WANTED, "synthesis/")
    convolutions = [n for n in WANTED if n.startswith("synthesis/") and n != "synthesis/image"]
    assert {f"synthesis/{name}" for name in maps} == set(convolutions)
    image, _ = network.stylegan2.synthesis(network.ws(WANTED["image"]))
    assert_equal({"image": image}, WANTED, "synthesis/")


@torch.inference_mode()
def test_codes_of_psp_are_independent(checkpoint: Checkpoint) -> None:
    """The golden file is of e4e, whose codes are sums: undo that."""
    settings = {**checkpoint.settings, "encoder_type": "GradualStyleEncoder"}
    ws = built(Checkpoint(checkpoint.tensors, settings)).ws(WANTED["image"])
    first = WANTED["codes"][:, :1]
    codes = torch.cat([first, WANTED["codes"][:, 1:] - first], dim=1)
    average = checkpoint.tensors["latent_avg"]
    assert_equal({"ws": ws}, {"ws": codes + average})
    bare = {**checkpoint.settings, "start_from_latent_avg": False}
    ws = built(Checkpoint(checkpoint.tensors, bare)).ws(WANTED["image"])
    assert_equal({"codes": ws}, WANTED)


def test_images_that_are_too_large_for_codes(checkpoint: Checkpoint) -> None:
    images = torch.zeros(1, 3, 272, 272, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"have 272 pixels.* set generator\.input_size=256"):
        built(checkpoint, activations="generator")(images)


def test_weights_that_do_not_fit(checkpoint: Checkpoint) -> None:
    def refusal(name: str, change: Callable[[Tensor], Tensor | None]) -> str:
        tensors = dict(checkpoint.tensors)
        changed = change(tensors.pop(name))
        tensors |= {} if changed is None else {name: changed}
        with pytest.raises(ValueError, match=r".") as caught:
            built(Checkpoint(tensors, checkpoint.settings))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "found 7 styles, expected 8" in refusal_of_styles(checkpoint)
    assert "latent_avg: found nothing, expected [8, 32]" in refusal("latent_avg", lambda t: None)
    assert "latent_avg: found [7, 32]" in refusal("latent_avg", lambda t: t[1:])
    unit = "encoder.body.3.res_layer"
    assert f"{unit}.3.weight is missing" in refusal(f"{unit}.3.weight", lambda t: None)
    assert "body.3.res_layer.1.weight is missing" in refusal(f"{unit}.1.weight", lambda t: None)
    assert "is not finite" in refusal("encoder.latlayer1.bias", lambda t: t / 0)
    assert "its decoder: found no tensor synthesis.b4.const" in refusal(
        "decoder.input.input", lambda t: None
    )
    assert "its decoder: synthesis.b8.conv1.bias is [1], expected [16]" in refusal(
        "decoder.convs.1.activate.bias", lambda t: t[:1]
    )


def refusal_of_styles(checkpoint: Checkpoint) -> str:
    tensors = {n: t for n, t in checkpoint.tensors.items() if "styles.7." not in n}
    with pytest.raises(ValueError, match=r".") as caught:
        built(Checkpoint(tensors, checkpoint.settings))
    return str(caught.value)


def test_other_encoders_are_refused(checkpoint: Checkpoint) -> None:
    for found in ("BackboneEncoderUsingLastLayerIntoW", None, ["Encoder4Editing"]):
        settings = {**checkpoint.settings, "encoder_type": found}
        with pytest.raises(ValueError, match="expected Encoder4Editing or GradualStyleEncoder"):
            built(Checkpoint(checkpoint.tensors, settings))
    with pytest.raises(ValueError, match=r"'other\.weight' belongs to no e4e or pSp"):
        built(Checkpoint({**checkpoint.tensors, "other.weight": torch.zeros(1)}, {}))
