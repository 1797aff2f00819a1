"""`factory push`: send a finished dataset to the Hugging Face hub."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from factory.publishing.card import CARD_NAME
from factory.publishing.croissant import CROISSANT_NAME
from factory.publishing.hub import PAGE, SCHEME, files_of, repository, upload
from factory.publishing.licences import restrictions
from factory.publishing.origin import Origin, card_head, origin_of
from factory.terminal.text import byte_size
from factory_core.dataset import MANIFEST_NAME, SHARDS_DIR, Manifest, open_dataset
from factory_core.storage import write_json

FIDELITY_NAME = "fidelity.json"  # of `generate --real`


@dataclass(frozen=True)
class PushJob:
    """The options of `push`; `is_agreed`: do not ask."""

    folder: Path
    address: str
    is_public: bool = False
    is_agreed: bool = False


def push(job: PushJob, console: Console) -> None:
    """Say what will be sent and what the licence of its source forbids; ask; send.

    Raises ValueError for a wrong address, a dataset without a card or with an outdated one, or
    without agreement; OSError as `upload`; otherwise as `open_dataset`.
    """
    name = repository(job.address)
    manifest = open_dataset(job.folder).manifest
    licence, facts = _described(job.folder, manifest)
    based_on = facts.get("isBasedOn", {}).get("license")
    origin = origin_of(manifest, based_on)
    files = files_of(job.folder, manifest, (CARD_NAME, CROISSANT_NAME, FIDELITY_NAME))
    size = sum((job.folder / file).stat().st_size for file in files)
    seen = "everyone will see it" if job.is_public else "private if it is new"
    console.print(
        f"{len(files)} files, {byte_size(size)}, to {SCHEME}{name} ({seen}), licence {licence}"
    )
    for line in [*origin.lines(), *_warnings(manifest, origin, licence)]:
        console.print(f"note: {line}")
    if not (job.is_agreed or _agrees()):
        raise ValueError(f"nothing was sent to {SCHEME}{name}: read the notes, then give --yes")
    if "url" not in facts:
        write_json(job.folder / CROISSANT_NAME, {**facts, "url": f"{PAGE}{name}"})
    if not console.is_terminal:  # bars of the library, with carriage returns
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    console.print(f"dataset in {upload(job.folder, files, name, not job.is_public)}")


def _described(folder: Path, manifest: Manifest) -> tuple[str, dict[str, Any]]:
    """The licence in the card, and croissant.json; ValueError unless both are of this dataset."""
    hint = f"run `factory card {folder} --license ...`"
    files = [folder / CARD_NAME, folder / CROISSANT_NAME]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} has no {file.name}, which says what it is: {hint}")
    licence = card_head(files[0].read_text(encoding="utf-8")).get("license")
    if not isinstance(licence, str):
        raise ValueError(f"{files[0]} has no licence in its head: {hint} --overwrite")
    try:
        facts = json.loads(files[1].read_bytes())
        listed = {file["name"]: file.get("sha256") for file in facts["distribution"]}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{files[1]} is damaged: {hint} --overwrite") from None
    if any(listed.get(f"{SHARDS_DIR}/{s.name}") != s.sha256 for s in manifest.shards):
        raise ValueError(f"{files[1]} describes other shards: {hint} --overwrite")
    return licence, facts


def _warnings(manifest: Manifest, origin: Origin, licence: str) -> list[str]:
    """What the licence does not pass on, and what the files give away."""
    notes = []
    lost = [term for term in origin.forbidden if term not in restrictions(licence)]
    if lost:
        notes.append(
            f"the licence {licence} does not pass this on: {origin.licence} {'; '.join(lost)}"
        )
    paths = [
        str(section.get("weights"))
        for section in manifest.recipe.values()
        if isinstance(section, dict) and Path(str(section.get("weights"))).is_absolute()
    ]
    if paths:
        notes.append(f"{MANIFEST_NAME} names folders of this machine: {', '.join(paths)}")
    return notes


def _agrees() -> bool:
    """Ask, if someone is there."""
    return sys.stdin.isatty() and typer.confirm("send it?")
