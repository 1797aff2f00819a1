"""Label Studio's brush encoding: runs and single values of bytes, bit by bit (thi.ng/rle-pack).

The bytes are the four channels of the drawing canvas, pixel by pixel; the fourth, the opacity, says
what was painted. Header: number of bytes (32 bits), bits of a value less one (5), and four bit
lengths less one (4 each) of the counts to come. Then, per run, a bit that says whether one value
is repeated, which of the four lengths its count has (2 bits), the count less one, and the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factory_core.images import Size, wxh

CHANNELS = 4
OPAQUE = 128  # from this opacity on, a pixel counts as painted
COUNT_BITS = (3, 4, 8, 16)  # that Label Studio writes


def decode(data: Sequence[int], size: Size) -> np.ndarray:
    """The painted pixels bool `[H, W]`; raises ValueError for bytes of a different size."""
    try:
        stream = np.frombuffer(bytes(data), np.uint8)
    except ValueError:
        raise ValueError("found numbers outside 0 to 255, expected the bytes of a brush") from None
    bits = np.unpackbits(stream).astype("S1").tobytes().decode()
    total, place = CHANNELS * size[0] * size[1], 53
    if len(bits) < place:
        raise ValueError("found a brush without a header")
    if (found := int(bits[:32], 2)) != total:
        raise ValueError(f"found a brush for {found // CHANNELS} pixels, expected {wxh(size)}")
    value_bits = int(bits[32:37], 2) + 1
    count_bits = [int(bits[i : i + 4], 2) + 1 for i in range(37, 53, 4)]
    opacity = np.zeros(size[0] * size[1], np.uint8)
    done = 0
    try:
        while done < total:
            repeats, length = bits[place] == "1", count_bits[int(bits[place + 1 : place + 3], 2)]
            place += 3
            count = int(bits[place : place + length], 2) + 1
            place += length
            end = min(done + count, total)
            if repeats:
                # Of the bytes before the n-th, n // 4 are opacities.
                value = int(bits[place : place + value_bits], 2)
                opacity[done // CHANNELS : end // CHANNELS] = min(value, 255)
                place += value_bits
            else:
                for i in range(done + (CHANNELS - 1 - done) % CHANNELS, end, CHANNELS):
                    at = place + (i - done) * value_bits
                    opacity[i // CHANNELS] = min(int(bits[at : at + value_bits], 2), 255)
                place += count * value_bits
            done = end
    except (ValueError, IndexError):  # int("") or an index behind the end
        raise ValueError("found a brush that ends too early") from None
    return (opacity >= OPAQUE).reshape(size)


def encode(inside: np.ndarray) -> list[int]:
    """The inverse of `decode`, all four channels equal, as Label Studio's own converter writes."""
    flat = inside.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [flat.size]])
    parts = [f"{CHANNELS * flat.size:032b}{7:05b}", *(f"{n - 1:04b}" for n in COUNT_BITS)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        left, value = CHANNELS * (end - start), "1" * 8 if flat[start] else "0" * 8
        while left:
            count = min(left, 2 ** COUNT_BITS[-1])
            which = next(i for i, n in enumerate(COUNT_BITS) if count <= 2**n)
            parts.append(f"1{which:02b}{count - 1:0{COUNT_BITS[which]}b}{value}")
            left -= count
    bits = np.frombuffer("".join(parts).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tolist()
