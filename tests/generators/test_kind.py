"""The kind of generator in a file or folder."""

from pathlib import Path

import pytest
import torch

from generators.kind import kind_of


@pytest.mark.parametrize(
    ("file", "kind"),
    [("generator.json", "stylegan2"), ("model_index.json", "ddpm"), ("config.json", "ddpm")],
)
def test_folders(tmp_path: Path, file: str, kind: str) -> None:
    assert kind_of(tmp_path) is None
    (tmp_path / file).write_text("{}")
    assert kind_of(tmp_path) == kind


@pytest.mark.parametrize("zipped", [True, False])
def test_files_saved_by_torch_are_not_stylegan2(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(1)}, file, _use_new_zipfile_serialization=zipped)
    assert kind_of(file) == "ddpm"


def test_snapshots_by_content_and_by_name(tmp_path: Path) -> None:
    for protocol in (3, 4):
        (tmp_path / "network").write_bytes(bytes((0x80, protocol)) + b"}.")
        assert kind_of(tmp_path / "network") == "stylegan2"
    assert kind_of(tmp_path / "not_there.pkl") == "stylegan2"
    assert kind_of(tmp_path / "not_there.pt") is None
