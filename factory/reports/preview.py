"""preview.png: a finished dataset at a glance.

It shows typical samples, those of which the labeler is most and least certain, and dropped ones,
each as image and overlay with its uncertainty (and its uncertainty map, if there are maps). Below
them are the classes with their shares of the pixels. Only shards with shown samples are read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from factory.reports.choosing import read_chosen
from factory_core import dataset
from factory_core.dataset import (
    PREVIEW_NAME,
    SAMPLES_NAME,
    Dataset,
    Manifest,
    Sample,
    overlay,
)
from factory_core.storage import Place, open_store

COLUMNS = 8  # samples per row
TILE = 128  # longest side of a shown image, in pixels
GAP, SECTION_GAP, MARGIN = 10, 26, 44
MIN_WIDTH = 720  # room for the title when images are narrow
INK, GREY, RULE = (28, 30, 34), (118, 122, 130), (226, 228, 232)
BLANK = (214, 217, 222)


def write_preview(folder: Place) -> None:
    """Draw a finished dataset to preview.png inside it; raises as `dataset.open_dataset`."""
    data = dataset.open_dataset(folder)
    sections = _sections(data)
    buffer = io.BytesIO()
    _draw(data.manifest, sections).save(buffer, "PNG")
    data.store.write(PREVIEW_NAME, buffer.getvalue())


def fault(folder: Place) -> str | None:
    """What is wrong with the preview.png of a dataset; None if it is intact."""
    try:
        with Image.open(io.BytesIO(open_store(folder).read(PREVIEW_NAME))) as picture:
            picture.load()
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError, SyntaxError):  # Pillow raises any of them
        return "cannot be read"
    return None


# --- which samples ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Section:
    """A heading, a note beside it, and samples with their uncertainties in nats."""

    heading: str
    note: str
    samples: list[tuple[Sample, float]]


def _sections(data: Dataset) -> list[_Section]:
    """Choose from samples.parquet, then read just those."""
    with data.store.local_copy(SAMPLES_NAME) as samples_path:
        return _choose(data, samples_path)


def _choose(data: Dataset, samples_path: Path) -> list[_Section]:
    # Read numbers of all candidates, which may be millions, but names of the chosen ones only.
    rows = pq.read_table(samples_path, columns=["uncertainty", "kept"])
    uncertainty, is_kept = (rows[name].to_numpy() for name in ("uncertainty", "kept"))
    order = np.argsort(uncertainty, kind="stable")  # a row's number is its index
    kept, dropped = order[is_kept[order]], order[~is_kept[order]]
    k = min(COLUMNS // 2, -(-len(kept) // 3))  # no sample twice, even if there are few
    first, middle, last = np.split(np.arange(len(kept)), [k, max(k, len(kept) - k)])
    spread = np.linspace(0, len(middle) - 1, min(COLUMNS, len(middle))).round().astype(int)
    chosen = [
        (
            "Typical",
            "from certain to uncertain; below each its uncertainty in nats",
            kept[middle[spread]],
        ),
        ("Most certain", "of all", kept[first]),
        ("Least certain", "of those kept", kept[last]),
        ("Dropped", "the least certain of all candidates", dropped[-COLUMNS:]),
    ]
    wanted = [dataset.sample_key(i) for _, _, part in chosen for i in part.tolist()]
    names = ["key", "shard", "kept"]
    named = pq.read_table(samples_path, columns=names, filters=[("key", "in", wanted)])
    columns = (named[name].to_pylist() for name in names)
    found = {sample.key: sample for sample in read_chosen(data, zip(*columns, strict=True))}
    sections = []
    for heading, note, part in chosen:
        keys = map(dataset.sample_key, part.tolist())
        pairs = zip(keys, uncertainty[part], strict=True)
        samples = [(found[key], float(value)) for key, value in pairs if key in found]
        if samples:
            sections.append(_Section(heading, note, samples))
    return sections


# --- drawing ---------------------------------------------------------------------------------
# A section, the title and the legend are pictures of their own; the page stacks them.


def _draw(manifest: Manifest, sections: Sequence[_Section]) -> Image.Image:
    height, width = _shown_size(*manifest.image_size)
    page_width = max(COLUMNS * (width + GAP) - GAP, MIN_WIDTH)
    rows, used = [list[Image.Image]()], 0
    for section in sections:
        picture = _draw_section(section, manifest, (height, width))
        if rows[-1] and used + GAP + picture.width > page_width:
            rows.append([])
        used = picture.width + (used + GAP if rows[-1] else 0)
        rows[-1].append(picture)
    bands = [_draw_title(manifest, page_width), *map(_beside, rows)]
    bands.append(_draw_legend(manifest, page_width))

    total = sum(band.height for band in bands) + SECTION_GAP * (len(bands) - 1)
    page = Image.new("RGB", (page_width + 2 * MARGIN, total + 2 * MARGIN), "white")
    top = MARGIN
    for band in bands:
        page.paste(band, (MARGIN, top))
        top += band.height + SECTION_GAP
    return page


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of equal height, side by side."""
    width = sum(p.width + GAP for p in pictures) - GAP
    row = Image.new("RGB", (max(width, 1), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


def _draw_title(manifest: Manifest, width: int) -> Image.Image:
    totals, (rows, columns) = manifest.totals, manifest.image_size
    verb = "labelled" if manifest.source.get("kind") == "images" else "sampled"
    facts = (
        f"{totals.candidates:,} {verb}",
        f"{totals.kept:,} kept",
        f"{totals.dropped:,} dropped as uncertain",
        f"{columns} x {rows} px",
        f"{len(manifest.classes)} classes",
    )
    picture = Image.new("RGB", (width, 68), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, 28), _printable(manifest.name, "dataset"), INK, _font(36), anchor="ls")
    draw.text((0, 62), "   ·   ".join(facts), GREY, _font(18), anchor="ls")
    return picture


def _draw_section(section: _Section, manifest: Manifest, size: tuple[int, int]) -> Image.Image:
    """A rule, a heading, images, their overlays (and maps), and the uncertainty below each."""
    height, width = size
    n, top = len(section.samples), 44
    columns = [_tiles(sample, manifest, size) for sample, _ in section.samples]
    # A single narrow sample still needs room for the heading.
    across = max(n * (width + GAP) - GAP, TILE)
    picture = Image.new("RGB", (across, top + len(columns[0]) * (height + 4) + 22), "white")
    draw = _headed(picture, section.heading, section.note)
    for i, (tiles, (_, uncertainty)) in enumerate(zip(columns, section.samples, strict=True)):
        left = i * (width + GAP)
        for row, tile in enumerate(tiles):
            picture.paste(Image.fromarray(tile), (left, top + row * (height + 4)))
        place = (left + width / 2, picture.height)
        draw.text(place, f"{uncertainty:#.3g}", GREY, _font(15), anchor="md")
    return picture


def _draw_legend(manifest: Manifest, width: int) -> Image.Image:
    """A bar of the classes' pixel shares, and a swatch, name and share for each."""
    total = max(sum(manifest.totals.class_pixels), 1)
    shares = [pixels / total for pixels in manifest.totals.class_pixels]
    names = [_printable(name, f"class {i}") for i, name in enumerate(manifest.classes)]
    percents = [f"{share:.1%}" for share in shares]
    font, scratch = _font(17), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    entry = max(
        scratch.textlength(f"{name}  {percent}", font)
        for name, percent in zip(names, percents, strict=True)
    )
    step = int(entry) + 24 + 32  # swatch and the room between two entries
    columns = max(1, (width + 32) // step)
    rows = -(-len(names) // columns)

    top = 44
    picture = Image.new("RGB", (width, top + 24 + 30 * rows), "white")
    draw = _headed(picture, "Classes", "share of the pixels of the kept samples")
    edges = np.rint(np.cumsum([0.0, *shares]) * width).astype(int).tolist()
    for i, name in enumerate(names):
        # A black class is not painted in the overlays: show it as blank here too.
        colour = tuple(manifest.palette[i]) if any(manifest.palette[i]) else BLANK
        if edges[i + 1] > edges[i]:
            draw.rectangle((edges[i], top, edges[i + 1] - 1, top + 13), colour)
        left, middle = i % columns * step, top + 24 + 30 * (i // columns) + 17
        draw.rounded_rectangle((left, middle - 8, left + 16, middle + 8), 4, colour)
        draw.text((left + 26, middle), name, INK, font, anchor="lm")
        after = left + 26 + scratch.textlength(name + "  ", font)
        draw.text((after, middle), percents[i], GREY, font, anchor="lm")
    return picture


def _headed(picture: Image.Image, heading: str, note: str) -> ImageDraw.ImageDraw:
    """Draw a rule, a heading and a note at the top of a picture; returns its drawing context."""
    draw = ImageDraw.Draw(picture)
    draw.line((0, 0, picture.width, 0), RULE)
    draw.text((0, 30), heading, INK, _font(20), anchor="ls")
    after = draw.textlength(heading, _font(20)) + 12
    if after + draw.textlength(note, _font(15)) <= picture.width:
        draw.text((after, 30), note, GREY, _font(15), anchor="ls")
    return draw


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _printable(text: str, otherwise: str) -> str:
    """`text`, or `otherwise` if Pillow's font may lack some of it: it has little beyond ASCII."""
    return text if text.isascii() else otherwise


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """(H, W) as shown: small images are enlarged by a whole factor, large ones shrunk."""
    longest = max(height, width)
    scale = TILE // longest if longest <= TILE else TILE / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def _tiles(sample: Sample, manifest: Manifest, size: tuple[int, int]) -> list[np.ndarray]:
    """Image, overlay and, where there is one, uncertainty map, uint8 at `size`.

    White is the level that at most 1 % of the dataset's pixels exceed: few come near ln K.
    """
    picture = Image.fromarray(sample.image.transpose(1, 2, 0)).resize(size[::-1])  # bicubic
    mask = Image.fromarray(sample.mask).resize(size[::-1], Image.Resampling.NEAREST)
    image = np.asarray(picture)
    tiles = [image, overlay(image, np.asarray(mask), manifest.palette)]
    if sample.uncertainty is not None and manifest.uncertainty_histogram is not None:
        white = max(1, dataset.level_at_quantile(manifest.uncertainty_histogram, 0.99))
        levels = dataset.uncertainty_levels(sample.uncertainty, len(manifest.classes))
        grey = np.minimum(levels.astype(np.float32) * (255 / white), 255).astype(np.uint8)
        nearest = Image.Resampling.NEAREST
        tiles.append(np.asarray(Image.fromarray(grey).resize(size[::-1], nearest)))
    return tiles
