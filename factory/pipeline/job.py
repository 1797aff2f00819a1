"""A job: what to make and where, and what two runs must agree on to share a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from factory.pipeline.models import LoadModels, load_models
from factory.pipeline.photographs import list_photographs
from factory.pipeline.shard import Shard
from factory.recipe import ResolvedRecipe, canonical, diff
from factory_core.dataset import CANDIDATES_DIR, MAX_SAMPLES, Manifest, canonical_json
from factory_core.storage import Store, file_sha256, open_store


@dataclass(frozen=True)
class Job:
    """`n` candidates by a recipe, written to the folder `out`.

    `files` are the photographs to label; None means to sample the generator. `device` is a torch
    device or `auto`. `keep_candidates` keeps the candidates when the dataset is finished. `load`
    replaces the real models in tests. `sampling` and `labeling` build a job from user input.
    """

    recipe: ResolvedRecipe
    n: int
    out: Store
    files: tuple[str, ...] | None = None
    device: str = "auto"
    keep_candidates: bool = False
    load: LoadModels = load_models

    @classmethod
    def sampling(cls, recipe: ResolvedRecipe, n: int, out: str | Path | Store, **how: Any) -> Job:
        """Sample `n` images and label them; `how` are the other fields.

        Raises ValueError for `n` out of range, or an encoder without a generator.
        """
        if not 1 <= n <= MAX_SAMPLES:
            raise ValueError(f"--n {n}: expected a number of samples from 1 to {MAX_SAMPLES}")
        if recipe.generator.kind == "encoder":
            raise ValueError(
                f"{recipe.generator.weights} is an encoder, which makes no images: give a generator"
                " too (--generator DIR), or label photographs with `factory label`"
            )
        return cls(recipe, n, open_store(out), **how)

    @classmethod
    def labeling(
        cls, recipe: ResolvedRecipe, images: Path, out: str | Path | Store, **how: Any
    ) -> Job:
        """Label the photographs in the folder `images`; errors as `list_photographs`."""
        from factory_core.images import list_images

        recipe = recipe.reading(list_images(images))
        files = list_photographs(images, recipe.pictures)
        return cls(recipe, len(files), open_store(out), files, **how)

    @property
    def candidates(self) -> Store:
        """The folder of work in progress."""
        return self.out / CANDIDATES_DIR

    @property
    def shard_count(self) -> int:
        """Number of units of work."""
        return -(-self.n // self.recipe.recipe.dataset.shard_size)

    @property
    def shards(self) -> list[Shard]:
        """All units of work."""
        size = self.recipe.recipe.dataset.shard_size
        cuts = [(start, min(start + size, self.n)) for start in range(0, self.n, size)]
        return [
            Shard(number, start, stop, self.files and self.files[start:stop])
            for number, (start, stop) in enumerate(cuts)
        ]

    @cached_property
    def identity(self) -> JobIdentity:
        """What another run must agree on to resume this one; reads every photograph once."""
        source = {"kind": "generator"}
        if self.files is not None:
            content = hashlib.sha256()
            for file in map(Path, self.files):
                content.update(f"{file.name} {file_sha256(file)}\n".encode())
            source = {"kind": "images", "sha256": content.hexdigest()}
        return JobIdentity(self.recipe.digest, self.n, source, self.recipe.canonical)


@dataclass(frozen=True)
class JobIdentity:
    """All that two runs must agree on to share a folder: the content of job.json.

    `digest` is the recipe's, `recipe` its canonical form (to name the fields that differ), `source`
    where the images come from: `{"kind": "generator"}`, or `images` with a sha256 over all files.
    """

    digest: str
    n: int
    source: Mapping[str, str]
    recipe: Mapping[str, Any]

    @classmethod
    def of_finished(cls, manifest: Manifest) -> JobIdentity:
        """The identity of the job that made a dataset; ValueError if its recipe is broken."""
        try:
            recipe = canonical(manifest.recipe, manifest.weights)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the recipe is incomplete ({error})") from None
        return cls(manifest.recipe_digest, manifest.totals.candidates, manifest.source, recipe)

    @classmethod
    def parse(cls, content: Any) -> JobIdentity | None:
        """The identity that `to_json` gave; None for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or not content.keys() >= set(names):
            return None
        return cls(**{name: content[name] for name in names})

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @cached_property
    def sha256(self) -> str:
        """The digest noted in the marker of every shard of the job."""
        agreed = {"digest": self.digest, "n": self.n, "source": self.source}
        return hashlib.sha256(canonical_json(agreed)).hexdigest()

    def difference(self, other: JobIdentity) -> str | None:
        """How a folder started by the job `other` differs from this one; None if it does not."""
        hint = "give another --out, or the original settings"
        if self.source != other.source:
            return f"was made from different images: {hint}"
        if self.digest != other.digest:
            names = ", ".join(diff(other.recipe, self.recipe))
            if not names:
                return (
                    "was made by a different version of the program: give another --out, or use"
                    " that version"
                )
            return f"was started with a different recipe ({names} differ): {hint}"
        if self.n != other.n:
            return f"was started with --n {other.n}, not {self.n}: {hint}"
        return None
