"""k-means on features: the regions of DatasetDDPM-unsup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from factory.demo.render import render_folder
from factory_core.dataset import read_manifest
from generators.base import FeatureMaps, FeatureMapSpec
from labelers.config import LabelerConfig
from labelers.ensemble.classifiers import channel_last, group_by_size
from labelers.info import GeneratorInfo
from labelers.labeler import Labeler
from labelers.regions.clusters import fit_clusters, pixel_vectors
from labelers.regions.fit import fit_regions
from labelers.training.feature_store import FeatureStore

SIZE, N = 8, 4
# Two sizes, not in the order in which `group_by_size` puts channels.
SPEC = (
    FeatureMapSpec("a", 2, SIZE, SIZE),
    FeatureMapSpec("b", 3, 4, 4),
    FeatureMapSpec("c", 1, SIZE, SIZE),
)


def made_up(seed: int = 0) -> tuple[torch.Tensor, FeatureMaps]:
    """Regions `[N, H, W]` of 0, 1, 2, and features that depend on them, with noise."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 3, (N, 4, 4), generator=rng)
    regions = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    values = torch.randn(3, 2, generator=rng) * 5
    a = values[regions].permute(0, 3, 1, 2) + 0.1 * torch.randn(N, 2, SIZE, SIZE, generator=rng)
    b = torch.randn(N, 3, 4, 4, generator=rng) * 0.1
    c = 100 + (regions == 1).float()[:, None] * 1000
    return regions, FeatureMaps({"a": a, "b": b, "c": c})


def test_a_pixel_belongs_to_the_nearest_centre() -> None:
    _, maps = made_up()
    size, tables = (SIZE, SIZE), channel_last(maps, group_by_size(SPEC))
    vectors = pixel_vectors(tables, size, range(N), 10**6, seed=0)
    clusters = fit_clusters(vectors, SPEC, 3, seed=0)
    m = clusters.regions(maps, size)
    assert m.shape == (N, 3, SIZE, SIZE)
    assert torch.allclose(m.sum(1), torch.ones(N, SIZE, SIZE))
    # The same in plain code: upsample, standardise, measure the distance to the mean of each.
    b = F.interpolate(maps["b"], size, mode="bilinear")
    x = torch.cat([maps["a"], maps["c"], b], 1).permute(0, 2, 3, 1).flatten(0, 2)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    found = m.permute(0, 2, 3, 1).flatten(0, 2).argmax(1)
    centres = torch.stack([x[found == k].mean(0) for k in range(3)])
    assert torch.equal(torch.cdist(x, centres).argmin(1), found)


def test_clusters_are_named_and_kept(tmp_path: Path) -> None:
    regions, maps = made_up()
    store = FeatureStore(tmp_path / "features", SPEC, N, "float32", "test")
    store.append(maps)
    masks = torch.tensor([2, 0, 1])[regions].to(torch.uint8)
    masks[3] = 255  # nothing is known of this image
    config = LabelerConfig(kind="clusters")
    about = {"generator": GeneratorInfo(digest="g"), "data_digest": "d"}
    labeler = fit_regions(store, masks, config, classes=["x", "y", "z"], **about)
    assert labeler.info.scores["train_accuracy"] > 0.95
    labeler.save(tmp_path / "labeler")
    found = Labeler.load(tmp_path / "labeler")
    mask = found.predict(None, maps).mask
    assert torch.equal(mask, labeler.predict(None, maps).mask)
    assert (mask[:3] == masks[:3]).float().mean() > 0.95
    assert (mask[3] == torch.tensor([2, 0, 1])[regions[3]]).float().mean() > 0.95


def test_too_few_kinds_of_pixels() -> None:
    with pytest.raises(ValueError, match=r"fewer than 3 kinds of pixels: set labeler\.clusters"):
        fit_clusters(torch.ones(50, 6), SPEC, 3, seed=0)


@pytest.mark.slow
def test_a_plain_generator_without_annotated_images(factory: Callable, tmp_path: Path) -> None:
    few = ("--set", "generator.steps=2")
    generator = "package:factory.demo/generator"
    command = ("train-labeler", "--kind", "clusters", "--generator", generator)
    done = factory(*command, "--out", tmp_path / "unnamed", *few)
    assert done.code == 0, done.err
    assert done.out.strip().endswith("(3 regions without names)")
    render_folder(tmp_path / "annotated", range(3))
    labelled = ("--labeled", tmp_path / "annotated", "--out", tmp_path / "named")
    done = factory(*command, *labelled, *few, "--set", "labeler.clusters=4")
    assert done.code == 0, done.err
    assert "of the pixels agree" in done.out
    info = json.loads((tmp_path / "named" / "labeler.json").read_text())
    assert len(info["regions"]) == 4
    making = ("generate", "--labeler", tmp_path / "named", "--n", 4, "--executor", "local")
    made = factory(*making, "--out", tmp_path / "data", *few)
    assert made.code == 0, made.err
    assert read_manifest(tmp_path / "data").totals.kept == 4
