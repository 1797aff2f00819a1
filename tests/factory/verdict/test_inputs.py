"""What a comparison is given: photographs are decoded once for all processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from factory.verdict import inputs
from factory.verdict.inputs import Given, read
from factory.verdict.settings import CompareConfig


def test_photographs_are_decoded_once(
    annotated: Path,
    photographs: Path,
    generator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photographs.parent)
    given = Given(annotated, tmp_path / "out", Path(photographs.name), str(generator))
    config, parts = CompareConfig(photographs=3), tmp_path / "parts"
    first = read(given, config, parts)
    first.keep_photographs()
    decoded = []
    decode = inputs.read_image

    def watch(path: Path, *how: object) -> torch.Tensor:
        decoded.append(path.name)
        return decode(path, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(inputs, "read_image", watch)
    again = read(given.absolute(), config, parts)  # as in another process
    assert not decoded
    assert first.photographs is not None
    assert again.photographs is not None
    assert torch.equal(again.photographs.images, first.photographs.images)
    assert again.photographs.names == first.photographs.names
    assert len(again.photographs.names) == 3 < again.photographs.found

    changed = photographs / again.photographs.names[0]
    os.utime(changed, ns=(0, 0))
    read(given, config, parts)
    assert sorted(decoded) == sorted(again.photographs.names)
