"""A checkpoint of a project, and what must happen to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).parents[2] / "golden"


class Bench(NamedTuple):
    """What writing a case may use: an empty folder, and the fixture `ada_pickle`."""

    folder: Path
    ada_pickle: Callable[..., bytes]

    def file(self, name: str, content: bytes) -> Path:
        """Write a file of the folder."""
        path = self.folder / name
        path.write_bytes(content)
        return path


@dataclass(frozen=True)
class Case:
    """A checkpoint of a project.

    `write` makes one and returns its path; `given` are the settings to read it with. If it loads,
    `says` is what `convert` prints of where the weights were ("": it prints nothing); if not, the
    error begins with it and contains `instead`, the way out.
    """

    project: str
    file: str
    loads: bool
    says: str
    write: Callable[[Bench], Path]
    given: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.project}: {self.file}"
