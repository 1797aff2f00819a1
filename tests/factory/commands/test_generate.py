"""`factory generate`: what is checked before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image


def test_real_photographs_are_checked_first(factory: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(3):
        Image.effect_noise((40, 40), 50).save(f"photos/{i}.png")
    Path("photos/1.png").write_bytes(Path("photos/1.png").read_bytes()[:300])
    given = ("--out", "data", "--n", 4, "--executor", "local", "--device", "cpu")
    result = factory("generate", *given, "--real", "photos")
    assert result.code == 1
    assert "1 of the 3 images in photos cannot be used (1.png)" in result.err
    assert not Path("data").exists()
