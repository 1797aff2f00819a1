"""Evenly spaced choices: names often group images by kind, so the first ones are no fair sample."""

from __future__ import annotations


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers from 0, evenly spaced."""
    if count <= most:
        return list(range(count))
    return [i * count // most for i in range(most)]
