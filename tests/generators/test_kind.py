"""The kind of generator in a file or folder."""

import pickle
from collections.abc import Callable
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
    for protocol in (2, 3, 4, 5):
        (tmp_path / "network").write_bytes(bytes((0x80, protocol)) + b"}.")
        assert kind_of(tmp_path / "network") == "stylegan2"
    assert kind_of(tmp_path / "not_there.pkl") == "stylegan2"
    assert kind_of(tmp_path / "not_there.pt") is None


@pytest.mark.parametrize("zipped", [True, False])
def test_the_content_counts_more_than_the_name(
    tmp_path: Path, ada_pickle: Callable[..., bytes], zipped: bool
) -> None:
    settings = {"_use_new_zipfile_serialization": zipped}
    snapshot = ada_pickle(torch.nn.Module(), {}, torch_save=settings)
    (tmp_path / "network.pt").write_bytes(snapshot)
    assert kind_of(tmp_path / "network.pt") == "stylegan2"
    torch.save({"w": torch.zeros(1)}, tmp_path / "network.pkl", **settings)
    assert kind_of(tmp_path / "network.pkl") == "ddpm"
    (tmp_path / "state.pkl").write_bytes(pickle.dumps({"time_embed.0.weight": 1}))
    assert kind_of(tmp_path / "state.pkl") == "ddpm"


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    for content in (b"", b"<html>", b"PK\x03\x04", b"\x80\x04\x8c\xff"):
        for name, kind in (("file.pkl", "stylegan2"), ("file.zip", "ddpm")):
            (tmp_path / name).write_bytes(content)
            expected = "stylegan2" if content.startswith(b"\x80") else kind
            assert kind_of(tmp_path / name) == expected
