"""Addresses of weights and their sha256."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.recipe.weights import find_weights, weights_sha256


def test_weights_inside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights_pkg/sub/gen").mkdir(parents=True)
    (tmp_path / "weights_pkg/__init__.py").touch()
    (tmp_path / "weights_pkg/sub/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = find_weights("generator.weights", "package:weights_pkg.sub/gen")
    assert found == (tmp_path / "weights_pkg/sub/gen").resolve()
    with pytest.raises(FileNotFoundError, match=r"generator.weights: .*none does not exist"):
        find_weights("generator.weights", "package:weights_pkg.sub/none")
    with pytest.raises(ValueError, match="there is no package 'no_such_pkg'"):
        find_weights("generator.weights", "package:no_such_pkg/gen")


@pytest.mark.parametrize("address", ["package:", "package:/gen", "package:.demo/gen"])
def test_an_address_without_a_package(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected package:some\.module/folder"):
        find_weights("--generator", address)


@pytest.mark.parametrize("weights", ["lsun_cat.pt", "checkpoints/lsun_cat.pt"])
def test_a_missing_published_checkpoint(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = rf"found no lsun_cat.pt in {(tmp_path / weights).parent}: download it there \(it is"
    with pytest.raises(FileNotFoundError, match=expected) as caught:
        find_weights("generator.weights", weights)
    assert "\n" not in str(caught.value)
    (tmp_path / weights).parent.mkdir(exist_ok=True)
    (tmp_path / weights).touch()
    assert find_weights("generator.weights", weights) == tmp_path / weights


def test_a_single_weight_file_is_hashed_directly(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(b"abc")
    assert weights_sha256(tmp_path / "net.pkl").startswith("ba7816bf")
