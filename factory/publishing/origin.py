"""Where the images of a dataset came from, as far as its files tell, and what that permits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from factory.publishing.licences import restrictions
from factory.recipe.weights import PACKAGE_PREFIX
from factory_core.dataset import Manifest

OURS, OUR_LICENCE = f"{PACKAGE_PREFIX}factory.demo/", "apache-2.0"  # the embedded generators
MODEL_CARD = "README.md"


@dataclass(frozen=True)
class Origin:
    """The source of the images: a generator, or photographs that a labeler labelled.

    `name` is that of the generator's weights, without folders of this machine. `sha256` is that of
    the weights or of the photographs. `licence` None: not known.
    """

    is_generated: bool
    name: str
    sha256: str
    licence: str | None

    @property
    def forbidden(self) -> list[str]:
        """What the licence forbids or requires, if it is known."""
        return [] if self.licence is None else restrictions(self.licence)

    def lines(self) -> list[str]:
        """What to consider before publishing, one line each."""
        if not self.is_generated:
            return [
                "the images are real photographs, whose file names are in samples.parquet: publish "
                "them only if their owners, and the people they show, permit it"
            ]
        what = f"the images were made by the generator {self.name} ({self.sha256[:12]})"
        if self.licence is None:
            return [
                f"{what}, whose licence is not known: publish them only if its licence, and that "
                "of the images it was trained on, permit it (--generator-license says which it is)"
            ]
        terms = "; ".join(self.forbidden) or "no restriction of publishing known"
        return [f"{what}, licence {self.licence}: {terms}"]


def origin_of(manifest: Manifest, licence: str | None = None) -> Origin:
    """The origin of a dataset; `licence`, the generator's, is looked up if None.

    A generator's licence is known if it is one of the package, or if its folder still has a model
    card that names it.
    """
    if manifest.source.get("kind") != "generator":
        return Origin(False, "photographs", str(manifest.source.get("sha256", "")), licence)
    weights = str(manifest.recipe.get("generator", {}).get("weights", "unknown"))
    is_local = Path(weights).is_absolute()
    name = Path(weights).name if is_local else weights
    sha256 = manifest.weights.get("generator.weights", "")
    return Origin(True, name, sha256, licence or _recorded_licence(weights))


def _recorded_licence(weights: str) -> str | None:
    if weights.startswith(OURS):
        return OUR_LICENCE
    card = Path(weights) / MODEL_CARD
    if not (card.is_absolute() and card.is_file()):  # a hub id looks like a relative path
        return None
    found = card_head(card.read_text(encoding="utf-8", errors="replace")).get("license")
    return found if isinstance(found, str) else None


def card_head(text: str) -> dict[str, Any]:
    """The YAML head of a card: between the first two lines `---`; empty if there is none."""
    if not text.startswith("---\n"):
        return {}
    head, end, _ = text.removeprefix("---\n").partition("\n---")
    if not end:
        return {}
    try:
        content = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
