"""The page of a dataset: its opening, and its sections in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.recipe.yaml_text import recipe_yaml
from factory.reports.class_shares import ClassShares
from factory.reports.of_dataset import balance, copies, dropping, looking, realism
from factory.reports.of_dataset.copies import Copying
from factory.reports.of_dataset.samples import Rows, choose, make_tiles, read_rows
from factory.reports.page import Fact, Page, Section, details, facts, legend, table
from factory.reports.page.parts import percent, whole
from factory.reports.provenance import program, rows_of
from factory.terminal.text import byte_size
from factory_core.dataset import Dataset, Manifest

GENERATORS = {"ddpm": "a diffusion model", "stylegan2": "a StyleGAN2"}


@dataclass(frozen=True)
class Evidence:
    """What is known besides the dataset; None where it was not asked for.

    `annotated` are the pixels per class, and the images, of an annotated folder; `fidelity` is the
    content of fidelity.json; `copying` is the comparison with training images.
    """

    annotated: balance.Annotated | None = None
    fidelity: Mapping[str, Any] | None = None
    copying: Copying | None = None


def dataset_page(data: Dataset, evidence: Evidence) -> Page:
    """The report of a finished dataset; raises as reading its shards does."""
    manifest, rows = data.manifest, read_rows(data)
    chosen = choose(rows)
    tiles = make_tiles(data, rows, chosen.all)
    shares = ClassShares.of(rows.pixels.sum(axis=0), rows.pixels[rows.kept].sum(axis=0))
    sections = [
        looking.gallery_section(manifest, chosen, tiles),
        looking.extremes_section(chosen, tiles),
        dropping.section(manifest, rows, shares, chosen, tiles),
        dropping.uncertainty_section(manifest, rows),
        balance.section(manifest, rows, shares, evidence.annotated),
        looking.classes_section(manifest, rows, chosen, tiles),
    ]
    if is_generated(manifest):
        sections += [realism.section(evidence.fidelity), copies.section(evidence.copying)]
    sections.append(_provenance(manifest))
    opening = [_numbers(manifest, rows), legend(manifest.classes, manifest.palette)]
    return Page(manifest.name, "Dataset", _summary(manifest), opening, sections)


def is_generated(manifest: Manifest) -> bool:
    """Whether the images are a generator's, not photographs."""
    return manifest.source.get("kind") != "images"


def _summary(manifest: Manifest) -> str:
    totals, (height, width) = manifest.totals, manifest.image_size
    kind = manifest.recipe.get("generator", {}).get("kind", "")
    origin = f"sampled by {GENERATORS.get(kind, 'a generator')}"
    if not is_generated(manifest):
        origin = "photographs"
    kept = f"{whole(totals.kept)} images of {width} × {height} pixels with a mask of"
    classes = f"{len(manifest.classes)} classes: {origin}, labelled by a labeler trained on a few"
    return (
        f"{kept} {classes} annotated images; {whole(totals.dropped)} of"
        f" {whole(totals.candidates)} were dropped as too uncertain."
    )


def _numbers(manifest: Manifest, rows: Rows) -> Any:
    totals, shards = manifest.totals, len(manifest.shards)
    median = rows.table.uncertainty[rows.table.kept].median()
    return facts(
        [
            Fact(whole(totals.kept), "samples"),
            Fact(whole(totals.dropped), f"dropped ({percent(totals.dropped / totals.candidates)})"),
            Fact(str(len(manifest.classes)), "classes"),
            Fact(byte_size(totals.bytes), f"in {shards} shard{'s' * (shards != 1)}"),
            Fact(f"{median:.3g}", "median uncertainty, nats"),
        ]
    )


def _provenance(manifest: Manifest) -> Section:
    weights = {f"weights of {key}": digest for key, digest in manifest.weights.items()}
    about = {
        "recipe digest": manifest.recipe_digest,
        **weights,
        "precision": manifest.precision or "float32",
        "source": ", ".join(f"{key} {value}" for key, value in manifest.source.items()),
    }
    return Section(
        "Recipe and provenance",
        "The same recipe and weights give the same bytes; digests are sha256 of the contents.",
        [
            table(["", "dataset"], rows_of(about), words=True),
            details("The resolved recipe", recipe_yaml(manifest.recipe)),
            table(["", "program that wrote this report"], rows_of(program()), words=True),
        ],
    )
