"""`factory annotate`: what it refuses before it serves anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from factory.annotation.page.serving import bind
from factory.locking.lock import exclusive


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def test_mistakes_are_one_line(factory: Callable, photos: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ([photos], "name the classes, background first, such as --classes background,cell"),
        ([photos, "--classes", "cell,cell"], "--classes cell,cell: expected distinct names"),
        ([tmp_path / "nowhere", "--classes", "a,b"], "does not exist"),
        ([photos, "--classes", "a,b", "--host", "no.such.host.invalid"], "no such address"),
        ([photos, "--classes", "a,b", "--labeler", tmp_path], "holds no labeler.json"),
    ]:
        result = factory("annotate", *arguments, "--no-browser")
        assert result.code == 1, result.out
        assert message in result.err
        assert len(result.err.splitlines()) == 1
    assert not list(photos.glob("*_mask.png"))


def test_one_server_a_folder(factory: Callable, photos: Path) -> None:
    with exclusive(photos / ".annotate"):
        result = factory("annotate", photos, "--classes", "a,b", "--no-browser")
    assert result.code == 1
    assert f"pid {os.getpid()}" in result.err


def test_a_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"--port {port}: it is in use, or not allowed"):
            bind("127.0.0.1", port)
    with bind("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 0
