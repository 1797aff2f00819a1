"""Which program, at which commit and with which libraries, wrote a report."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import factory

PACKAGE = "dataset-factory"
LIBRARIES = ("torch", "diffusers", "numpy", "pillow")
UNKNOWN = "unknown"


def program() -> dict[str, str]:
    """Names and versions: this package with its commit, Python, and the libraries that matter."""
    names = {PACKAGE: _version(PACKAGE), "commit": commit(), "python": platform.python_version()}
    return names | {name: _version(name) for name in LIBRARIES}


def commit() -> str:
    """The commit of the package's source, from its checkout or its installation."""
    folder = Path(factory.__file__).parents[1]
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return UNKNOWN
        return found.stdout.strip() or UNKNOWN
    try:
        source = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return UNKNOWN
    return str(source.get("vcs_info", {}).get("commit_id", UNKNOWN))


def rows_of(about: Mapping[str, str]) -> list[list[str]]:
    """Rows of a table."""
    return [[name, value] for name, value in about.items()]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN
