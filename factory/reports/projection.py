"""How closely a projection matched real images, in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

FAR_DB = 3.0  # at least this far below the median: ordinary images differ less
FAR_SPREADS = 4.0  # times the median deviation from the median
NAMED = 5  # images at most


def far_below(psnr: Sequence[float]) -> list[int]:
    """Positions of the images that were matched far worse than the rest, worst first."""
    median = statistics.median(psnr)
    spread = statistics.median(abs(value - median) for value in psnr)
    bound = median - max(FAR_DB, FAR_SPREADS * spread)
    return sorted((i for i, value in enumerate(psnr) if value < bound), key=lambda i: psnr[i])


def quality(psnr: Sequence[float], names: Sequence[str]) -> str:
    """The quality of a projection, in one line; `psnr` in dB as in `generators.base.Projection`."""
    line = (
        f"the generator matches the images with a PSNR of {statistics.fmean(psnr):.1f} dB on "
        f"average, {min(psnr):.1f} dB at worst"
    )
    far = far_below(psnr)
    if not far:
        return line
    named = ", ".join(f"{names[i]} ({psnr[i]:.1f} dB)" for i in far[:NAMED])
    more = "" if len(far) <= NAMED else f" and {len(far) - NAMED} more"
    return (
        f"{line}; far below the rest: {named}{more}: their labels will teach little, so leave out "
        "images unlike those the generator was trained on"
    )
