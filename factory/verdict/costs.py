"""What each part of a bench cost, so that a contender's cost includes the parts it shares."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factory_core.storage import write_json


class Ledger:
    """Seconds by part, in the file `path`; parts may be made inside others.

    A part that exists already costs what it cost when it was made.
    """

    def __init__(self, path: Path):
        self.path = path
        self.own: dict[str, float] = {}  # seconds of a part, without those inside it
        self.inside: dict[str, list[str]] = {}  # parts that a part needed, directly
        if path.is_file():
            found = json.loads(path.read_bytes())
            self.own, self.inside = found["own"], found["inside"]
        self._open: list[tuple[str, float]] = []  # name, seconds of the parts inside it

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the part `name`; the time of an existing one is kept."""
        if self._open:
            needed = self.inside.setdefault(self._open[-1][0], [])
            if name not in needed:
                needed.append(name)
        self._open.append((name, 0.0))
        began = time.monotonic()
        try:
            yield
        finally:
            elapsed = time.monotonic() - began
            _, within = self._open.pop()
            if self._open:
                outer, sum_sec = self._open[-1]
                self._open[-1] = (outer, sum_sec + elapsed)
        if name not in self.own:
            self.own[name] = elapsed - within
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"own": self.own, "inside": self.inside})

    def needed(self, name: str) -> dict[str, float]:
        """Seconds of a part and of all parts it needed, each without those inside it."""
        found, waiting = dict[str, float](), [name]
        while waiting:
            part = waiting.pop()
            if part not in found:
                found[part] = self.own.get(part, 0.0)
                waiting += self.inside.get(part, [])
        return found
