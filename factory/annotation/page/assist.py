"""Proposals while a person draws: one thread encodes pictures, and learns after every stroke.

A stroke asks for a training; a newer stroke cancels one that is under way. Between trainings the
thread computes the features of the next picture, the one on the page first. Proposals themselves
are computed when a page asks for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from factory.annotation.page.changes import Changes
from factory.annotation.page.features import DrawnFeatures, ImageFeatures
from factory.annotation.page.folder import Folder
from factory.annotation.page.learning import UNCERTAINTY, Cancelled, Proposal, learn, propose
from factory_core.images import IGNORE
from generators.base import Encoder, FeatureMaps
from labelers.labeler import GeneratorInfo, Labeler

KEPT_PROPOSALS = 8
USEFUL_PX = (64, 64)  # at which pictures are compared
NOTHING = np.full((1, 1), IGNORE, np.uint8)  # of a picture on which all was undone

Load = Callable[[], tuple[Encoder, Labeler | None]]


class Assist:
    """The proposals for the pictures of `folder`.

    `load` gives the generator and, if there is one, a trained labeler: proposals are then its own,
    and strokes change nothing. It is called in the thread, because it may take a while.
    """

    def __init__(self, folder: Folder, load: Load, changes: Changes):
        self.folder, self.changes = folder, changes
        self._load = load
        self._wake = threading.Condition()
        self._asked = 1  # trainings asked for; what is drawn already counts as one
        self._learnt = 0
        self._wanted: str | None = None  # the picture on the page
        self._ended = False
        self._labeler: Labeler | None = None
        self._fixed = False
        self._features: ImageFeatures | None = None
        self._broken: dict[str, str] = {}  # pictures that cannot be encoded
        self._proposals: OrderedDict[tuple[str, int], Proposal] = OrderedDict()
        self._means: dict[str, float] = {}  # mean uncertainty of pictures, by that version
        self._means_version = 0
        self._predicting = threading.Lock()
        self._version = 0  # of the labeler
        self._doing = "loading"
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="assist", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in."""
        with self._wake:
            self._ended = True
            self._asked += 1
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(10)

    def drawn(self) -> None:
        """A stroke has been saved: learn again."""
        with self._wake:
            self._asked += 1
            self._wake.notify()

    def want(self, name: str) -> None:
        """Encode this picture before the others."""
        with self._wake:
            self._wanted = name

    def status(self) -> dict[str, Any]:
        """For the page: what the thread does, and the version of the proposals (0: none yet)."""
        features = self._features
        return {
            "doing": self._doing,
            "failure": self._failure,
            "encoded": 0 if features is None else len(features.done),
            "pictures": len(self.folder.names) - len(self._broken),
            "version": self._version,
            "fixed": self._fixed,
        }

    def proposal(self, name: str) -> tuple[int, Proposal] | None:
        """Version and proposal for a picture; None before the first training, or its features."""
        self.want(name)
        labeler, version, features = self._labeler, self._version, self._features
        if labeler is None or features is None or name not in features.done:
            return None
        with self._predicting:
            found = self._proposals.get((name, version))
            if found is None:
                found = propose(labeler, *_inputs(labeler, features, name), self.folder.size(name))
                self._proposals[name, version] = found
                while len(self._proposals) > KEPT_PROPOSALS:
                    self._proposals.popitem(last=False)
        return version, found

    def most_useful(self, names: Iterable[str]) -> str | None:
        """The picture, of `names`, whose pixels are the most uncertain on average; None: unknown.

        Pixels that are drawn already do not count.
        """
        labeler, version, features = self._labeler, self._version, self._features
        if labeler is None or features is None:
            return None
        if self._means_version != version:
            self._means, self._means_version = {}, version
        found = {}
        for name in names:
            if name in features.done:
                if name not in self._means:
                    inputs = _inputs(labeler, features, name)
                    predicted = labeler.predict(*inputs, USEFUL_PX, uncertainty=UNCERTAINTY)
                    self._means[name] = float(predicted.pixel_uncertainty.mean())
                found[name] = self._means[name] * self.folder.drawing(name).undrawn
        return max(found, key=lambda name: found[name]) if found else None

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            generator, labeler = self._load()
            self._info = GeneratorInfo(digest=generator.digest)
            self._features = ImageFeatures(self.folder, generator)
            self._memory = DrawnFeatures(self._features)
            if labeler is not None:
                labeler.check(generator)
                self._fixed, self._labeler, self._version = True, labeler, 1
            while self._step():
                pass
        except Exception as error:  # a page without proposals is better than none
            self._failure = " ".join(str(error).split()) or type(error).__name__
            self._show("failed")

    def _step(self) -> bool:
        """Learn, encode a picture, or wait; False at the end."""
        with self._wake:
            if self._ended:
                return False
            asked, wanted = self._asked, self._wanted
        assert self._features is not None
        if asked != self._learnt and not self._fixed and self._learn(asked):
            return True
        left = [n for n in self.folder.names if n not in self._features.done | set(self._broken)]
        if left:
            self._encode(wanted if wanted in left else left[0])
            return True
        self._show("ready")
        with self._wake:
            self._wake.wait_for(lambda: self._ended or (self._asked != asked and not self._fixed))
        return True

    def _encode(self, name: str) -> None:
        assert self._features is not None
        self._show("encoding")
        try:
            self._features.encode(name)
        except (ValueError, OSError) as error:
            self._broken[name] = str(error)
            return
        ids = self._ids(name)
        if ids is not None and (ids != IGNORE).any():
            self.drawn()

    def _learn(self, asked: int) -> bool:
        """Train once; whether there was anything to do. `_learnt` becomes `asked`."""
        assert self._features is not None
        masks = {}
        for name in sorted(self._features.done):
            ids = self._ids(name)
            if ids is not None and (ids != IGNORE).any():
                self._memory.add(name)
                masks[name] = ids
        masks = {name: masks.get(name, NOTHING) for name in self._memory.names}
        known = {int(i) for ids in masks.values() for i in np.unique(ids)} - {IGNORE}
        self._learnt = asked
        if len(known) < 2:
            return False
        self._show("learning")
        try:
            labeler = learn(
                self._memory, masks, self.folder.classes, self._info, lambda: self._asked != asked
            )
        except Cancelled:
            return True
        self._labeler = labeler
        self._version += 1
        self._show("ready")
        return True

    def _ids(self, name: str) -> np.ndarray | None:
        try:
            return self.folder.drawing(name).ids
        except (ValueError, OSError):  # the page says so when it opens the picture
            return None

    def _show(self, doing: str) -> None:
        self._doing = doing
        self.changes.note()


def _inputs(
    labeler: Labeler, features: ImageFeatures, name: str
) -> tuple[torch.Tensor | None, FeatureMaps]:
    """What the labeler reads of a picture: images uint8 `[1, 3, H, W]`, features."""
    return features.image(name) if labeler.needs_images else None, features.maps(name)
