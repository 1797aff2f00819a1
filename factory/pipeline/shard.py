"""The unit of work: a shard of candidates, and the statistics of a finished one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from factory_core.dataset import MARKER_SUFFIX, FileInfo


@dataclass(frozen=True)
class Shard:
    """Candidates `start` to `stop` (exclusive).

    `files` are the photographs to label, one per candidate; None means to sample the generator.
    """

    number: int
    start: int
    stop: int
    files: tuple[str, ...] | None = None

    @property
    def tar(self) -> str:
        """Name of the file that holds the samples."""
        return f"{self.number:06d}.tar"

    @property
    def parquet(self) -> str:
        """Name of the file that holds one row per sample."""
        return f"{self.number:06d}.parquet"

    @property
    def marker(self) -> str:
        """Name of the file that marks this shard as finished."""
        return f"{self.number:06d}{MARKER_SUFFIX}"

    @property
    def indices(self) -> range:
        """Sample indices."""
        return range(self.start, self.stop)

    def batches(self, size: int) -> Iterator[tuple[range, tuple[str, ...] | None]]:
        """Sample indices, and their photographs if any, `size` at a time.

        Batches never cross shards: the bits of a sample depend on its batch, and a shard must be
        the same whichever worker makes it.
        """
        for start in range(self.start, self.stop, size):
            batch = range(start, min(start + size, self.stop))
            here = slice(batch.start - self.start, batch.stop - self.start)
            yield batch, None if self.files is None else self.files[here]


@dataclass(frozen=True)
class ShardStats:
    """What a finished shard holds: the content of its completion marker.

    `image_size` is (height, width) in pixels; `uncertainty_sum` in nats; `uncertainty_histogram`
    counts the pixels at each level of the uncertainty maps, None without maps; `precision` is the
    result of `precision_of` for the models; `job` is the `JobIdentity.sha256` of its job; `device`
    is the kind of device that computed it (`device_kind`), empty in older markers; `threads` are
    those of the worker on a CPU, which round differently, 0 in older markers.
    """

    number: int
    start: int
    stop: int
    image_size: tuple[int, int]
    uncertainty_sum: float
    elapsed_sec: float
    tar: FileInfo
    rows: FileInfo
    uncertainty_histogram: list[int] | None
    precision: str
    job: str = ""
    device: str = ""
    threads: int = 0

    @property
    def samples(self) -> int:
        """Number of candidates."""
        return self.stop - self.start

    def to_json(self) -> dict[str, Any]:
        """As plain values for JSON."""
        files = {"tar": self.tar.model_dump(), "rows": self.rows.model_dump()}
        return {**{k: v for k, v in vars(self).items() if k not in files}, **files}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ShardStats:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        values = dict(content)
        values["image_size"] = tuple(values["image_size"])
        values["tar"] = FileInfo.model_validate(values["tar"])
        values["rows"] = FileInfo.model_validate(values["rows"])
        return cls(**values)

    @classmethod
    def parse(cls, marker: bytes) -> ShardStats | None:
        """The content of a marker; None if it is damaged, which means: not finished."""
        try:
            return cls.from_json(json.loads(marker))
        except (ValueError, KeyError, TypeError):
            return None

    def is_of(self, shard: Shard, job: str) -> bool:
        """Whether these are the stats of `shard`, made for `job`.

        A worker that outlived its driver may have left a shard of another job.
        """
        found = (self.job, self.number, self.start, self.stop)
        return found == (job, shard.number, shard.start, shard.stop)
