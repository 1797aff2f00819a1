"""Under which licence the published weights of a network are. Nothing here imports torch."""

from __future__ import annotations

from generators.encoders.config import NetworkName

NON_COMMERCIAL = "CC BY-NC 4.0, which excludes commercial use"
PUBLISHED: dict[NetworkName, str] = {
    "mae": NON_COMMERCIAL,
    "swav": NON_COMMERCIAL,
    "dinov2": "Apache 2.0",
    "dinov3": "the DINOv3 License of Meta",
    "vdvae": "MIT",
    "alae": "Apache 2.0",
    "e4e": "MIT; the StyleGAN2 in them may be under NVIDIA's Source Code License, which excludes "
    "commercial use",
}


def licence_note(network: NetworkName) -> str | None:
    """What a user of published weights should know, in one line; None if nothing is known."""
    if (licence := PUBLISHED.get(network)) is None:
        return None
    return f"published weights of {network} are under {licence}: check that yours allow this use"
