"""Which network a checkpoint holds, by the names of its tensors. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Collection

from generators.encoders.config import NetworkName

INFO_FILE = "encoder.json"  # in a folder of our own format
# Each network has names that fit all of its patterns; the first that fits is taken.
PATTERNS: tuple[tuple[NetworkName, tuple[str, ...]], ...] = (
    ("e4e", (r"latent_avg$", r"encoder\.styles\.0\.")),
    ("vdvae", (r"encoder\.enc_blocks\.0\.", r"decoder\.dec_blocks\.0\.")),
    ("alae", (r"(discriminator_s|discriminator)\b", r"(mapping_fl_s|mapping_fl)\b")),
    ("dinov3", (r"storage_tokens$", r"patch_embed\.proj\.")),
    ("dinov2", (r"blocks\.(0\.)?0\.ls1\.gamma$", r"patch_embed\.proj\.", r"mask_token$")),
    ("mae", (r"patch_embed\.proj\.", r"decoder_blocks\.0\.")),
    ("swav", (r"layer4\.0\.", r"projection_head\.")),
)


def network_of(names: Collection[str]) -> NetworkName | None:
    """The network whose state dict, or checkpoint, has these names; None if there is none."""
    text = "\n".join(name.removeprefix("module.") for name in names)
    for network, patterns in PATTERNS:
        if all(re.search(f"^{pattern}", text, re.MULTILINE) for pattern in patterns):
            return network
    return None
