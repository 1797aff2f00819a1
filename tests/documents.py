"""The code blocks of the documentation, and what a shell would make of them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Programs that blocks call: stubs, so that only their arguments matter. Those that start other
# programs pass on the `factory` command in their arguments.
STUBS = ("pip", "pytest", "ruff", "python", "aws", "sleep", "scontrol", "cp", "ray", "srun")
PASS_ON = r"""#!/bin/bash
[ "$0" = "${0%factory}" ] || { printf '%s\0' "$@" END >>"$LOG"; exit; }
for word; do
  shift
  case $word in
    factory) exec factory "$@" ;;
    *"exec factory "*) exec bash -c "factory ${word#*exec factory }" ;;
  esac
done
"""


class Block(NamedTuple):
    """A fenced block: its document relative to the repository, line, language and text."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """The README and everything in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    """All blocks of `documents`, in order."""
    found = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            indent, language, content = match.groups()
            lines = (line.removeprefix(indent) for line in content.splitlines(keepends=True))
            name = path.relative_to(ROOT).as_posix()
            found.append(
                Block(name, text.count("\n", 0, match.start()) + 1, language, "".join(lines))
            )
    return found


def commands(script: str, folder: Path) -> list[list[str]]:
    """The arguments of every `factory` command that bash runs for `script`; nothing else is run.

    `folder` is an empty one for the stubs.
    """
    log = folder / "log"
    for name in ("factory", *STUBS):
        (folder / name).write_text(PASS_ON)
        (folder / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LOG": str(log),
        "BUCKET": "bucket",
        "SCRATCH": "scratch",
        "SLURM_NNODES": "4",
    }
    subprocess.run(["bash", "-c", script], env=environment, cwd=folder, check=True)
    words = log.read_text().split("\0") if log.exists() else []
    groups = itertools.groupby(words[:-1], key="END".__eq__)
    return [list(group) for is_end, group in groups if not is_end]


def values(command: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The values that a command gives for any of these options."""
    for option, value in itertools.pairwise(command):
        if option in options:
            yield value
