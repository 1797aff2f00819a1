"""Proposals: what they are learnt from, what cancels them, and which picture comes next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import generators
from factory.annotation.page import features as page_features
from factory.annotation.page.assist import Assist, Load
from factory.annotation.page.changes import Changes
from factory.annotation.page.features import DrawnFeatures, ImageFeatures
from factory.annotation.page.folder import Box, Folder
from factory.annotation.page.learning import (
    PIXELS_OF_CLASS,
    Cancelled,
    Proposal,
    chosen_pixels,
    learn,
    propose,
)
from factory.demo.render import CLASSES, render, render_folder
from factory.recipe import generator_recipe, recipe_of_labeler
from generators.base import Finetunable, Generator
from labelers.config import LabelerConfig, NetworkTraining
from labelers.labeler import GeneratorInfo, Labeler
from labelers.network.fit import fit_network

INFO = GeneratorInfo(digest="0" * 64)
WAIT_SEC = 300


@pytest.fixture(scope="module")
def generator() -> Generator:
    config = generator_recipe(None, "package:factory.demo/generator", []).generator
    root = Path(page_features.__file__).parents[2]
    at = {"weights": str(root / "demo" / "generator")}
    return generators.load(config.model_copy(update=at), "cpu")


@pytest.fixture(scope="module")
def encoded(
    generator: Generator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Folder, ImageFeatures]:
    """Three demo images, undrawn, and their features."""
    place = tmp_path_factory.mktemp("smears") / "annotated"
    render_folder(place, range(3), 64)
    for file in (place / "masks").iterdir():
        file.unlink()
    folder = Folder(place)
    found = ImageFeatures(folder, generator)
    for name in folder.names:
        found.encode(name)
    return folder, found


def exact(name: str) -> np.ndarray:
    return render(int(name), 64)[1]


def sparse(ids: np.ndarray, share: float) -> np.ndarray:
    drawn = np.random.default_rng(0).random(ids.shape) < share
    return np.where(drawn, ids, 255).astype(np.uint8)


def test_a_few_pixels_propose_the_rest(encoded: tuple[Folder, ImageFeatures]) -> None:
    _, found = encoded
    drawn = DrawnFeatures(found)
    for name in ("000000", "000001"):
        drawn.add(name)
    masks = {name: sparse(exact(name), 0.1) for name in drawn.names}
    labeler = learn(drawn, masks, CLASSES, INFO)
    proposal = propose(labeler, None, found.maps("000002"), (96, 64))
    assert proposal.ids.shape == proposal.levels.shape == (96, 64)
    same = propose(labeler, None, found.maps("000002"), (64, 64)).ids == exact("000002")
    assert same.mean() > 0.75
    wrong = propose(labeler, None, found.maps("000002"), (64, 64))
    assert wrong.levels[~same].mean() > 1.5 * wrong.levels[same].mean()  # where to look


def test_a_newer_stroke_cancels(encoded: tuple[Folder, ImageFeatures]) -> None:
    _, found = encoded
    drawn = DrawnFeatures(found)
    drawn.add("000000")
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 1  # after the training has begun

    with pytest.raises(Cancelled):
        learn(drawn, {"000000": exact("000000")}, CLASSES, INFO, cancelled)


def test_pictures_drawn_one_after_the_other_are_side_by_side(
    encoded: tuple[Folder, ImageFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = encoded
    drawn = DrawnFeatures(found, most=2)
    for name in ("000002", "000000", "000002", "000001"):
        drawn.add(name)
    assert drawn.names == ["000002", "000000"]
    alone = DrawnFeatures(found)
    alone.add("000000")
    for size, table in drawn.tables().items():
        assert len(table) == 2
        torch.testing.assert_close(table[1], alone.tables()[size][0])


def test_features_are_computed_once(encoded: tuple[Folder, ImageFeatures]) -> None:
    folder, found = encoded

    class Kept:
        """The generator without the means to encode."""

        digest, feature_spec = found.generator.digest, found.spec
        feature_settings, image_size = found.generator.feature_settings, (64, 64)

    again = ImageFeatures(folder, Kept())  # type: ignore[arg-type]
    again.encode("000001")
    torch.testing.assert_close(
        next(iter(again.maps("000001").values())), next(iter(found.maps("000001").values()))
    )


def test_few_pixels_of_a_class_are_chosen() -> None:
    ids = np.full((60, 60), 255, np.uint8)
    ids[:40], ids[50, :3] = 1, 2
    kept = chosen_pixels(ids, np.random.default_rng(0))
    assert [(kept == i).sum() for i in (1, 2)] == [PIXELS_OF_CLASS, 3]
    assert (kept[kept != 255] == ids[kept != 255]).all()


def test_a_region_is_connected_and_of_the_class() -> None:
    p = np.zeros((2, 4, 6), np.float32)
    p[1, :, :2], p[1, 0, 4:], p[1, 3, 2] = 0.9, 0.8, 0.4
    proposal = Proposal(np.zeros((8, 12), np.uint8), np.zeros((8, 12), np.uint8), p)
    inside = proposal.region(1, 1, 1)
    assert inside is not None
    expected = np.zeros((8, 12), bool)
    expected[:, :4] = True
    np.testing.assert_array_equal(inside, expected)
    assert proposal.region(7, 5, 1) is None  # improbable there


@pytest.fixture
def assist(tmp_path: Path, generator: Generator) -> Iterator[Callable[..., Assist]]:
    """`assist(load)`: the running assistant of three demo images, the first two drawn sparsely."""
    place, running = tmp_path / "annotated", []
    render_folder(place, range(3), 64)
    for file in (place / "masks").iterdir():
        file.unlink()

    def start(load: Load = lambda: (generator, None), drawn: int = 2) -> Assist:
        folder = Folder(place)
        for name in folder.names[:drawn]:
            stroke(folder, name, sparse(exact(name), 0.1))
        started = Assist(folder, load, Changes())
        running.append(started)
        started.start()
        return started

    yield start
    for one in running:
        one.stop()


def stroke(folder: Folder, name: str, ids: np.ndarray) -> None:
    folder.change(name, folder.drawing(name).revision, Box(0, 0, 64, 64), ids)


def wait(assist: Assist, ready: Callable[[dict], bool]) -> dict:
    deadline = time.monotonic() + WAIT_SEC
    while not ready(status := assist.status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


@pytest.mark.slow
def test_what_was_drawn_before_is_learnt_and_strokes_are(assist: Callable[..., Assist]) -> None:
    running = assist()
    first = wait(running, lambda s: s["doing"] == "ready" and s["encoded"] == 3)
    assert first["version"] > 0
    found = running.proposal("000002")
    assert found is not None
    assert found[0] == first["version"]
    assert running.most_useful(["000001", "000002"]) == "000002"  # 000001 is half drawn
    stroke(running.folder, "000002", exact("000002"))
    running.drawn()
    second = wait(running, lambda s: s["version"] > first["version"])
    again = running.proposal("000002")
    assert again is not None
    assert again[0] == second["version"]
    right = [(p.ids == exact("000002")).mean() for p in (found[1], again[1])]
    assert right[1] > right[0]


@pytest.mark.slow
def test_one_class_proposes_nothing(assist: Callable[..., Assist]) -> None:
    running = assist(drawn=0)
    stroke(running.folder, "000000", np.zeros((64, 64), np.uint8))
    running.drawn()
    status = wait(running, lambda s: s["doing"] == "ready" and s["encoded"] == 3)
    assert status["version"] == 0
    assert running.proposal("000000") is None
    assert running.most_useful(["000001"]) is None


@pytest.mark.slow
def test_a_labeler_proposes_at_once_and_stays(
    assist: Callable[..., Assist], generator: Generator
) -> None:
    folder = str(Path(page_features.__file__).parents[2] / "demo" / "labeler")
    assert recipe_of_labeler(folder).labeler.weights == folder
    running = assist(lambda: (generator, Labeler.load(folder, torch.device("cpu"))), drawn=0)
    wait(running, lambda s: s["doing"] == "ready" and s["encoded"] == 3)
    found = running.proposal("000001")
    assert found is not None
    assert (found[1].ids == exact("000001")).mean() > 0.8
    running.drawn()
    assert running.status()["version"] == 1


@pytest.mark.slow
def test_a_labeler_of_networks_proposes(
    assist: Callable[..., Assist], encoded: tuple[Folder, ImageFeatures], generator: Generator
) -> None:
    assert isinstance(generator, Finetunable)
    images = torch.cat([encoded[1].image(f"{i:06d}") for i in range(3)])
    masks = torch.from_numpy(np.stack([exact(f"{i:06d}") for i in range(3)]))
    about = GeneratorInfo(digest=generator.digest)
    training = NetworkTraining(members=1, steps=3)
    labeler = fit_network(
        *(images, masks, generator.describe_unet(), LabelerConfig(network=training)),
        classes=CLASSES,
        generator=about,
        data_digest="",
    )
    running = assist(lambda: (generator, labeler), drawn=0)
    wait(running, lambda s: s["doing"] == "ready" and s["encoded"] == 3)
    found = running.proposal("000001")
    assert found is not None
    assert (found[1].ids == labeler.predict(images[1:2]).mask[0].numpy()).all()
    assert running.most_useful(["000000"]) == "000000"


def test_a_model_that_cannot_be_loaded_is_reported(assist: Callable[..., Assist]) -> None:
    def load() -> tuple:
        raise ValueError("--generator nothing: does not exist")

    running = assist(load, drawn=0)
    status = wait(running, lambda s: s["doing"] == "failed")
    assert status["failure"] == "--generator nothing: does not exist"
    assert running.proposal("000000") is None
