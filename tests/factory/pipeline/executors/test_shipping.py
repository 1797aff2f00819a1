"""Weights for machines that do not have them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory.pipeline.executors.actor import ShardActor
from factory.pipeline.executors.shipping import (
    Weights,
    find_copy,
    keep_copy,
    put,
    weights_of,
    with_weights,
)
from factory.pipeline.shard import ShardStats
from factory.pipeline.shard_writer import Encoding
from factory.pipeline.worker import WorkerSpec
from factory.recipe.weights import weight_files, weights_sha256
from factory_core.storage import open_store
from generators.ddpm.config import DDPMConfig
from generators.encoders.config import EncoderConfig
from labelers.config import LabelerConfig


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A folder of weights that this machine has, and an empty cache for copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "generator"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/weights.safetensors").write_bytes(b"w" * 1000)
    (folder / "config.json").write_text("{}")
    return Weights("generator", folder, weights_sha256(folder))


def contents(weights: Weights) -> dict[str, np.ndarray]:
    files = weight_files(weights.path)
    return {str(f.relative_to(weights.path)): np.fromfile(f, np.uint8) for f in files}


def test_weights_are_used_where_they_are(weights: Weights) -> None:
    assert find_copy(weights) == weights.path
    (weights.path / "config.json").write_text("another")
    assert find_copy(weights) is None


def test_a_copy_of_weights_is_kept_and_found(weights: Weights) -> None:
    files = contents(weights)
    shutil.rmtree(weights.path)
    assert find_copy(weights) is None
    copy = keep_copy(weights, files)
    assert find_copy(weights) == copy
    assert keep_copy(weights, files) == copy  # by another worker, at the same time
    (copy / "config.json").write_text("damaged")
    assert find_copy(weights) is None
    assert keep_copy(weights, files) == find_copy(weights)
    assert len(list(copy.parent.parent.iterdir())) == 1  # nothing else is left


def test_weights_of_a_single_file(weights: Weights) -> None:
    file = weights.path / "unet/weights.safetensors"
    single = Weights("labeler", file, weights_sha256(file))
    files = contents(single)
    file.unlink()
    assert keep_copy(single, files).read_bytes() == b"w" * 1000


def test_weights_that_changed_meanwhile(weights: Weights) -> None:
    files = contents(weights) | {"config.json": np.zeros(3, np.uint8)}
    with pytest.raises(ValueError, match="was changed while the job ran"):
        keep_copy(weights, files)
    assert not list((Path(os.environ["XDG_CACHE_HOME"]) / "dataset-factory/weights").iterdir())


def test_encoders_are_weights_of_their_own(tmp_path: Path) -> None:
    for name in ("generator", "encoder", "labeler"):
        (tmp_path / name).write_bytes(name.encode())
    spec = WorkerSpec(
        out=open_store(str(tmp_path / "out")),
        generator=DDPMConfig(
            weights=str(tmp_path / "generator"),
            encoders=(EncoderConfig(weights=str(tmp_path / "encoder"), heads=4),),
        ),
        labeler=LabelerConfig(weights=str(tmp_path / "labeler")),
        encoding=Encoding(((0, 0, 0),), "png", False, False),
    )
    found = {w.section: w.path for w in weights_of(spec)}
    assert [path.name for path in found.values()] == ["generator", "labeler", "encoder"]
    for section, path in found.items():
        spec = with_weights(spec, section, Path("/elsewhere") / path.name)
    assert spec.generator.weights == "/elsewhere/generator"
    assert spec.labeler.weights == "/elsewhere/labeler"
    assert spec.generator.encoders == (EncoderConfig(weights="/elsewhere/encoder", heads=4),)


@pytest.mark.slow
def test_workers_without_the_weights_are_sent_them(
    shippable: Any, begun: Callable, tmp_path: Path
) -> None:
    import ray

    from factory.pipeline.executors.pool import Pool

    job = begun(tmp_path / "out", 16)
    spec = WorkerSpec.of(job)
    found = weights_of(spec)
    there = [replace(w, path=Path("/another machine") / w.path.name) for w in found]
    shipped = []

    def ship() -> Any:
        shipped.append(put(found))
        return shipped[-1]

    def load(generator: Any, labeler: Any, _: str) -> Any:
        for config in (generator, labeler):
            assert Path(config.weights).is_relative_to(tmp_path / "cache")
            assert (Path(config.weights) / "labeler.json").exists()
        return shippable.load()

    cache = {"env_vars": {"XDG_CACHE_HOME": str(tmp_path / "cache")}}
    actor = ray.remote(ShardActor).options(num_cpus=1, runtime_env=cache)
    start = partial(actor.remote, replace(spec, load=load), 1, there)
    outcomes = list(Pool(start, ship, job.shards, least=1, most=1).run())
    assert all(isinstance(outcome, ShardStats) for outcome in outcomes)
    assert len(outcomes) == 2
    assert len(shipped) == 1
