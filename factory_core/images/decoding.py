"""One reading path for images: 8-bit RGB, upright, without transparency."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageOps

from factory_core.images.channels import Channels, has_wide_channels, png_channels, tiff_channels
from factory_core.images.opening import decode_file, planes
from factory_core.images.resizing import Size, image_tensor
from factory_core.images.scaling import Sample, eight_bit_picture, levels_over, samples_of
from factory_core.images.traits import traits_of
from factory_core.pictures import DEFAULT_PICTURES, Pictures

if TYPE_CHECKING:
    import torch

# A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time. As long as what
# remains is this many times larger than the result, Pillow calls the two indistinguishable.
REDUCING_GAP = 3


def read_image(
    path: str | Path,
    size: Size | None = None,
    pictures: Pictures = DEFAULT_PICTURES,
    crop: bool = False,
) -> torch.Tensor:
    """An image as uint8 `[3, H, W]` RGB, upright by its EXIF tag, resized to `size` (H, W).

    Transparent pixels are put on white. Resizing is antialiased bicubic, ignoring the aspect
    ratio, unless `crop` cuts off what is too long; a JPEG of more than six times `size` is decoded
    at a smaller scale. Raises ValueError naming the file if it cannot be read, or holds several
    pages and `pictures` names none, or has more than 8 bits per channel and values other than whole
    numbers of 0 to 255, and `pictures` was not `measured`; FileNotFoundError if it does not exist.
    """
    return image_tensor(load_image(Path(path), pictures, size), size, crop)


def load_image(
    path: Path, pictures: Pictures = DEFAULT_PICTURES, size: Size | None = None
) -> Image.Image:
    """The image at its own size, RGB and upright; the errors of `read_image`.

    A JPEG that will be resized to `size` (H, W) may be smaller, see REDUCING_GAP.
    """

    def decode(image: Image.Image) -> Image.Image:
        if size is not None:
            smallest = REDUCING_GAP * max(size)  # of both sides: it may have to be turned
            image.draft(None, (smallest, smallest))
        return to_rgb(image, pictures)

    def rare_tiff(file: BinaryIO) -> Image.Image:
        return _on_white(eight_bit_picture(tiff_channels(file, pictures.page), pictures))

    return decode_file(path, decode, pictures.page, rare_tiff)


def to_rgb(image: Image.Image, pictures: Pictures = DEFAULT_PICTURES) -> Image.Image:
    """An opened image as RGB, upright and on white; the errors of `eight_bits`.

    It may be `image` itself, decoded: each copy of a photograph would cost a tenth of decoding it.
    """
    picture = eight_bits(image, pictures)
    ImageOps.exif_transpose(picture, in_place=True)
    return _on_white(picture)


def eight_bits(image: Image.Image, pictures: Pictures = DEFAULT_PICTURES) -> Image.Image:
    """An opened, not yet decoded image with 8 bits per channel; raises as `eight_bit_picture`."""
    channels = _wide_channels(image, pictures.page)
    if channels is None:
        return image
    narrow = eight_bit_picture(channels, pictures)
    if image.format != "TIFF":  # which are upright already
        narrow.getexif().update(image.getexif())
    return narrow


def check_image(path: Path, pictures: Pictures = DEFAULT_PICTURES) -> None:
    """Raise what `load_image` raises for the file, in less time."""

    def decode(image: Image.Image) -> None:
        image.draft(None, (1, 1))  # JPEG: every byte is read, an eighth of the size computed
        to_rgb(image, pictures)

    def rare_tiff(file: BinaryIO) -> None:
        eight_bit_picture(tiff_channels(file, pictures.page), pictures)

    decode_file(path, decode, pictures.page, rare_tiff)


def measured(pictures: Pictures, paths: Sequence[str | Path]) -> Pictures:
    """`pictures` with the values that become 0 and 255, measured over all of `paths` that need it.

    Unchanged if these values are given, or if no picture has more than 8 bits per channel.
    """
    if pictures.range != "percentiles":
        return pictures
    samples = wide_samples([Path(path) for path in paths], pictures)
    if not samples:
        return pictures
    levels = levels_over(samples, pictures.percentiles)
    return pictures.model_copy(update={"range": levels})


def wide_samples(paths: Sequence[Path], pictures: Pictures) -> list[Sample]:
    """Values of those of the pictures that have more than 8 bits per channel."""
    wide = [path for path, found in zip(paths, traits_of(paths), strict=True) if found.wide]
    return samples_of(wide, pictures.page, _channels_in)


def _channels_in(path: Path, page: int | None) -> Channels | None:
    return decode_file(
        path, partial(_wide_channels, page=page), page, partial(tiff_channels, page=page)
    )


def _wide_channels(image: Image.Image, page: int | None) -> Channels | None:
    """The values of an opened image, if Pillow would not give all of them."""
    if image.format == "TIFF" and (has_wide_channels(image) or planes(image) > image.n_frames):  # type: ignore[attr-defined]
        return tiff_channels(image.fp, page)  # type: ignore[attr-defined]
    return png_channels(image) if has_wide_channels(image) else None


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
