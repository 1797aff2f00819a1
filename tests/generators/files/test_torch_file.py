"""Files of torch.save and pickles are read as data, whatever is in them."""

import enum
import io
import pickle
import random
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from generators.files.modules import plain
from generators.files.torch_file import STRICT, TorchFile


def saved(path: Path, content: Any, **settings: Any) -> Path:
    torch.save(content, path, **settings)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = 0) -> Path:
    """The zip archive with other contents, by name without its folder."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name.split("/", 1)[1], content))
    return path


def refused(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


FORMATS = [
    {},
    {"pickle_protocol": 4},
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
]


class Kind(enum.Enum):
    EPSILON = 1


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_what_trainers_put_beside_the_weights(tmp_path: Path, settings: dict) -> None:
    tagged = [torch.ones(2), nn.Parameter(torch.ones(2))]
    for tensor in tagged:
        tensor.tag = "decoder"  # type: ignore[attr-defined]
    beside = [Kind.EPSILON, range(3), slice(1, 2), frozenset({1}), [].append]
    beside += [np.random.default_rng(0), np.random.RandomState(0), random.getstate()]
    content = {"tagged": tagged, "beside": beside}
    found = plain(TorchFile(saved(tmp_path / "x.pt", content, **settings)))
    assert all(torch.equal(tensor, torch.ones(2)) for tensor in found["tagged"])
    assert len(found["beside"]) == len(beside)


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_values_modules_and_tensors(tmp_path: Path, settings: dict) -> None:
    base = torch.arange(12.0)
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module.register_buffer("passing", torch.ones(2), persistent=False)
    content = {
        "views": [base[2:8].view(2, 3), base[::4], base.half(), torch.empty(0), torch.tensor(7)],
        "module": module,
        "settings": types.SimpleNamespace(lr=0.5, path=Path("photos")),
        3: {"a": (1, None, True)},
    }
    found = plain(TorchFile(saved(tmp_path / "x.pt", content, **settings)))
    for ours, theirs in zip(found["views"], content["views"], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    state = module.state_dict()
    assert set(found["module"]) == set(state)
    assert all(torch.equal(found["module"][name], state[name]) for name in state)
    assert found["settings"]["lr"] == 0.5
    assert found["3"] == {"a": [1, None, True]}


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_calls_are_refused_and_not_made(tmp_path: Path, evil: object, settings: dict) -> None:
    for content in (evil, {"state": torch.zeros(1), "hook": evil}, nn.ModuleDict({"a": nn.ReLU()})):
        if isinstance(content, nn.Module):
            content.hook = evil
        path = saved(tmp_path / "x.pt", content, **settings)
        refused(lambda path=path: TorchFile(path), "refused, and nothing was run.*posix.system")
    assert not (tmp_path / "ran").exists()


def test_strict_names_exclude_all_others(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", nn.Linear(2, 2))
    refused(lambda: TorchFile(path, STRICT), "the name 'torch.nn.modules.linear.Linear'")


def test_a_plain_pickle(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": torch.arange(3.0)}, 5))
    assert torch.equal(plain(TorchFile(tmp_path / "x.pkl"))["w"], torch.arange(3.0))


def test_values_in_many_places_are_converted_once(tmp_path: Path) -> None:
    nested: list = [torch.zeros(1)]
    for _ in range(11):
        nested = [nested, nested]
    nested.append(nested)  # and inside itself
    found = plain(TorchFile(saved(tmp_path / "x.pt", nested)))
    assert found[0] is found[1]
    assert found[2] is None


def test_tensors_that_networks_do_not_have_are_passed_over(tmp_path: Path) -> None:
    content = {
        "w": torch.arange(3.0),
        "rng": torch.get_rng_state(),
        "wide": torch.zeros(3, dtype=torch.uint16),
        "sparse": torch.zeros(2, 2).to_sparse(),
    }
    found = plain(TorchFile(saved(tmp_path / "x.pt", content)))
    assert torch.equal(found["w"], content["w"])
    assert torch.equal(found["rng"], content["rng"])
    assert not isinstance(found["wide"], torch.Tensor)
    assert not isinstance(found["sparse"], torch.Tensor)


def test_keys_are_never_hashed(tmp_path: Path) -> None:
    """A tuple of a pair of pairs of pairs ... has 2^60 parts: torch.load would not end."""
    pairs = b")\x94" + b"".join(b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    path = saved(tmp_path / "x.pt", {"w": torch.zeros(3)})
    hostile = b"\x80\x04}" + pairs + b"Ns."
    rewritten(path, lambda name, content: hostile if name == "data.pkl" else content)
    assert plain(TorchFile(path)) == {"a tuple": None}


class TestDamage:
    def test_a_storage_that_is_not_as_long_as_declared(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"w": torch.zeros(3)})
        rewritten(path, lambda name, content: content[:8] if name == "data/0" else content)
        file = TorchFile(path)
        refused(lambda: file.tensor(file.value["w"]), "a storage of 3 elements in 8 bytes")

    def test_a_storage_that_is_missing(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"w": torch.zeros(3)})
        rewritten(
            path, lambda name, content: content.replace(b"\x01\x00\x00\x000", b"\x01\0\0\x009")
        )
        file = TorchFile(path)
        refused(lambda: file.tensor(file.value["w"]), "damaged")

    def test_compressed_files_are_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"w": torch.zeros(3)})
        rewritten(path, lambda _, content: content, zipfile.ZIP_DEFLATED)
        refused(lambda: TorchFile(path), "damaged")

    def test_a_different_byte_order(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"w": torch.zeros(3)})
        rewritten(path, lambda name, content: b"big" if name == "byteorder" else content)
        refused(lambda: TorchFile(path), "byte order")

    def test_every_cut(self, tmp_path: Path) -> None:
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save({"w": torch.zeros(3)}, buffer, _use_new_zipfile_serialization=zipped)
            content = buffer.getvalue()
            for length in range(20, len(content), 7):
                (tmp_path / "x.pt").write_bytes(content[:length])
                refused(lambda: plain(TorchFile(tmp_path / "x.pt")), "damaged|refused")
