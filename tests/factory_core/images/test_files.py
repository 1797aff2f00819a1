"""Finding images in files, folders and patterns, and saying what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from factory_core.images import find_images, left_out, list_images


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`day/0.png`, `day/1.jpg`, `day/notes.txt` and `night/0.png` in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("day/0.png", "day/1.jpg", "night/0.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4)).save(name)
    Path("day/notes.txt").write_text("not an image")


@pytest.mark.usefixtures("photos")
def test_files_folders_and_patterns() -> None:
    assert find_images(["day"]) == {"0": Path("day/0.png"), "1": Path("day/1.jpg")}
    assert find_images(["day/1.jpg"]) == {"1": Path("day/1.jpg")}
    assert list(find_images(["*/0.png"])) == ["day/0", "night/0"]
    assert list(find_images(["day/*"])) == ["0", "1"]


@pytest.mark.usefixtures("photos")
def test_the_same_file_twice_is_one_image() -> None:
    assert len(find_images(["day", "day/0.png"])) == 2


@pytest.mark.usefixtures("photos")
def test_images_that_are_missing_or_share_a_name() -> None:
    with pytest.raises(FileNotFoundError, match="--images lost: no such file or folder"):
        find_images(["lost"])
    with pytest.raises(ValueError, match=r"--images day/\*.gif: no image matches this pattern"):
        find_images(["day/*.gif"])
    with pytest.raises(ValueError, match=r"would both be written as 0.png: rename one"):
        find_images(["day", "night"])


# --- what is left out ------------------------------------------------------------------------


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.usefixtures("photos")
def test_jpegs_and_gifs_by_their_other_names() -> None:
    touch(*(f"all/{i}.{suffix}" for i, suffix in enumerate(("jfif", "JPE", "gif", "jpeg"))))
    assert len(list_images("all")) == 4
    assert left_out(["all"]) == ()


@pytest.mark.usefixtures("photos")
def test_files_of_other_kinds_are_counted() -> None:
    touch("day/a.dcm", "day/b.DCM", "day/README")
    touch("day/classes.json", "day/Thumbs.db", "day/.hidden")  # these go with images
    Path("day/c.png").symlink_to("nowhere.png")
    [line] = left_out(["day", "day/0.png", "lost"])
    kinds = "2 .dcm, 1 no suffix, 1 .txt, 1 broken link"
    assert line == f"5 files of other kinds left out in day ({kinds})"
    assert left_out(["d*/*.d??"]) == ("1 file of other kinds left out in d*/*.d?? (1 .dcm)",)


@pytest.mark.usefixtures("photos")
def test_images_in_subfolders_are_counted() -> None:
    touch(*(f"patients/p{i}/{j}.png" for i in range(2) for j in range(3)), "patients/p0/x.txt")
    says = (
        r"no images in patients: .*the subfolders of patients hold 6 images, .* patients/p0/0.png"
    )
    with pytest.raises(ValueError, match=says):
        list_images("patients")
    touch("patients/top.png")
    [line] = left_out(["patients"])
    assert "hold 6 images, left out" in line
