"""Tars of other programs: the same samples as webdataset, in the training stream."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from factory_core.storage import Store, open_store
from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.foreign import ForeignTars, Members, open_tars
from train_seg.data.training_data import LabeledImages, TrainingData, open_training_data

MEMBERS = Members("jpg", "mask.png")
CLASSES = ["ground", "cell"]
COLOURS = [[0, 0, 0], [200, 30, 30]]


def encoded(pixels: np.ndarray, format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def grey(index: int) -> np.ndarray:
    """An image uint8 `[12, 16, 3]` of one grey, which identifies it."""
    return np.full((12, 16, 3), 10 * index, np.uint8)


def mask_of(index: int) -> np.ndarray:
    mask = np.zeros((12, 16), np.uint8)
    mask[: index % 12 + 1] = 1
    return mask


def write_tar(
    folder: Store,
    name: str,
    indices: Sequence[int],
    colours: bool = False,
    leave_out: Sequence[int] = (),
) -> None:
    """A tar as webdataset's writer and `tar` make them: folders, another member, capitals."""
    with folder.new_file(name) as file, tarfile.open(fileobj=file, mode="w") as tar:
        directory = tarfile.TarInfo("some.dir")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for index in indices:
            mask = mask_of(index)
            pixels = np.array(COLOURS, np.uint8)[mask] if colours else mask
            members = {"JPG": encoded(grey(index), "JPEG"), "cls": b"3"}
            if index not in leave_out:
                members["mask.png"] = encoded(pixels, "PNG")
            for extension, data in members.items():
                info = tarfile.TarInfo(f"some.dir/photo_{index}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store = open_store(tmp_path if request.param == "disk" else f"memory://{uuid.uuid4().hex}/tars")
    write_tar(store, "other-000000.tar", range(5))
    write_tar(store, "other-000001.tar", range(5, 12))
    return store


def open_data(*data: object, **settings: object) -> TrainingData:
    return open_training_data(data, lambda size: Augment(AugmentConfig(), size), **settings)


def opened(folder: Store, last: int = 1, **settings: object) -> ForeignTars:
    return open_tars(f"{folder}/other-{{000000..{last:06d}}}.tar", MEMBERS, CLASSES, **settings)


def indices(images: torch.Tensor) -> list[int]:
    return [round(float(image.float().mean()) / 10) for image in images]


def test_an_epoch_has_every_sample_once(folder: Store) -> None:
    data = open_data(opened(folder), seed=3)
    assert data.image_size == (12, 16)
    assert data.source.samples == 12
    pairs = list(data.source.epoch(0))
    found = indices(torch.stack([image for image, _ in pairs]))
    assert sorted(found) == list(range(12))
    assert found != sorted(found)
    for index, (_, mask) in zip(found, pairs, strict=True):
        np.testing.assert_array_equal(mask, mask_of(index))


def test_it_finds_what_webdataset_finds(tmp_path: Path) -> None:
    folder = open_store(tmp_path)
    write_tar(folder, "other-000000.tar", range(5))
    names = [str(tmp_path / "other-000000.tar")]
    theirs = list(wds.WebDataset(names, shardshuffle=False))
    with wds.TarWriter(str(tmp_path / "written.tar")) as writer:
        for sample in theirs:
            writer.write(
                {"__key__": sample["__key__"], "jpg": sample["jpg"], "mask.png": sample["mask.png"]}
            )
    for pattern in (names[0], str(tmp_path / "written.tar")):
        (tar,) = open_tars(pattern, MEMBERS, CLASSES).tars
        assert tar.samples == len(theirs) == 5


def test_a_stream_resumes_in_mid_epoch(folder: Store) -> None:
    source = open_data(opened(folder), seed=1, shuffle_buffer=4).source
    whole = source.batches(4)
    first = [next(whole)[0] for _ in range(5)]
    resumed = next(source.batches(4, start_step=4))[0]
    np.testing.assert_array_equal(first[4], resumed)


def test_the_digest_follows_the_content(folder: Store) -> None:
    before = open_data(opened(folder)).digest
    assert open_data(opened(folder)).digest == before
    write_tar(folder, "other-000001.tar", range(6, 12))
    assert open_data(opened(folder)).digest != before


def test_masks_in_colours(tmp_path: Path) -> None:
    folder = open_store(tmp_path)
    write_tar(folder, "other-000000.tar", range(3), colours=True)
    data = open_data(opened(folder, 0, palette=COLOURS))
    assert data.palette == COLOURS
    for image, mask in data.source.epoch(0):
        np.testing.assert_array_equal(mask, mask_of(indices(image[None])[0]))
    with pytest.raises(ValueError, match=r"photo_\d: mask.png cannot be decoded .*colours"):
        list(open_data(opened(folder, 0)).source.epoch(0))


def test_beside_annotated_images_and_with_soft_labels(
    folder: Store, make_labeled: Callable[..., LabeledImages]
) -> None:
    labeled = make_labeled(2)
    labeled = LabeledImages(labeled.images, labeled.masks.clamp(max=1), CLASSES)
    data = open_data(opened(folder), labeled, size=(12, 16), mix=[0.5, 0.5])
    assert next(data.source.batches(4))[0].shape == (4, 3, 12, 16)
    levels = opened(folder).source((12, 16), Augment(AugmentConfig(), (12, 16)), 0, soft=True)
    item = next(levels.read([0]))
    _, soft = levels.decoder(item.content, 0)
    assert soft.shape == (2, 12, 16)
    assert set(soft.unique().tolist()) == {0, 255}
    with pytest.raises(ValueError, match="soft_labels needs the class probabilities"):
        open_data(opened(folder), soft_labels=True)


def test_a_sample_without_its_mask(tmp_path: Path) -> None:
    folder = open_store(tmp_path)
    write_tar(folder, "other-000000.tar", range(4), leave_out=[2])
    with pytest.raises(
        ValueError, match=r"photo_2: found members cls, jpg, expected also mask.png"
    ):
        list(open_data(opened(folder, 0)).source.epoch(0))
    skipping = open_data(opened(folder, 0), skip_damaged=True).source
    assert len(list(skipping.epoch(0))) == 4
    assert skipping.skipped == {"member missing": 1}


def test_wrong_members_are_one_line(folder: Store) -> None:
    for members in (Members("png", "mask.png"), Members("jpg", "seg.png")):
        with pytest.raises(ValueError, match=r"its first has cls, jpg, mask\.png: name"):
            open_tars(f"{folder}/other-000000.tar", members, CLASSES)
    with pytest.raises(FileNotFoundError, match=r"other-000002\.tar: no such file"):
        opened(folder, 2)
    with folder.new_file("other-000002.tar") as file:
        file.write(b"\x1f\x8b compressed" * 99)
    with pytest.raises(ValueError, match=r"other-000002\.tar is no intact tar"):
        opened(folder, 2)


@pytest.mark.parametrize(
    "text", ["jpg,png", "image=jpg", "image=jpg,mask=", "image=a,mask=b,cls=c", "image=a,mask=b,"]
)
def test_members_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as image=jpg,mask=seg\.png"):
        Members.parse(text)
    assert Members.parse("mask=.Seg.png, image=JPG") == Members("jpg", "seg.png")
