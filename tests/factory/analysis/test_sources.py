"""The names of what an analysis is given besides the annotated images."""

from __future__ import annotations

import pytest

from factory.analysis.sources import cell_name, named


def test_names_are_given_or_those_of_files() -> None:
    found = named("--encoder", ["mae=a/b.pth", "runs/swav.ckpt.pth", "faces[:20]", "x/ä ö"])
    assert found == {"mae": "a/b.pth", "swav.ckpt": "runs/swav.ckpt.pth", "faces": "faces[:20]"} | {
        "given": "x/ä ö"
    }


def test_a_name_is_given_once() -> None:
    message = r"--encoder y/a.pth: the name a is taken; give another one: --encoder NAME=y/a.pth"
    with pytest.raises(ValueError, match=message):
        named("--encoder", ["x/a.pth", "y/a.pth"])


def test_cells_depend_on_the_content() -> None:
    assert cell_name("gan", "0123456789") == "gan-01234567"
