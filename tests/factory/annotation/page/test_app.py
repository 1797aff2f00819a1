"""The server of the labelling page: saving, stale writes, restarts, refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from factory.annotation.page import folder as folders
from factory.annotation.page.folder import Box, Folder
from factory_core.annotated.annotations import read_annotations
from tests.factory.annotation.page.conftest import CLASSES, HERE, OF_PAGE, draw, save_pictures

Serve = Callable[..., TestClient]


def ids_of(client: TestClient, name: str) -> np.ndarray:
    answer = client.get(f"/api/images/{name}/mask")
    height, width = int(answer.headers["X-Height"]), int(answer.headers["X-Width"])
    return np.frombuffer(answer.content, np.uint8).reshape(height, width)


def test_a_stroke_is_on_disk_when_it_is_answered(serve: Serve, annotated: Path) -> None:
    client = serve()
    assert (ids_of(client, "p1") == 255).all()
    assert draw(client, "p1", 2, (3, 1, 5, 4)).status_code == 200
    with Image.open(annotated / "masks" / "p1.png") as file:
        written = np.array(file)
    expected = np.full((8, 12), 255, np.uint8)
    expected[1:5, 3:8] = 2
    np.testing.assert_array_equal(written, expected)
    np.testing.assert_array_equal(ids_of(serve(), "p1"), expected)  # a restarted server


def test_training_reads_the_folder_while_most_images_have_no_mask(
    serve: Serve, annotated: Path
) -> None:
    client = serve()
    draw(client, "p0", 0)
    draw(client, "p0", 1, (0, 4, 4, 2))
    found = read_annotations(annotated)
    assert (found.stems, found.classes) == (["p0"], CLASSES)
    assert any("2 images without a mask left out" in note for note in found.notes)


def test_a_stale_stroke_is_refused_and_the_newer_version_stays(serve: Serve) -> None:
    one, other = serve(), serve()
    base = one.get("/api/images/p0/mask").headers["X-Revision"]
    first = draw(one, "p0", 1, base=base)
    stale = draw(other, "p0", 2, base=base)
    assert stale.status_code == 409
    assert stale.json()["revision"] == first.json()["revision"]
    assert "another tab" in stale.json()["message"]
    assert set(np.unique(ids_of(other, "p0"))) == {1, 255}
    assert draw(other, "p0", 2, base=stale.json()["revision"]).status_code == 200


def test_a_mask_that_another_program_changed_makes_strokes_stale(
    serve: Serve, annotated: Path
) -> None:
    client = serve()
    base = draw(client, "p0", 1).json()["revision"]
    Folder(annotated).change("p0", base, Box(0, 0, 1, 1), np.array([[2]], np.uint8))
    assert draw(client, "p0", 1, base=base).status_code == 409


def test_an_interrupted_write_leaves_the_last_mask(
    serve: Serve, annotated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    base = draw(client, "p0", 1).json()["revision"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    refused = draw(client, "p0", 2)
    assert refused.status_code == 422
    assert "No space left" in refused.text
    monkeypatch.undo()
    assert serve().get("/api/images/p0/mask").headers["X-Revision"] == base
    assert [path.name for path in (annotated / "masks").iterdir()] == ["p0.png"]


def test_erasing_everything_removes_the_mask(serve: Serve, annotated: Path) -> None:
    client = serve()
    draw(client, "p0", 1)
    draw(client, "p0", 255)
    assert not list((annotated / "masks").iterdir())


def test_finished_survives_a_restart(serve: Serve) -> None:
    client = serve()
    draw(client, "p2", 1, (0, 0, 12, 8))  # every pixel
    client.put("/api/images/p0/finished?is=1", headers=OF_PAGE)
    state = serve().get("/api/state").json()["images"]
    assert [state[f"p{i}"]["progress"] for i in range(3)] == ["finished", "new", "finished"]
    assert serve().get("/api/next?after=p0").json()["name"] == "p1"
    client.put("/api/images/p0/finished?is=0", headers=OF_PAGE)
    assert client.get("/api/state").json()["images"]["p0"]["progress"] == "new"


def test_state_answers_at_once_after_a_restart(serve: Serve) -> None:
    seen = serve().get("/api/state").json()["seen"]
    assert serve().get(f"/api/state?seen={seen}").json()["seen"] != seen


def test_pictures_are_shown_as_training_reads_them(tmp_path: Path, serve: Serve) -> None:
    images = tmp_path / "turned" / "images"
    images.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pixels = np.zeros((4, 9, 3), np.uint8)
    pixels[:, :4] = (200, 30, 30)
    Image.fromarray(pixels).save(images / "x.png", exif=exif)
    client = serve(folder=tmp_path / "turned")
    assert ids_of(client, "x").shape == (9, 4)
    with Image.open(images.parent / "images" / "x.png") as original:
        assert original.size == (9, 4)
    import io

    shown = Image.open(io.BytesIO(client.get("/api/images/x/picture.png").content))
    assert shown.size == (4, 9)
    assert shown.getpixel((0, 0)) == (200, 30, 30)


@pytest.mark.parametrize(
    ("query", "body", "code", "message"),
    [
        ("x=0&y=0&w=4&h=2", b"\1" * 7, 422, "found 7 bytes, expected 4 x 2"),
        ("x=0&y=0&w=4&h=2", b"\1" * 900, 413, "more than the 8 bytes"),
        ("x=0&y=0&w=99999&h=99999", b"\1" * 900, 413, "more than the 96 bytes"),
        ("x=9&y=0&w=4&h=2", b"\1" * 8, 422, "in an image of 12x8"),
        ("x=0&y=0&w=0&h=0", b"", 422, "in an image of 12x8"),
        ("x=-1&y=0&w=4&h=2", b"\1" * 8, 422, "expected a whole number"),
        ("x=0&y=0&w=4", b"\1" * 8, 422, "found h=''"),
        ("x=0&y=0&w=4&h=2", b"\7" * 8, 422, "found class id 7, expected 0 to 2"),
    ],
)
def test_a_wrong_stroke_changes_nothing(
    serve: Serve, annotated: Path, query: str, body: bytes, code: int, message: str
) -> None:
    client = serve()
    base = client.get("/api/images/p0/mask").headers["X-Revision"]
    path = f"/api/images/p0/mask?{query}&base={base}"
    answer = client.put(path, content=body, headers=OF_PAGE)
    assert (answer.status_code, message in answer.text) == (code, True), answer.text
    assert not list((annotated / "masks").iterdir())


def test_a_plain_folder_of_pictures_gets_masks_beside_them(tmp_path: Path, serve: Serve) -> None:
    pictures = save_pictures(tmp_path / "photos")
    client = serve(folder=pictures)
    draw(client, "p1", 0)
    draw(client, "p1", 1, (0, 4, 4, 2))
    assert (pictures / "p1_mask.png").is_file()
    assert read_annotations(pictures).stems == ["p1"]
    assert serve(folder=pictures).get("/api/project").json()["images"] == ["p0", "p1", "p2"]


def test_unreadable_masks_are_shown_as_such(serve: Serve, annotated: Path) -> None:
    client = serve()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(annotated / "masks" / "p1.png")
    assert client.get("/api/images/p1/mask").status_code == 422
    state = client.get("/api/state").json()["images"]["p1"]
    assert state["progress"] == "unreadable"
    assert "is 5x5 pixels, its image 12x8" in state["error"]


def test_folders_that_cannot_be_drawn_in(tmp_path: Path) -> None:
    pictures = save_pictures(tmp_path / "photos")
    with pytest.raises(ValueError, match="name the classes, background first, such as --classes"):
        Folder(pictures)
    Folder(pictures, CLASSES)
    with pytest.raises(ValueError, match="expected \\['other'\\]"):
        Folder(pictures, ["other"])
    np.save(pictures / "p0_mask.npy", np.zeros((8, 12), np.uint8))
    with pytest.raises(ValueError, match="the page writes PNG"):
        Folder(pictures)


def test_masks_in_shades_of_grey_are_not_taken_for_ids(tmp_path: Path) -> None:
    place = save_pictures(tmp_path / "photos" / "images").parent
    (place / "masks").mkdir()
    (place / "classes.json").write_text(
        '{"classes": ["no", "yes"], "palette": [[0, 0, 0], [255, 255, 255]]}'
    )
    Image.fromarray(np.full((8, 12), 255, np.uint8)).save(place / "masks" / "p0.png")
    with pytest.raises(ValueError, match="its numbers may be class ids or colours"):
        Folder(place).drawing("p0")


def test_few_masks_are_kept_in_memory(annotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "KEPT_MASKS", 1)
    folder = Folder(annotated, CLASSES)
    for name in folder.names:
        folder.drawing(name)
    assert list(folder._kept) == ["p2"]


def test_the_page_asks_for_nothing_elsewhere(serve: Serve) -> None:
    client = serve()
    names = [
        "",
        *(f"static/{p.name}" for p in Path(folders.__file__).with_name("static").iterdir()),
    ]
    assert len(names) > 10
    for name in names:
        text = client.get(f"{HERE}/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.replace("https://", "http"), name
