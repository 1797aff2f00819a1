"""Golden files of published encoders: their checkpoints and what they gave."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "golden" / "encoders"
VDVAE = GOLDEN / "vdvae" / "ffhq-tiny-iter-1-model-ema.th"
ABOUT_VDVAE = json.loads((GOLDEN / "vdvae" / "about.json").read_text())
VDVAE_BLOCKS = {
    "encoder_blocks": ABOUT_VDVAE["enc_blocks"],
    "decoder_blocks": ABOUT_VDVAE["dec_blocks"],
}
TOLERANCE = 1e-5  # of the largest value


def expected(name: str) -> dict[str, Tensor]:
    """What the network `name` gave."""
    return load_file(GOLDEN / name / "expected.safetensors")


def assert_equal(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str = ""
) -> None:
    """Every map that was found is among the wanted ones, and equal to it within the tolerance."""
    assert found
    for name, x in found.items():
        y = wanted[prefix + name]
        assert x.shape == y.shape, name
        assert (x - y).abs().max() <= TOLERANCE * y.abs().max(), name
