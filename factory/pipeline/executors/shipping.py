"""Weights for machines that do not share the driver's disk: sent once, through the object store.

A worker looks for weights where the driver has them. If they are missing there, or their sha256
differs, the driver puts the files into Ray's object store, once for all workers, and the first
worker on each machine writes them to that machine's disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from factory.pipeline.worker import WorkerSpec
from factory.recipe.weights import weight_files, weights_sha256


@dataclass(frozen=True)
class Weights:
    """Weights on the driver's machine: the recipe's section, a file or folder, and its sha256.

    A section is `generator`, `labeler`, or `generator.encoders.N`.
    """

    section: str
    path: Path
    sha256: str


def weights_of(spec: WorkerSpec) -> list[Weights]:
    """The weights that the workers of `spec` load."""
    assert spec.labeler.weights is not None
    paths = {"generator": Path(spec.generator.weights), "labeler": Path(spec.labeler.weights)}
    for number, encoder in enumerate(spec.generator.encoders or ()):
        paths[f"generator.encoders.{number}"] = Path(encoder.weights)
    return [Weights(section, path, weights_sha256(path)) for section, path in paths.items()]


def with_weights(spec: WorkerSpec, section: str, path: Path) -> WorkerSpec:
    """The spec of a worker on a machine that has the weights of `section` at `path`."""
    update: dict[str, Any] = {"weights": str(path)}
    if section == "labeler":
        return replace(spec, labeler=spec.labeler.model_copy(update=update))
    if section != "generator":
        encoders = list(spec.generator.encoders or ())
        number = int(section.rpartition(".")[2])
        encoders[number] = encoders[number].model_copy(update=update)
        update = {"encoders": tuple(encoders)}
    return replace(spec, generator=spec.generator.model_copy(update=update))


def put(weights: Sequence[Weights]) -> dict[str, dict[str, Any]]:
    """References to every file's bytes in Ray's object store, by section and relative name."""
    import ray

    return {
        found.section: {
            _name(file, found.path): ray.put(np.fromfile(file, np.uint8))
            for file in weight_files(found.path)
        }
        for found in weights
    }


def find_copy(weights: Weights) -> Path | None:
    """Where `weights` are on this machine; None if they are missing or differ."""
    for path in (weights.path, _copy_of(weights)):
        if path.exists() and weights_sha256(path) == weights.sha256:
            return path
    return None


def keep_copy(weights: Weights, files: Mapping[str, np.ndarray]) -> Path:
    """Write files (uint8 arrays, by relative name) to this machine's disk; returns where.

    Raises ValueError if their sha256 is not that of `weights`.
    """
    copy = _copy_of(weights)
    copy.parent.parent.mkdir(parents=True, exist_ok=True)
    # Rename it into place: workers of one machine may do this at once, or be killed.
    folder = Path(tempfile.mkdtemp(dir=copy.parent.parent))
    try:
        for name, content in files.items():
            path = folder / copy.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content.tofile(path)
        if weights_sha256(folder / copy.name) != weights.sha256:
            raise ValueError(
                f"{weights.path} was changed while the job ran: restore the original weights"
            )
        if copy.exists() and weights_sha256(copy) != weights.sha256:
            shutil.rmtree(copy.parent)  # an old copy, damaged
        with suppress(OSError):  # another worker was first
            os.rename(folder, copy.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return copy


def _name(file: Path, path: Path) -> str:
    """The name of a file within `path`; "." for `path` itself if that is a file."""
    return file.relative_to(path).as_posix()


def _copy_of(weights: Weights) -> Path:
    """Where a copy is kept on this machine. Its name is the sha256, so later jobs find it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "dataset-factory" / "weights" / weights.sha256 / weights.path.name
