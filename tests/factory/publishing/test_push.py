"""`factory push`, from a program of its own to a stand-in for the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory.publishing.hub import repository
from factory_core.dataset import read_samples
from tests.stand_ins import Tiny

Push = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def dataset(tiny: Tiny, tmp_path: Path, factory: Callable) -> Path:
    """A dataset of several shards with a card, and files beside it that must stay here."""
    out = tmp_path / "smears"
    tiny.make(out)
    assert factory("card", out, "--license", "mit").code == 0
    (out / ".secret").write_text("x")
    (out / "notes.txt").write_text("x")
    return out


@pytest.fixture
def push(hub: Any, tmp_path: Path) -> Push:
    """`push(DIR, ...)` runs the command with the stand-in for the hub."""

    def run(*arguments: object, token: str | None = None) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": token or hub.token,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",  # its servers have no stand-in
        }
        command = [sys.executable, "-m", "factory", "push", *map(str, arguments)]
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=300,
        )

    return run


def test_what_is_sent_can_be_loaded(
    dataset: Path, hub: Any, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {"shards/older-000009.tar": b"x", ".gitattributes": b"x"}
    result = push(dataset, "hf://ada/smears", "--yes")
    assert result.returncode == 0, result.stderr
    shards = {f"shards/{path.name}" for path in (dataset / "shards").iterdir()}
    assert len(shards) > 1
    named = {"README.md", "croissant.json", "dataset.json", "samples.parquet", "preview.png"}
    assert set(hub.files) == shards | named | {".gitattributes"}
    assert hub.is_private is True
    assert json.loads(hub.files["croissant.json"])["url"].endswith("/datasets/ada/smears")
    assert f"dataset in {hub.url}/datasets/ada/smears" in result.stdout
    assert "\r" not in result.stdout + result.stderr

    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(hub.save(tmp_path / "copy")), split="train")
    for row, sample in zip(loaded, read_samples(dataset), strict=True):
        assert row["__key__"] == sample.key
        np.testing.assert_array_equal(np.asarray(row["seg.png"]), sample.mask)
        np.testing.assert_array_equal(np.asarray(row["png"]).transpose(2, 0, 1), sample.image)


@pytest.mark.slow
def test_a_rerun_sends_nothing_again(dataset: Path, hub: Any, push: Push) -> None:
    hub.is_broken = True
    result = push(dataset, "hf://ada/smears", "--yes", "--public")
    assert result.returncode == 1
    assert not hub.files
    hub.is_broken = False
    hub.requests.clear()
    for _ in range(2):
        assert push(dataset, "hf://ada/smears", "--yes", "--public").returncode == 0
    sent = [request for request in hub.requests if request.startswith("PUT")]
    large = [path for path in hub.files if not path.endswith((".md", ".json"))]
    assert len(sent) == len(large) > 1
    assert hub.is_private is False


def test_without_agreement_nothing_is_sent(dataset: Path, hub: Any, push: Push) -> None:
    result = push(dataset, "hf://ada/smears")
    assert result.returncode == 1
    assert "nothing was sent to hf://ada/smears" in result.stderr
    assert "whose licence is not known" in result.stdout
    assert "dataset.json names folders of this machine" in result.stdout
    assert hub.requests == []


def test_refusals_are_one_line_without_the_token(
    dataset: Path, hub: Any, push: Push, factory: Callable
) -> None:
    wrong = "hf_wrongToken"
    result = push(dataset, "hf://ada/smears", "--yes", token=wrong)
    assert (result.returncode, hub.files) == (1, {})
    assert "access denied: log in with `hf auth login`, or set HF_TOKEN" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert wrong not in result.stdout + result.stderr
    assert factory("card", dataset, "--license", "cc-by-5.0", "--overwrite").code == 0
    result = push(dataset, "hf://ada/smears", "--yes")
    assert (result.returncode, hub.files) == (1, {})
    assert '"license" must be one of a list' in result.stderr
    assert hub.token not in result.stdout + result.stderr
    assert not [request for request in hub.requests if request.startswith("PUT")]


@pytest.mark.slow
def test_a_hub_that_does_not_answer(dataset: Path, hub: Any, push: Push) -> None:
    hub.url = "http://127.0.0.1:9"
    result = push(dataset, "hf://ada/smears", "--yes")
    assert result.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in result.stderr.splitlines()[-1]


def test_a_dataset_without_its_card(dataset: Path, tiny: Tiny, factory: Callable) -> None:
    def refused(*words: str) -> None:
        result = factory("push", dataset, "hf://ada/smears", "--yes")
        assert result.code == 1
        assert all(word in result.err for word in words), result.err

    card, facts = dataset / "README.md", dataset / "croissant.json"
    text, content = card.read_text(), json.loads(facts.read_text())
    card.write_text(text.replace("license: mit\n", ""))
    refused("no licence in its head", "--overwrite")
    card.unlink()
    refused("has no README.md", f"factory card {dataset} --license")
    card.write_text(text)
    content["distribution"][0]["sha256"] = "0" * 64
    facts.write_text(json.dumps(content))
    refused("describes other shards")
    facts.write_text("{")
    refused("croissant.json is damaged")


def test_addresses(dataset: Path, factory: Callable) -> None:
    assert repository("hf://ada/smears") == "ada/smears"
    assert repository("hf://datasets/ada/smears/") == "ada/smears"
    for address in ("ada/smears", "hf://smears", "hf://ada/smears/x", "s3://ada/smears"):
        result = factory("push", dataset, address, "--yes")
        assert result.code == 1
        assert "expected hf://USER/NAME" in result.err
    result = factory("push", "s3://bucket/smears", "hf://ada/smears")
    assert "expected a path on this machine" in result.err
