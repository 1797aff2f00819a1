"""How near real images were found among those of a generator, in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

FAR_DB = 3.0  # below the median, at least; images differ by that much without being odd
FAR_SPREADS = 4.0  # times the median deviation from the median
NAMED = 5


def far_below(psnr: Sequence[float]) -> list[int]:
    """Positions of the images that were met far worse than the rest, the worst first."""
    median = statistics.median(psnr)
    spread = statistics.median(abs(value - median) for value in psnr)
    bound = median - max(FAR_DB, FAR_SPREADS * spread)
    return sorted((i for i, value in enumerate(psnr) if value < bound), key=lambda i: psnr[i])


def quality(psnr: Sequence[float], names: Sequence[str]) -> str:
    """What a user should know of a projection; `psnr` in dB, as `generators.base.Projection`."""
    line = (
        f"the generator comes to {statistics.fmean(psnr):.1f} dB (PSNR) of the images on average, "
        f"{min(psnr):.1f} dB at worst"
    )
    far = far_below(psnr)
    if not far:
        return line
    named = ", ".join(f"{names[i]} ({psnr[i]:.1f} dB)" for i in far[:NAMED])
    more = "" if len(far) <= NAMED else f" and {len(far) - NAMED} more"
    return (
        f"{line}; far below the rest: {named}{more}: their labels will teach little, leave out "
        "what the generator has never seen"
    )
