"""The same file gives the same pixels in every command."""

from __future__ import annotations

import ast
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from factory.commands.train_deeplab.job import SegmenterJob, labeled_images
from factory.pipeline.photographs import list_photographs
from factory_core.annotated.annotations import ImageFolder, read_annotations
from factory_core.dataset import read_samples
from factory_core.images import Pictures, measured, read_image, remember
from tests.stand_ins import Tiny, TinyModels
from train_seg.config import SegmenterConfig
from train_seg.data.samples import decode_picture

ROOT = Path(__file__).parents[2]
SIZE = (16, 16)
# These read only what the product wrote itself, members of shards, and pictures inside JSON files.
OTHER_READERS = {
    "factory/annotation/preview.py",
    "factory/pipeline/verify.py",
    "factory/reports/preview.py",
    "factory_core/annotated/formats/embedded.py",
    "factory_core/dataset/conversions.py",
    "factory_core/dataset/sample.py",
    "factory_core/images/channels.py",
    "factory_core/images/opening.py",
    "factory_core/images/traits.py",
    "train_seg/data/foreign.py",
    "train_seg/data/samples.py",
}

Picture = tuple[str, dict]  # suffix, arguments of Pillow's save


def pictures() -> dict[str, tuple[Image.Image, Picture]]:
    """Every odd kind of file that is read, of 16 x 16 pixels, without symmetries."""
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 200, SIZE, np.uint8))
    rgb = Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8))
    rgba = Image.fromarray(rng.integers(0, 256, (*SIZE, 4), np.uint8))
    wide = Image.fromarray(np.array(grey, np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned: dict = {"exif": exif}
    return {
        "grey": (grey, (".png", {})),
        "one_bit": (grey.convert("1"), (".png", {})),
        "grey_alpha": (rgba.convert("LA"), (".png", {})),
        "palette": (rgb.convert("P"), (".png", {})),
        "palette_hole": (rgb.convert("P"), (".png", {"transparency": 3})),
        "alpha": (rgba, (".png", {})),
        "alpha_webp": (rgba, (".webp", {"lossless": True})),
        "colour_hole": (rgb, (".png", {"transparency": rgb.getpixel((3, 5))})),
        "single_frame": (grey, (".gif", {})),
        "turned_jpeg": (rgb, (".jpg", turned)),
        "turned_jfif": (grey, (".jfif", {"format": "JPEG", **turned})),
        "turned_png": (rgb, (".png", turned)),
        "turned_grey": (grey, (".tif", turned)),
        "turned_lzw": (grey, (".tiff", {"compression": "tiff_lzw", **turned})),
        "cmyk": (rgb.convert("CMYK"), (".jpe", {"format": "JPEG"})),
        "small_values": (wide, (".png", {})),
        "small_floats": (grey.convert("F"), (".tif", {})),
        "wrong_name": (rgb, (".bmp", {"format": "PNG"})),
    }


def wide_pictures() -> dict[str, np.ndarray]:
    """Files with more than 8 bits per channel, whose range is that of the folder."""
    rng = np.random.default_rng(1)
    values = rng.integers(200, 4000, (*SIZE, 3)).astype(np.uint16)
    return {
        "wide_grey.tif": values[..., 0],
        "WIDE_RGB.TIFF": values,
        "floats.tif": values.astype(np.float32),
        "ints.Tif": values[..., 1].astype(np.int32),
        "dim.tif": values[..., 0] // 3,
    }


@pytest.fixture(params=[False, True], ids=["8 bits", "more"])
def photos(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, (picture, (suffix, how)) in pictures().items():
        picture.save(folder / f"{name}{suffix}", **how)
    for name, values in wide_pictures().items() if request.param else ():
        kind = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(folder / name, values, photometric=kind)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/labeler.json").write_text('{"classes": ["dark", "bright"]}')
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {tmp_path / 'weights'}, batch_size: 3}}\n"
        f"labeler: {{weights: {tmp_path / 'weights'}}}\n"
        "dataset: {shard_size: 8, samples_per_shard: 7, drop_fraction: 0}\n"
    )
    return Tiny(tmp_path, TinyModels())


def test_every_command_reads_the_same_pixels(
    photos: Path, tiny: Tiny, tiny_segmenter: Callable, factory: Callable
) -> None:
    generator = ImageFolder(photos, SIZE)  # train-generator, and generate --real
    names = [path.stem for path in generator.paths]
    read = {path.stem: generator[i] for i, path in enumerate(generator.paths)}
    has_wide = len(names) > len(pictures())
    assert len(names) == len(pictures()) + has_wide * len(wide_pictures())
    levels = generator.pictures.levels
    assert levels is not None
    assert levels[0] < levels[1] == (pytest.approx(3990, rel=0.01) if has_wide else 255)

    def equal(found: dict[str, np.ndarray]) -> None:
        assert sorted(found) == sorted(read)
        for name, image in found.items():
            assert np.array_equal(image, read[name]), name

    # label
    manifest = tiny.label(photos, photos.parent / "data")
    samples = list(read_samples(photos.parent / "data"))
    equal({Path(sample.meta["source"]).stem: sample.image for sample in samples})
    assert manifest.recipe["pictures"] == {"range": list(levels)}
    assert len(list_photographs(photos, generator.pictures)) == len(names)

    # train-labeler, evaluate, train-deeplab
    annotated = photos.parent / "annotated"
    shutil.copytree(photos, annotated / "images")
    (annotated / "masks").mkdir()
    for name in names:
        np.save(annotated / "masks" / f"{name}.npy", np.eye(16, dtype=np.uint8))
    found = read_annotations(annotated, SIZE)
    equal({name: image.numpy() for name, image in zip(found.stems, found.images, strict=True)})
    notes: list[str] = []
    images = labeled_images(annotated, SIZE, None, notes.extend).images
    equal({name: image.numpy() for name, image in zip(found.stems, images, strict=True)})
    assert notes == [f"{len(names)} annotated images in {annotated}", *found.notes]
    assert any("more than 8 bits per channel: values from" in note for note in notes) == has_wide
    assert found.pictures == generator.pictures
    assert "5 turned upright by their EXIF tag" in notes[1]
    assert "5 with an alpha channel" in notes[1]

    # predict: the class of every pixel is black, and black is not drawn over the image
    segmenter = tiny_segmenter(["dark", "bright"], SIZE)
    head = segmenter.network.net.segmentation_head[0]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0]))
    segmenter.save(photos.parent / "model")
    out = photos.parent / "out"
    result = factory(
        *("predict", "--model", photos.parent / "model", "--images", photos, "--out", out)
    )
    assert result.code == 0, result.err
    shown = {path.stem: np.asarray(Image.open(path)) for path in (out / "overlays").iterdir()}
    equal({name: image.transpose(2, 0, 1) for name, image in shown.items()})

    # train-deeplab on shards of other programs, where no folder gives a range
    if has_wide:
        return
    files = {path.stem: path.read_bytes() for path in generator.paths}
    equal({name: decode_picture(data, True).transpose(2, 0, 1) for name, data in files.items()})


def test_shards_hold_8_bits(photos: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full(SIZE, 4000, np.uint16)).save(buffer, "TIFF")
    with pytest.raises(ValueError, match=r"more than 8 bits per channel \(values from 4000"):
        decode_picture(buffer.getvalue(), rgb=True)


def test_no_other_module_opens_images() -> None:
    found = set()
    for package in ("factory", "factory_core", "generators", "labelers", "train_seg"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                    ("Image.open", ".imread", ".read_image", ".decode_image", ".decode_jpeg")
                ):
                    found.add(str(path.relative_to(ROOT)))
    assert found == OTHER_READERS


# --- what is trained remembers how its pictures were scaled ----------------------------------


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A folder of one picture of 16 bits."""
    folder = tmp_path / "wide"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", wide_pictures()["wide_grey.tif"])
    return folder


KNOWN = Pictures(range=(0, 9000))


def test_a_labeler_and_its_datasets_remember(wide: Path, tiny: Tiny, tmp_path: Path) -> None:
    remember(tmp_path / "weights", KNOWN)
    manifest = tiny.label(wide, tmp_path / "data")
    assert manifest.recipe["pictures"] == {"range": [0, 9000]}
    [sample] = read_samples(tmp_path / "data")
    assert np.array_equal(sample.image, read_image(wide / "a.tif", SIZE, KNOWN))

    config = SegmenterConfig()
    from_data = SegmenterJob([tmp_path / "data"], tmp_path / "out", None, config, "cpu")
    assert from_data.scaled.levels == (0, 9000)
    (tmp_path / "annotated").mkdir()
    shutil.copytree(wide, tmp_path / "annotated/images")
    (tmp_path / "annotated/masks").mkdir()
    np.save(tmp_path / "annotated/masks/a.npy", np.eye(16, dtype=np.uint8))
    both = replace(from_data, data=[tmp_path / "annotated", tmp_path / "data"])
    assert both.scaled.levels == (0, 9000)
    alone = replace(from_data, data=[tmp_path / "annotated"])
    assert alone.scaled.levels == measured(Pictures(), [wide / "a.tif"]).levels
    [images], _, _ = alone.read()
    assert np.array_equal(images.images[0], read_image(wide / "a.tif", None, alone.scaled))


def test_predict_scales_as_in_training(
    wide: Path, tiny_segmenter: Callable, factory: Callable, tmp_path: Path
) -> None:
    segmenter = tiny_segmenter(["dark", "bright"], SIZE)
    head = segmenter.network.net.segmentation_head[0]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0]))
    segmenter.save(tmp_path / "model")
    remember(tmp_path / "model", KNOWN)
    command = ("predict", "--model", tmp_path / "model", "--images", wide, "--out", tmp_path / "o")
    for given, pictures in (
        ((), KNOWN),
        (("--set", "pictures.range=full"), Pictures(range="full")),
    ):
        result = factory(*command, *given)
        assert result.code == 0, result.err
        shown = np.asarray(Image.open(tmp_path / "o/overlays/a.png")).transpose(2, 0, 1)
        assert np.array_equal(shown, read_image(wide / "a.tif", None, pictures))
        assert "1 image with more than 8 bits per channel" in result.out
    for wrong, says in (
        ("pictures.rang=full", "unknown key 'pictures.rang': did you mean 'pictures.range'?"),
        ("pictures.range=[9,3]", "expected the lower value first"),
        ("lr=1", "--set lr=1: expected pictures.range, .percentiles or .page"),
    ):
        result = factory(*command, "--set", wrong)
        assert result.code == 1
        assert says in result.err
