"""One training sample: from the members of a shard to an image and its labels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import kornia_rs.io
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from factory_core.dataset import IGNORE, unstacked
from factory_core.images import Palette, decode_mask, to_rgb
from train_seg.data.augment import Augment
from train_seg.data.soft_labels import augmented, certain

SPECIAL_CHUNKS = (b"eXIf", b"tRNS")  # of PNG: a turn and transparency, which kornia_rs ignores
Size = tuple[int, int]
# image uint8 [3, H, W] and mask uint8 [H, W], or soft labels uint8 [K, H, W]: see `soft_labels`
Pair = tuple[torch.Tensor, torch.Tensor]

Reason = Literal[
    "shard cannot be read",
    "member missing",
    "picture damaged",
    "shapes differ",
    "unknown class id",
    "impossible probabilities",
]


class Damage(NamedTuple):
    """Why a sample is unusable; `str` gives the line that the user sees."""

    shard: str
    sample: str  # its key, and its number if its shard cannot be read
    reason: Reason
    found: str

    @property
    def where(self) -> str:
        return f"{self.shard}: sample {self.sample}"

    def __str__(self) -> str:
        return f"{self.where}: {self.found}"


class DamagedSample(ValueError):
    """A sample that is unusable."""

    def __init__(self, damage: Damage):
        super().__init__(str(damage))
        self.damage = damage


class Encoded(NamedTuple):
    """A sample as stored in a shard; `members` are the bytes of its files by extension."""

    shard: str
    key: str
    members: Mapping[str, bytes]

    def damaged(self, reason: Reason, found: str) -> DamagedSample:
        """The error to raise."""
        return DamagedSample(Damage(self.shard, self.key, reason, found))


@dataclass(frozen=True)
class Decoder:
    """`Encoded` -> augmented (image, labels), a function of the sample, the seed and the epoch.

    Pixels whose uncertainty level is above `limit` are ignored; None keeps every pixel. `soft`
    labels are the class probabilities instead of the mask; if `is_certain`, they are those of a
    mask without doubt. `image` (the first that exists) and `mask` are the extensions of members;
    `palette` has the colours of the classes in coloured masks.
    """

    size: Size
    augment: Augment
    classes: int
    limit: int | None
    seed: int
    soft: bool = False
    is_certain: bool = False
    image: tuple[str, ...] = ("png", "jpg")
    mask: str = "seg.png"
    palette: Palette | None = None

    def __call__(self, sample: Encoded, epoch: int) -> Pair:
        """Raises DamagedSample."""
        pixels = _picture(sample, *self.image, rgb=True)
        mask = _picture(sample, self.mask, palette=self.palette)
        _check_shape(mask, pixels, "mask", sample)
        if problem := unknown_ids(mask, self.classes):
            raise sample.damaged("unknown class id", problem)
        if self.limit is not None:
            uncertainty = _picture(sample, "unc.png")
            _check_shape(uncertainty, pixels, "uncertainty map", sample)
            mask[uncertainty > self.limit] = IGNORE
        levels = None
        if self.soft:
            is_certain = self.is_certain
            levels = (
                certain(mask, self.classes) if is_certain else _levels(sample, pixels, self.classes)
            )
        image, mask = resize(pixels.permute(2, 0, 1).contiguous(), mask, self.size)
        if levels is not None:
            levels = resize_labels(levels, self.size)
        # Without the folder: the place of a dataset must not change the training.
        shard = sample.shard.rsplit("/", 1)[-1]
        seed = augmentation_seed(self.seed, epoch, f"{shard}/{sample.key}")
        return augmented(self.augment, image, mask, levels, seed)


def unknown_ids(mask: torch.Tensor, classes: int) -> str:
    """What is wrong with the ids of a uint8 mask, or an empty string."""
    # One pass: adding 1 wraps 255 (ignore) to 0 and keeps the order of all other ids.
    largest = int((mask + 1).max()) - 1 if mask.numel() else -1
    if largest < classes:
        return ""
    return (
        f"found class id {largest}, expected ids below {classes} (255 = ignore): "
        "correct the mask or the list of classes"
    )


def check_ids(mask: torch.Tensor, classes: int, where: str) -> None:
    """Raise ValueError for ids beyond the list; `where` names the mask in the error."""
    if problem := unknown_ids(mask, classes):
        raise ValueError(f"{where}: {problem}")


def resize(image: torch.Tensor, mask: torch.Tensor, size: Size) -> Pair:
    """Image uint8 `[..., 3, H, W]` (bilinear, antialiased) and mask `[..., H, W]` (nearest)."""
    if tuple(image.shape[-2:]) == size:
        return image, mask
    return tvf.resize(image, list(size), antialias=True), resize_labels(mask, size)


def resize_labels(labels: torch.Tensor, size: Size) -> torch.Tensor:
    """Masks or levels uint8 `[..., H, W]`, nearest."""
    if tuple(labels.shape[-2:]) == size:
        return labels
    labels = labels.unsqueeze(-3)
    return tvf.resize(labels, list(size), InterpolationMode.NEAREST_EXACT).squeeze(-3)


def augmentation_seed(seed: int, epoch: int, key: str) -> int:
    """Seed of a sample's augmentation: depends on the sample and epoch, never on the order."""
    words = [seed, epoch, zlib.crc32(key.encode())]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])


# --- pictures --------------------------------------------------------------------------------


def decode_picture(encoded: bytes, rgb: bool, palette: Palette | None = None) -> np.ndarray:
    """Pixels of a PNG or JPEG: uint8 `[H, W, 3]` if `rgb`, else the class ids `[H, W]`.

    Ids are the numbers stored, or those of the colours in `palette`.

    They are read as `factory_core.images` reads files. Raises OSError, ValueError or SyntaxError if
    the picture is damaged or incomplete, or is refused there.
    """
    if encoded.startswith(b"\x89PNG") and len(encoded) > 24 and palette is None:
        width, height = struct.unpack(">II", encoded[16:24])
        # Four times as fast as Pillow. It rejects everything that is damaged or not exactly the
        # requested format with eight bits per channel; Pillow then converts, or explains the error.
        try:
            if not any(chunk in encoded for chunk in SPECIAL_CHUNKS):
                if rgb:
                    return kornia_rs.io.decode_image_png_u8(encoded, (height, width), "rgb")
                return kornia_rs.io.decode_image_png_u8(encoded, (height, width), "mono")[..., 0]
        except Exception:  # kornia_rs raises no narrower type
            pass
        # Checks the checksums: Pillow decodes some damaged pictures without an error.
        Image.open(io.BytesIO(encoded)).verify()
    picture = Image.open(io.BytesIO(encoded))
    return np.array(to_rgb(picture)) if rgb else decode_mask(picture, palette).ids


def _picture(
    sample: Encoded, *names: str, rgb: bool = False, palette: Palette | None = None
) -> torch.Tensor:
    """The first existing member of `names`, uint8 `[H, W]` or, if `rgb`, `[H, W, 3]`."""
    name = next((name for name in names if name in sample.members), None)
    if name is None:
        there = ", ".join(sorted(sample.members))
        found = f"found members {there}, expected also {' or '.join(names)}"
        raise sample.damaged("member missing", found)
    try:
        return torch.from_numpy(decode_picture(sample.members[name], rgb, palette))
    # Pillow raises all of them.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
        found = f"{name} cannot be decoded ({reason})"
        raise sample.damaged("picture damaged", found) from None


def _levels(sample: Encoded, pixels: torch.Tensor, classes: int) -> torch.Tensor:
    """The levels of the class probabilities, uint8 `[K, H, W]`."""
    picture = _picture(sample, "prob.png")
    height, width = pixels.shape[:2]
    if tuple(picture.shape) != ((classes - 1) * height, width):
        line = (
            f"prob.png has shape {tuple(picture.shape)}, expected"
            f" {((classes - 1) * height, width)}: one image below the other, of all classes but one"
        )
        raise sample.damaged("shapes differ", line)
    try:
        return torch.from_numpy(unstacked(picture.numpy(), height))
    except ValueError as error:
        raise sample.damaged("impossible probabilities", f"prob.png: {error}") from None


def _check_shape(found: torch.Tensor, pixels: torch.Tensor, what: str, sample: Encoded) -> None:
    if found.shape != pixels.shape[:2]:
        line = (
            f"the {what} has shape {tuple(found.shape)}, expected {tuple(pixels.shape[:2])},"
            " the shape of its image"
        )
        raise sample.damaged("shapes differ", line)
