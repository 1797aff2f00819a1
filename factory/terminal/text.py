"""Durations and lists, as the command line prints them."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """`75 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def byte_size(count: float) -> str:
    """Bytes as `0.3 MiB`, `75 MiB` or `3.4 GiB`."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    mib = count / 2**20
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"


def listing(items: Sequence[object], most: int = 20) -> list[str]:
    """One line for each of the first `most` items, and the number of the others."""
    lines = [str(item) for item in items[:most]]
    return lines if len(items) <= most else [*lines, f"... and {len(items) - most} more"]
