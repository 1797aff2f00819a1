"""What every checkpoint of a U-Net is checked for: its tensors and its channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError unless the tensors are those `expected`; ignores trailing ones in shapes."""
    problems = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "of a different shape": [
            f"{name} (found {list(state[name].shape)}, expected {list(shape)})"
            for name, shape in expected.items()
            if name in state and _squeezed(state[name].shape) != _squeezed(shape)
        ],
        "not of floating point": [n for n in state if not state[n].is_floating_point()],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
        raise ValueError(f"damaged or modified U-Net: {listed}")


def _squeezed(shape: Iterable[int]) -> list[int]:
    """`shape` without trailing ones: a linear layer may be stored as a 1-wide convolution."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def not_rgb(channels_in: int, channels_out: int) -> str:
    """What a network with these numbers of channels is, and what to do, in one line.

    `channels_out` may include as many channels again for a learned variance.
    """
    found = f"found {channels_in} channels in and {channels_out} out, expected 3 in and 3 or 6 out"
    if channels_in == 1:
        return (
            f"{found}: grey networks are not supported; train one on the same images with `factory "
            f"train-generator`, which reads grey images as RGB"
        )
    if channels_in == 6 and channels_out in (3, 6):
        return f"{found}: a network that enlarges images is no generator; use the one it refines"
    return f"{found}: networks that work on latents or with an alpha channel are not supported"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
