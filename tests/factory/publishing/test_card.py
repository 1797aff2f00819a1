"""`factory card`: a card that renders, a description that validates, licences."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from factory.publishing.card import Publication, card
from factory.publishing.licences import restrictions
from factory.publishing.origin import Origin, card_head, origin_of
from factory_core.dataset import read_manifest, read_samples
from tests.stand_ins import Tiny


@pytest.fixture
def dataset(tiny: Tiny, tmp_path: Path) -> Path:
    tiny.make(tmp_path / "smears")
    return tmp_path / "smears"


def test_the_card_renders(dataset: Path, factory: Callable) -> None:
    result = factory("card", dataset, "--license", "cc-by-4.0", "--title", "My *smears* | 2")
    assert result.code == 0, result.err
    text = (dataset / "README.md").read_text()
    loaded = DatasetCard(text)
    assert loaded.data.license == "cc-by-4.0"
    assert loaded.data.pretty_name == "My *smears* | 2"
    assert loaded.data.task_categories == ["image-segmentation"]
    assert loaded.data.size_categories == ["n<1K"]
    html = MarkdownIt().enable("table").render(loaded.text)
    assert html.startswith("<h1>My *smears* | 2</h1>")
    assert html.count("<table>") == 2
    assert html.count("<tr>") == 3 + 7  # classes, facts
    assert "<td>1</td>\n<td>bright</td>" in html
    assert '<img src="preview.png"' in html
    assert (dataset / "preview.png").is_file()
    assert html.count('<code class="language-python">') == 2
    kept = read_manifest(dataset).totals.kept
    assert f"<p>{kept} images made by a generative model, 16x16 pixels" in html
    assert str(dataset.parent) not in text  # no folders of this machine


@pytest.mark.parametrize("kept", [(999, "n<1K"), (50_000, "10K<n<100K"), (2 * 10**6, "n>1M")])
def test_sizes(dataset: Path, kept: tuple[int, str]) -> None:
    manifest = read_manifest(dataset)
    totals = manifest.totals.model_copy(update={"kept": kept[0]})
    manifest = manifest.model_copy(update={"totals": totals})
    text = card(manifest, Publication("x", "mit"), origin_of(manifest), "1")
    assert card_head(text)["size_categories"] == [kept[1]]


def test_mlcroissant_validates_and_reads(
    dataset: Path, factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert factory("card", dataset, "--license", "cc-by-4.0").code == 0
    # In a program of its own, without network: mlcroissant reads the place of its cache once.
    program = f"""
import io, socket, sys
def refuse(*_): raise OSError("no network here")
socket.socket.connect = refuse
import mlcroissant
data = mlcroissant.Dataset({str(dataset / "croissant.json")!r})
assert not data.metadata.ctx.issues.errors
print(data.metadata.name, data.metadata.license)
for name in ("samples", "images", "masks"):
    rows = list(data.records(name))
    print(name, len(rows), rows[0][f"{{name}}/key"].decode())
print(rows[1]["masks/mask"].getpixel((3, 5)))
"""
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "cache"))
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    samples = list(read_samples(dataset))
    totals = read_manifest(dataset).totals
    assert run.stdout.splitlines() == [
        "smears ['cc-by-4.0']",
        f"samples {totals.candidates} 000000000",
        f"images {totals.kept} {samples[0].key}",
        f"masks {totals.kept} {samples[0].key}",
        str(samples[1].mask[5, 3]),
    ]


def test_the_licence_is_never_guessed(dataset: Path, factory: Callable) -> None:
    def refused(*options: str) -> str:
        result = factory("card", dataset, *options)
        assert result.code == 1
        assert not (dataset / "README.md").exists()
        return result.err

    assert "never guessed" in refused()
    assert "expected an identifier" in refused("--license", "CC BY 4.0")
    assert "without --license-link" in refused("--license", "other")
    assert "expected the link with `other` alone" in refused(
        "--license", "mit", "--license-link", "https://example.org"
    )
    link = ("--license", "other", "--license-link", "https://example.org/terms")
    assert factory("card", dataset, *link).code == 0
    head = card_head((dataset / "README.md").read_text())
    assert (head["license"], head["license_link"]) == ("other", link[-1])
    assert json.loads((dataset / "croissant.json").read_text())["license"] == link[-1]


def test_an_edited_card_is_kept(dataset: Path, factory: Callable) -> None:
    (dataset / "README.md").write_text("mine")
    result = factory("card", dataset, "--license", "mit")
    assert result.code == 1
    assert "may have been edited" in result.err
    assert (dataset / "README.md").read_text() == "mine"
    assert factory("card", dataset, "--license", "mit", "--overwrite").code == 0


# --- where the images come from --------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("cc-by-nc-sa-4.0", ["commercial", "same licence"]),
        ("cc-by-nd-4.0", ["altered"]),
        ("creativeml-openrail-m", ["pass these limits on"]),
        ("agpl-3.0", ["same licence"]),
        ("mit", []),
        ("apache-2.0", []),
    ],
)
def test_restrictions(licence: str, words: list[str]) -> None:
    found = restrictions(licence)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_the_licence_of_a_generator(dataset: Path, tmp_path: Path, factory: Callable) -> None:
    manifest = read_manifest(dataset)
    assert origin_of(manifest).licence is None
    (line,) = origin_of(manifest).lines()
    assert "licence is not known" in line
    model_card = Path(manifest.recipe["generator"]["weights"]) / "README.md"
    model_card.write_text("---\nlicense: cc-by-nc-4.0\n---\n# A generator\n")
    assert origin_of(manifest).licence == "cc-by-nc-4.0"
    result = factory("card", dataset, "--license", "mit")
    assert "licence cc-by-nc-4.0: forbids commercial use" in result.out
    result = factory("push", dataset, "hf://ada/smears")
    assert result.code == 1
    assert "mit does not pass this on: cc-by-nc-4.0 forbids commercial use" in result.out
    given = ("--generator-license", "cc-by-4.0", "--overwrite")
    assert factory("card", dataset, "--license", "mit", *given).code == 0
    result = factory("push", dataset, "hf://ada/smears")
    assert "licence cc-by-4.0: no restriction of publishing known" in result.out
    assert "does not pass" not in result.out


def test_the_embedded_generator_and_photographs(dataset: Path) -> None:
    manifest = read_manifest(dataset)
    generator = {**manifest.recipe["generator"], "weights": "package:factory.demo/generator"}
    recipe = {**manifest.recipe, "generator": generator}
    demo = origin_of(manifest.model_copy(update={"recipe": recipe}))
    assert (demo.name, demo.licence) == ("package:factory.demo/generator", "apache-2.0")
    source = {"kind": "images", "sha256": "ab" * 32}
    photographs = origin_of(manifest.model_copy(update={"source": source}))
    assert photographs == Origin(False, "photographs", "ab" * 32, None)
    assert "real photographs" in photographs.lines()[0]


@pytest.mark.parametrize(
    "text", ["", "# x", "---\nlicense: mit\n", "---\n- a\n---\n", "---\n: [\n---\n"]
)
def test_a_card_without_a_head(text: str) -> None:
    assert card_head(text) == {}
