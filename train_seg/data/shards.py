"""Tars as a sequence of samples whose order is known before anything is read.

An epoch puts the shards in a new random order and cuts their sequence of samples into windows of
`shuffle_buffer`. Samples are shuffled within a window. All of this depends only on the seed and the
number of samples in each tar, so a stream can start anywhere after reading one window. A tar is
read only forwards, as suits a bucket, and one window ahead of its use.
"""

from __future__ import annotations

import hashlib
import math
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, groupby, islice
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from factory_core.dataset import SAMPLES_NAME, Dataset, level_at_quantile
from factory_core.storage import Store
from train_seg.config import SHUFFLE_BUFFER
from train_seg.data.augment import Augment
from train_seg.data.samples import Damage, Decoder, Encoded, Size
from train_seg.data.stream import Item


class Tar(NamedTuple):
    """A tar in `folder`, of this many samples, as `counted_in` says; sha256 of what it holds."""

    folder: Store
    name: str
    samples: int
    sha256: str
    counted_in: str = "dataset.json"


class TarSource:
    """The samples of some tars, a `Source` for `Stream`.

    With `skip_damaged`, an unreadable sample is replaced by the next readable one of its window, or
    of the next window that has one. `rows` is the folder with samples.parquet, if there is one.
    """

    def __init__(
        self,
        tars: Sequence[Tar],
        decoder: Decoder,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        skip_damaged: bool = False,
        rows: Store | None = None,
    ):
        self._tars, self._rows, self.decoder = tars, rows, decoder
        self._counts = np.array([tar.samples for tar in tars], np.int64)
        self._seed, self._window, self._skip_damaged = decoder.seed, shuffle_buffer, skip_damaged

    @property
    def samples(self) -> int:
        return int(self._counts.sum())

    @property
    def digest(self) -> str:
        digests = "".join(tar.sha256 for tar in self._tars)
        return hashlib.sha256(digests.encode()).hexdigest()

    def read(self, places: Iterable[int]) -> Iterator[Item]:
        """The encoded samples at increasing places of the endless sequence of epochs.

        A thread reads the next window while the current one is used, to hide the latency of a
        bucket. Of the samples between the places, only tar headers are read.
        """
        windows = self._windows(places)
        thread = ThreadPoolExecutor(1, "shard-reader")
        try:
            pending = thread.submit(next, windows, None)
            while (window := pending.result()) is not None:
                pending = thread.submit(next, windows, None)
                yield from window
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def _windows(self, places: Iterable[int]) -> Iterator[list[Item]]:
        tars = _Tars(self._tars, self._rows)
        row = (divmod(place, self.samples) for place in places)
        try:
            for (epoch, window), group in groupby(row, lambda p: (p[0], p[1] // self._window)):
                wanted = np.array([place for _, place in group])
                yield self._read_window(tars, epoch, window, wanted)
        finally:
            tars.close()

    def _read_window(self, tars: _Tars, epoch: int, window: int, places: np.ndarray) -> list[Item]:
        found = self._fetch(tars, epoch, places)
        usable: list[Encoded | Damage] = []
        items: list[Item] = []
        for place, sample in zip(places.tolist(), found, strict=True):
            if isinstance(sample, Encoded):
                items.append(Item(epoch, sample))
                continue
            stand_in = None
            if self._skip_damaged:
                # The whole window, whichever of its places are requested: a resumed stream, or
                # another process, must find the same replacement.
                usable = usable or self._usable_window(tars, epoch, window, sample)
                following = islice(cycle(usable), place % self._window, None)
                stand_in = next(s for s in following if isinstance(s, Encoded))
            items.append(Item(epoch, stand_in, sample))
        return items

    def _usable_window(
        self, tars: _Tars, epoch: int, window: int, damage: Damage
    ) -> list[Encoded | Damage]:
        """All of a window or, if nothing in it is readable, of the next readable one."""
        windows = math.ceil(self.samples / self._window)
        for number in range(window, window + windows):
            first = number % windows * self._window
            places = np.arange(first, min(first + self._window, self.samples))
            found = self._fetch(tars, epoch, places)
            if any(isinstance(sample, Encoded) for sample in found):
                return found
        raise ValueError(f"{damage} (and no other sample can be read)")

    def _fetch(self, tars: _Tars, epoch: int, places: np.ndarray) -> list[Encoded | Damage]:
        """The samples at places of one epoch, read in the order of the tars."""
        shards = _rng(self._seed, epoch, 1).permutation(len(self._counts))
        ends = np.cumsum(self._counts[shards])
        unshuffled = self._unshuffled(epoch, places)
        at = np.searchsorted(ends, unshuffled, "right")
        numbers = unshuffled - ends[at] + self._counts[shards[at]]
        found: dict[int, Encoded | Damage] = {}
        for i in np.argsort(unshuffled).tolist():
            found[i] = tars.sample(int(shards[at[i]]), int(numbers[i]))
        return [found[i] for i in range(len(places))]

    def _unshuffled(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Where the samples at `places` of an epoch are in its sequence of shards."""
        result = np.empty_like(places)
        for window in np.unique(places // self._window).tolist():
            first = window * self._window
            inside = places // self._window == window
            size = min(self._window, self.samples - first)
            order = _rng(self._seed, epoch, 2, window).permutation(size)
            result[inside] = first + order[places[inside] - first]
        return result


class ShardSource(TarSource):
    """The shards of one dataset folder.

    Pixels above the quantile `ignore_above` of the dataset's uncertainty become 255; `soft` labels
    are class probabilities. The rest is as in `TarSource`.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: Size,
        augment: Augment,
        seed: int,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        ignore_above: float | None = None,
        skip_damaged: bool = False,
        soft: bool = False,
    ):
        shards, folder = dataset.manifest.shards, dataset.shards
        if not sum(shard.samples for shard in shards):
            raise ValueError(
                f"{dataset.store}: found no sample in any shard, expected at least one"
            )
        limit = None if ignore_above is None else _uncertainty_limit(dataset, ignore_above)
        if soft and not dataset.manifest.probabilities:
            raise ValueError(
                f"{dataset.store} has no class probabilities, which soft_labels needs: regenerate "
                "it with --set dataset.probabilities=true, or leave that setting out"
            )
        tars = [Tar(folder, shard.name, shard.samples, shard.sha256) for shard in shards]
        decoder = Decoder(size, augment, len(dataset.manifest.classes), limit, seed, soft)
        super().__init__(tars, decoder, shuffle_buffer, skip_damaged, dataset.store)


def _rng(*words: int) -> np.random.Generator:
    return np.random.default_rng(words)


def _uncertainty_limit(dataset: Dataset, quantile: float) -> int:
    """The highest level of the uncertainty maps that is used."""
    histogram = dataset.manifest.uncertainty_histogram
    if histogram is None:
        raise ValueError(
            f"{dataset.store} has no uncertainty maps, which ignore_above_quantile needs: "
            "regenerate it with --set dataset.uncertainty_maps=true, or leave that setting out"
        )
    return level_at_quantile(histogram, quantile)


# --- tars ------------------------------------------------------------------------------------


class Header(NamedTuple):
    """A member of a tar: key and extension of its name, where its bytes are, when it was made."""

    key: str
    extension: str
    offset: int
    size: int
    mtime: float


def member_headers(file: BinaryIO) -> Iterator[Header]:
    """The members of an open tar, in order; as webdataset, without folders and nameless files.

    The key is the name up to the first dot after the last slash. Raises tarfile.TarError.
    """
    with tarfile.TarFile(fileobj=file) as tar:
        while (info := tar.next()) is not None:
            folder, slash, base = info.name.rpartition("/")
            stem, dot, extension = base.partition(".")
            if info.isreg() and stem and dot:
                key = f"{folder}{slash}{stem}"
                yield Header(key, extension.lower(), info.offset_data, info.size, info.mtime)


class _Tars:
    """Samples by shard and number; cheap in the order of a shard."""

    def __init__(self, tars: Sequence[Tar], rows: Store | None):
        self._tars, self._rows = tars, rows
        self._keys = dict[int, list[str]]()
        self._files = ExitStack()  # the shard that is open
        self._shard, self._number = -1, 0  # the sample that comes next
        self._broken = ""  # why there is none

    def sample(self, shard: int, number: int) -> Encoded | Damage:
        """A sample, or why it is unreadable; then all later ones of its shard are too."""
        folder, name, count, *_ = self._tars[shard]
        path = folder / name
        try:
            with folder.errors(name):
                if shard != self._shard or number < self._number:
                    self._open(shard)
                while not self._broken and self._number < number:
                    self._next(keep=False)
                if not self._broken:
                    return self._next(keep=True)
        except (tarfile.TarError, OSError, EOFError) as error:
            said = str(getattr(error, "strerror", None) or error)
            reason = " ".join(said.split()).removeprefix(f"{path}: ")
            self._broken = f"cannot be read ({reason}): copy the shard again or regenerate it"
        sample = " ".join([*self._listed(shard)[number : number + 1], f"({number + 1} of {count})"])
        return Damage(str(path), sample, "shard cannot be read", self._broken)

    def close(self) -> None:
        self._files.close()

    def _listed(self, shard: int) -> list[str]:
        """Keys of an unreadable shard, from samples.parquet; none if that is unreadable too."""
        if self._rows is None:
            return []
        if shard not in self._keys:
            wanted = [("shard", "==", self._tars[shard].name)]
            try:
                with self._rows.open(SAMPLES_NAME) as file:
                    table = pyarrow.parquet.read_table(file, columns=["key"], filters=wanted)
                self._keys[shard] = sorted(table["key"].to_pylist())
            except (OSError, pyarrow.ArrowException):
                self._keys[shard] = []
        return self._keys[shard]

    def _open(self, shard: int) -> None:
        self.close()
        self._shard, self._number, self._broken = shard, 0, ""
        folder, name, *_ = self._tars[shard]
        self._file = self._files.enter_context(folder.open(name))
        self._headers = member_headers(self._file)
        self._header = next(self._headers, None)

    def _next(self, keep: bool) -> Encoded:
        """Advance to the next sample; without `keep`, its members are not read."""
        folder, tar, listed, _, counted_in = self._tars[self._shard]
        count = self._number
        if self._header is None:
            # tarfile also takes an unreadable header for the end
            raise EOFError(f"it ends after {count} samples, {counted_in} lists {listed}")
        key, members = self._header.key, dict[str, bytes]()
        while self._header is not None and self._header.key == key:
            if keep:
                self._file.seek(self._header.offset)
                data = self._file.read(self._header.size)
                if len(data) < self._header.size:
                    raise EOFError(f"it is cut off in {key}.{self._header.extension}")
                members[self._header.extension] = data
            self._header = next(self._headers, None)
        self._number += 1
        if self._number == listed and self._header is not None:
            raise EOFError(f"it holds more than the {listed} samples that {counted_in} lists")
        return Encoded(str(folder / tar), key, members)
