"""`factory card`: describe a finished dataset for those who find it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from rich.console import Console

from factory.publishing.card import CARD_NAME, Publication, card, description
from factory.publishing.croissant import CROISSANT_NAME, croissant
from factory.publishing.licences import check_licence
from factory.publishing.origin import origin_of
from factory_core.dataset import open_dataset
from factory_core.storage import Store


@dataclass(frozen=True)
class CardJob:
    """The options of `card`; None: not given."""

    folder: Store
    licence: str | None
    link: str | None = None
    title: str | None = None
    generator_licence: str | None = None
    is_overwriting: bool = False


def write_card(job: CardJob, console: Console) -> None:
    """Write README.md and croissant.json into a finished dataset.

    Raises ValueError without a licence, FileExistsError if there is a README.md already, otherwise
    as `open_dataset`.
    """
    if job.licence is None:
        raise ValueError(
            "found no --license: give the one under which the dataset is published, such as "
            "--license cc-by-4.0; it is never guessed"
        )
    check_licence(job.licence, job.link)
    manifest = open_dataset(job.folder).manifest
    if job.folder.exists(CARD_NAME) and not job.is_overwriting:
        raise FileExistsError(
            f"{job.folder / CARD_NAME} exists, and may have been edited: delete it, or give "
            "--overwrite"
        )
    about = Publication(job.title or _name(job.folder), job.licence, job.link)
    origin = origin_of(manifest, job.generator_licence)
    summary = description(manifest, origin)
    facts = croissant(manifest, about.title, summary, about.licence_text, origin)
    job.folder.write_json(CROISSANT_NAME, facts)
    text = card(manifest, about, origin, version("dataset-factory"))
    job.folder.write(CARD_NAME, text.encode())
    console.print(f"{CARD_NAME} and {CROISSANT_NAME} in {job.folder}, licence {job.licence}")
    for line in origin.lines():
        console.print(f"note: {line}")


def _name(folder: Store) -> str:
    return str(folder.resolve()).rstrip("/").rsplit("/", 1)[-1]
