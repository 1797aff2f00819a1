"""The table of the comparison, and what the figures of Factorized Diffusion show."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from benchmarks.factorized import spread, table_of, value_at
from benchmarks.factorized_figures import coloured, interpolate, sampling_passes
from benchmarks.factorized_parts import OBJECTIVE, VARIANTS, Settings
from benchmarks.sampling_factorized import counted
from generators.base import REGIONS_MAP
from generators.config import FactorizedConfig
from generators.ddpm import samplers
from generators.ddpm.noise import NoiseModel
from generators.ddpm.training import noise_schedule
from generators.factorized.config import FactorizedFeatures, NetworkConfig
from generators.factorized.model import FactorizedGenerator
from generators.factorized.network import build

NETWORK = NetworkConfig(
    image_size=16,
    channels=(8, 16),
    resnets_per_level=1,
    attention_levels=1,
    regions=3,
    structure="factorized",
)


@pytest.fixture(scope="module")
def generator() -> FactorizedGenerator:
    """Untrained."""
    torch.manual_seed(0)
    net = build(NETWORK).requires_grad_(False)
    config = FactorizedConfig(
        weights="",
        steps=3,
        precision="float32",
        features=FactorizedFeatures(record="regions"),
    )
    return FactorizedGenerator(net, noise_schedule("v_prediction"), NoiseModel(), config, "cpu")


def cell(structure: str, iou: float, collapsed: bool = False) -> dict:
    regions = {"dataset": {"iou": iou}, "oracle": {}}
    return {"structure": structure, "regions": regions, "collapsed": collapsed}


def test_the_table_has_means_over_seeds_and_counts_collapses() -> None:
    cells = [cell("plain", 0.25), cell("factorized", 0.5), cell("factorized", 0.75, True)]
    console = Console(width=120, record=True)
    console.print(table_of(cells, "title"))
    text = console.export_text()
    assert "DatasetDDPM-unsup" in text
    assert "0.250" in text
    assert "0.625 ± 0.177" in text
    assert "1 of 2" in text
    assert "Fréchet" not in text  # no cell has it
    assert value_at(cells[0], "regions.dataset.iou") == 0.25
    assert value_at(cells[0], "regions.oracle.iou") is None
    assert spread([], 2) == "-"


def test_variants_share_sizes_and_objective() -> None:
    about = (None, 10, 16, (8, 16), 2, (), 4, 5, "package:x")
    settings = Settings(*about, overrides=("lr=0.01",), device="cpu", fid=None)
    trained = [settings.training(name, 1).model_dump() for name in VARIANTS if name != "pixels"]
    for key in (*OBJECTIVE, "lr", "channels", "steps", "batch_size", "seed"):
        assert len({str(config[key]) for config in trained}) == 1
    published = settings.training("published", 1)
    assert (published.padding, published.balance) == ("zeros", 0)  # type: ignore[attr-defined]


def test_the_last_pass_of_a_sample_has_its_regions(generator: FactorizedGenerator) -> None:
    passes = sampling_passes(generator, [0, 1])
    expected = samplers.timesteps(generator.schedule, generator.config)
    assert [one.t for one in passes] == expected
    _, maps = generator.sample([0, 1])
    assert torch.allclose(passes[-1].m, maps[REGIONS_MAP], atol=1e-6)


def test_the_end_of_an_interpolation_is_one_image_alone(generator: FactorizedGenerator) -> None:
    first, second, third = torch.randint(0, 256, (3, 3, 16, 16)).byte()
    images, m = interpolate(generator, torch.stack([first, second]), mixtures=3, visits=4)
    other, _ = interpolate(generator, torch.stack([first, third]), mixtures=3, visits=4)
    assert (images.shape, m.shape) == ((3, 3, 16, 16), (3, 3, 16, 16))
    assert torch.equal(images[0], other[0])
    assert not torch.equal(images[2], other[2])


def test_colours_are_mixed_where_masks_are_soft() -> None:
    hard = torch.eye(3)[:, :, None, None].expand(-1, -1, 2, 2)
    colours = coloured(hard)[:, :, 0, 0].float()
    assert len(colours.unique(dim=0)) == 3
    mixed = coloured(hard.mean(0, keepdim=True))[0, :, 0, 0].float()
    assert (mixed - colours.mean(0)).abs().max() <= 0.5


def test_the_papers_network_costs_three_plain_ones() -> None:
    sizes = {"image_size": 64, "channels": (128, 256, 384, 512), "resnets_per_level": 3}
    plain, factorized = counted(NETWORK.model_copy(update={**sizes, "attention_levels": 2}))
    assert plain == pytest.approx(79e9, rel=0.01)
    assert factorized == pytest.approx(247e9, rel=0.01)
