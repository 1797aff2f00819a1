"""Selection and samples.parquet for jobs larger than memory: time and peak memory.

    python -m benchmarks.scale [--shards 10000] [--json FILE]

Rows and markers are synthetic (no images), on disk as workers leave them. The end of a job is
measured in its own process: verifying the markers by sha256, selecting, and writing
samples.parquet. Packing the images is not measured; it is limited by the disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from factory.pipeline.commit import select_rows, write_samples
from factory.pipeline.ownership import finished_shards
from factory.pipeline.shard import Shard, ShardStats
from factory.pipeline.shard_writer import rows_schema
from factory_core.dataset import FileInfo, sample_key
from factory_core.storage import open_store, write_json

SHARD_SIZE = 1000
CLASSES = 5
PIXELS = 64 * 64
GIB = 2**30


def shard_at(number: int) -> Shard:
    """The unit of work `number`."""
    return Shard(number, number * SHARD_SIZE, (number + 1) * SHARD_SIZE)


def make_up(folder: Path, shards: int) -> None:
    """Write rows and markers of this many candidate shards; the tars are empty."""
    rng = np.random.default_rng(0)
    for number in range(shards):
        shard = shard_at(number)
        counts = rng.multinomial(PIXELS, [1 / CLASSES] * CLASSES, SHARD_SIZE)
        offsets = np.arange(0, CLASSES * SHARD_SIZE + 1, CLASSES, dtype=np.int32)
        columns = {
            "key": [sample_key(index) for index in shard.indices],
            "index": np.asarray(shard.indices),
            "seed": rng.integers(0, 2**62, SHARD_SIZE),
            "uncertainty": rng.random(SHARD_SIZE, np.float32),
            "class_pixels": pa.ListArray.from_arrays(offsets, counts.ravel()),
        }
        rows, tar = folder / shard.parquet, folder / shard.tar
        pq.write_table(pa.table(columns, rows_schema(False)), rows)
        tar.touch()
        stats = ShardStats(
            number=number,
            start=shard.start,
            stop=shard.stop,
            image_size=(64, 64),
            uncertainty_sum=float(columns["uncertainty"].sum()),
            elapsed_sec=1.0,
            tar=FileInfo.of(tar, SHARD_SIZE),
            rows=FileInfo.of(rows, SHARD_SIZE),
            uncertainty_histogram=None,
            precision="",
        )
        (folder / shard.marker).write_text(json.dumps(stats.to_json()))


def measure(folder: Path, shards: int) -> dict[str, float]:
    """Seconds of each part, peak memory of the process, and bytes written."""
    times = [time.perf_counter()]
    store = open_store(folder)
    stats = finished_shards(store, [shard_at(number) for number in range(shards)], job="")
    times.append(time.perf_counter())
    rows = [folder / found.rows.name for _, found in sorted(stats.items())]
    assert len(rows) == shards
    selection = select_rows(rows, 0.1)
    times.append(time.perf_counter())
    names = [f"scale-{i:06d}.tar" for i in range(-(-int(selection.kept.sum()) // SHARD_SIZE))]
    info, _ = write_samples(store, rows, selection, names, SHARD_SIZE)
    times.append(time.perf_counter())
    markers_sec, select_sec, write_sec = np.diff(times).tolist()
    return {
        "candidates": info.samples,
        "markers_sec": markers_sec,
        "select_sec": select_sec,
        "write_sec": write_sec,
        "total_sec": times[-1] - times[0],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        "samples_parquet_gib": info.bytes / GIB,
    }


def main() -> None:
    """Write synthetic rows, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=10_000, help="of 1000 candidates")
    parser.add_argument("--folder", type=Path, help="working folder: about 1 GB per 10 000 shards")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        with spawn.Pool(1) as pool:
            pool.apply(make_up, (Path(name), options.shards))
        with spawn.Pool(1) as pool:  # in its own process, for its own peak memory
            figures = pool.apply(measure, (Path(name), options.shards))
    table = Table("what", "found")
    for key, value in figures.items():
        table.add_row(key, f"{value:,.2f}".removesuffix(".00"))
    Console().print(table)
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
