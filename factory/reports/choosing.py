"""Reading a few chosen samples of a dataset, and no more shards than they are in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq

from factory_core import dataset
from factory_core.dataset import CANDIDATES_DIR, Dataset, Sample


def read_chosen(data: Dataset, rows: Iterable[tuple[str, str, bool]]) -> Iterator[Sample]:
    """The samples of `rows` (key, shard, kept), shard by shard, one in memory at a time.

    Dropped ones come last, and only if their candidates still exist.
    """
    rows = list(rows)
    kept, dropped = ({key for key, _, k in rows if k == which} for which in (True, False))
    shards = {shard for _, shard, is_kept in rows if is_kept}
    tars = [(data.shards, name, kept) for name in sorted(shards)]
    candidates = data.store / CANDIDATES_DIR
    names = [entry.name for entry in candidates.entries()]
    for parquet in [name for name in names if name.endswith(".parquet")][:1]:
        # All candidate shards are as long as the first, except for the last.
        with candidates.local_copy(parquet) as copy:
            size = pq.read_metadata(copy).num_rows
        numbers = sorted({int(key) // size for key in dropped})
        tars += [(candidates, tar, dropped) for n in numbers if (tar := f"{n:06d}.tar") in names]
    classes = len(data.manifest.classes)
    for folder, name, keys in tars:
        with folder.open(name) as file:
            for key, members in dataset.read_open_tar(file, folder / name, keys):
                yield dataset.decode_sample(key, members, classes)
