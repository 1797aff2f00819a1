"""Several sources as one endless stream of samples, decoded by loader processes into batches.

The sample at each place of the stream depends only on the seed and the sizes of the sources, so it
is known before anything is read. A stream can therefore start at any step, and each of several
processes takes its own rows of a batch. The numbers of processes and loader processes do not change
a batch.

    places ──► Source.read (encoded, this process) ──► Source.decoder (loader processes) ──► batches
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from train_seg.data.samples import Damage, DamagedSample, Pair

CHUNK = 16  # samples that `epoch` decodes at a time
DRAWS = 4096  # places of a mixture drawn at a time

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """What a source reads at a place: `content` for its decoder, None if the sample is damaged.

    If both are given, `content` belongs to another sample, which replaces the damaged one.
    """

    epoch: int  # of the source
    content: Any
    damage: Damage | None = None


class Source(Protocol):
    """A known number of samples that can be read epoch after epoch."""

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the data."""
        ...

    @property
    def decoder(self) -> Callable[[Any, int], Pair]:
        """(content, epoch) -> augmented sample; raises DamagedSample. Sent to loader processes."""
        ...

    def read(self, places: Iterable[int]) -> Iterator[Item]:
        """Items at increasing places of the sequence epoch 0, epoch 1, ..."""
        ...


class Stream:
    """Sources as one endless sequence of samples.

    Without `mix`, an epoch holds each sample of each source once, in random order. With `mix`, each
    place draws its source with these probabilities (positive, sum 1), and each source runs through
    its own epochs at its own pace; an epoch of the stream then has as many places as there are
    samples in all sources.

    With `skip_damaged`, `damaged` maps the damaged samples found so far to the reason.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        mix: Sequence[float] | None = None,
        num_workers: int = 0,
        skip_damaged: bool = False,
    ):
        self._sources, self._seed, self._mix = sources, seed, mix
        self._num_workers, self._skip_damaged = num_workers, skip_damaged
        self._sizes = np.array([s.samples for s in sources], np.int64)
        self._reported: set[tuple[str, str]] = set()
        self.damaged: dict[str, str] = {}

    @property
    def skipped(self) -> Counter[str]:
        """The number of damaged samples found so far, by reason."""
        return Counter(self.damaged.values())

    @property
    def samples(self) -> int:
        return int(self._sizes.sum())

    @property
    def digest(self) -> str:
        """sha256 of the sources in their order, and of the mixture."""
        content = "".join(s.digest for s in self._sources)
        if self._mix is not None:
            content += ",".join(map(repr, self._mix))
        return hashlib.sha256(content.encode()).hexdigest()

    def epoch(self, epoch: int) -> Iterator[Pair]:
        """The augmented samples of one epoch, in that epoch's order."""
        items = self._items(epoch * self.samples, lambda places: places >= 0)
        rows = islice(items, self.samples)
        for images, masks in self._decoded(iter(lambda: list(islice(rows, CHUNK)), [])):
            yield from zip(images, masks, strict=True)

    def batches(
        self, batch_size: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Pair]:
        """Endless full batches from `start_step`: images uint8 `[B, 3, H, W]`, labels `[B, ...]`.

        Each of `world_size` processes gets the rows `rank::world_size` of each batch. The number of
        processes matters only if a damaged picture is skipped: its replacement is a row of the same
        process.

        Raises:
            ValueError: the processes cannot share a batch evenly; or, at its batch, a damaged
                sample.
        """
        if batch_size % world_size:
            raise ValueError(
                f"batch_size {batch_size} is not divisible by {world_size} processes: "
                "set it to a multiple"
            )
        rows = batch_size // world_size
        items = self._items(
            start_step * batch_size, lambda places: places % batch_size % world_size == rank
        )
        yield from self._decoded(iter(lambda: list(islice(items, rows)), []))

    # --- order -------------------------------------------------------------------------------

    def _items(
        self, start: int, wanted: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[tuple[int, Item]]:
        """(source, item) at the `wanted` places from `start` on."""

        def places_of(source: int) -> Iterator[int]:
            for places, turns, inner in self._turns(start):
                yield from inner[(turns == source) & wanted(places)].tolist()

        readers = [source.read(places_of(i)) for i, source in enumerate(self._sources)]
        for places, turns, _ in self._turns(start):
            for source in turns[wanted(places)].tolist():
                yield source, next(readers[source])

    def _turns(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Places of the stream from `start` on, their sources, and their places in the sources."""
        length = self.samples if self._mix is None else DRAWS
        block, skip = divmod(start, length)
        used = self._used(block)
        while True:
            turns = self._block(block)
            inner = np.empty_like(turns)
            for source, first in enumerate(used):
                of_source = turns == source
                inner[of_source] = first + np.arange(of_source.sum())
            places = block * length + np.arange(length)
            yield places[skip:], turns[skip:], inner[skip:]
            used, block, skip = used + self._count(turns), block + 1, 0

    def _block(self, block: int) -> np.ndarray:
        """The sources of a block of places: an epoch or, in a mixture, DRAWS places."""
        rng = np.random.default_rng([self._seed, block, 3])
        if self._mix is not None:
            return rng.choice(len(self._mix), DRAWS, p=self._mix)
        return rng.permutation(np.repeat(np.arange(len(self._sources)), self._sizes))

    def _used(self, blocks: int) -> np.ndarray:
        """Number of samples that the first `blocks` blocks take from each source."""
        if self._mix is None:
            return blocks * self._sizes
        return sum((self._count(self._block(b)) for b in range(blocks)), 0 * self._sizes)

    def _count(self, turns: np.ndarray) -> np.ndarray:
        return np.bincount(turns, minlength=len(self._sources))

    # --- decoding ----------------------------------------------------------------------------

    def _decoded(self, batches: Iterator[list[tuple[int, Item]]]) -> Iterator[Pair]:
        loader = DataLoader(
            _DecodedBatches([s.decoder for s in self._sources], self._skip_damaged),
            batch_size=None,
            sampler=batches,
            num_workers=self._num_workers,
            # Children of this process end with it even if it is killed; children of a fork server
            # (torch's default) would survive.
            multiprocessing_context="spawn" if self._num_workers else None,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # not the global one, which the training seeds
        )
        due = lost = 0
        for pair, damages in loader:
            self._note(damages)
            # A batch without a usable sample is replaced by the next one that has some. Only later
            # batches matter, so a resumed stream does the same.
            due, lost = due + 1, lost + len(damages)
            if pair is None:
                if lost > 2 * self.samples:
                    raise ValueError(f"{damages[0]} (and no other sample is usable)")
                continue
            for _ in range(due):
                yield pair
            due = lost = 0

    def _note(self, damages: Sequence[Damage]) -> None:
        """Raise the first one, or count each once and log the first of its kind per shard."""
        for damage in damages:
            if not self._skip_damaged:
                raise ValueError(str(damage))
            if damage.where in self.damaged:
                continue
            self.damaged[damage.where] = damage.reason
            if (damage.shard, damage.reason) not in self._reported:
                self._reported.add((damage.shard, damage.reason))
                log.warning("skipped %s", damage)


class _DecodedBatches(Dataset):
    """A list of (source, item) -> (images, masks) or None, and the damaged samples."""

    def __init__(self, decoders: Sequence[Callable[[Any, int], Pair]], skip_damaged: bool):
        self._decoders, self._skip_damaged = decoders, skip_damaged

    def __getitem__(self, rows: list[tuple[int, Item]]) -> tuple[Pair | None, list[Damage]]:
        pairs: list[Pair | None] = []
        damages: list[Damage] = []
        for source, item in rows:
            if item.damage is not None:
                damages.append(item.damage)
            pair = None
            if item.content is not None:
                # Not raised: an exception in a loader process becomes a page of traceback.
                try:
                    pair = self._decoders[source](item.content, item.epoch)
                except DamagedSample as error:
                    damages.append(error.damage)
            if pair is None and not self._skip_damaged:
                return None, damages
            pairs.append(pair)
        if not any(pairs):
            return None, damages
        # The next usable sample of the batch replaces an unusable one.
        whole = [next(filter(None, pairs[i:] + pairs[:i])) for i in range(len(pairs))]
        images, masks = default_collate(whole)  # in a loader process: straight to shared memory
        return (images, masks), damages


def _unchanged(batch: Any) -> Any:
    return batch
