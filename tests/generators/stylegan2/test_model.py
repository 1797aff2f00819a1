"""Sampling images and features with tiny random networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.base import Generator, sample_generators
from generators.stylegan2.config import NetworkConfig, StyleGAN2Config, StyleGAN2FeatureConfig
from generators.stylegan2.model import StyleGAN2Generator, load_network, to_uint8
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.resample import upsample
from generators.stylegan2.storage import save

NAME, CONDITIONAL = "net_b_map2_r32", "net_c_cond3_map2_r32"
LoadGenerator = Callable[..., StyleGAN2Generator]


@pytest.fixture
def load(golden_network: Callable[[str], StyleGAN2]) -> LoadGenerator:
    def load(name: str = NAME, **settings: Any) -> StyleGAN2Generator:
        settings = {"precision": "float32"} | settings
        network = golden_network(name)
        # Random weights make images far outside the range of colours.
        with torch.no_grad():
            for block in network.synthesis.children():
                block.torgb.weight *= 0.1
                block.torgb.bias *= 0.1
        return StyleGAN2Generator(network, StyleGAN2Config(weights="", **settings), "cpu")

    return load


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("noise", ["const", "random"])
def test_sample_depends_on_its_index_alone(load: LoadGenerator, precision: str, noise: str) -> None:
    generator = load(precision=precision, noise=noise)
    together, maps = generator.sample([3, 8, 5])
    alone, alone_maps = generator.sample([8])
    assert together.shape == (3, 3, 32, 32)
    assert together.dtype == torch.uint8
    # Batch composition changes float sums in the last bits, which are large in bfloat16.
    levels = 1 if precision == "float32" else 8
    assert (together[1].int() - alone[0].int()).abs().max() <= levels
    assert (together[0].int() - together[1].int()).abs().max() > 50
    assert maps.spec == alone_maps.spec == generator.feature_spec
    again, _ = generator.sample([3, 8, 5])
    assert torch.equal(again, together)


def test_a_call_takes_one_batch(load: LoadGenerator) -> None:
    generator = load(batch_size=2)
    images, latents = torch.zeros(3, 3, 32, 32, dtype=torch.uint8), generator.latents(range(3))
    for call, argument in (
        (generator.sample, range(3)),
        (generator.encode, images),
        (generator.project, images),
        (generator.features_at, latents),
    ):
        with pytest.raises(ValueError, match="found a batch of 3 images, expected 1 to 2"):
            call(argument)


def test_it_is_a_generator(load: LoadGenerator) -> None:
    assert isinstance(load(), Generator)
    assert load().image_size == (32, 32)


def test_z_comes_from_the_seed_of_the_sample(load: LoadGenerator) -> None:
    generator = load(seed=7)
    z = torch.stack([torch.randn(64, generator=g) for g in sample_generators(7, [4, 2])])
    network = generator.network
    ws = network.mapping.broadcast(network.mapping(z), psi=0.7)
    assert torch.equal(generator.latents([4, 2]), ws)
    image, _ = network.synthesis(ws, noise="const")
    found, _ = generator.sample([4, 2])
    assert torch.equal(found, to_uint8(image))
    assert not torch.equal(load(seed=8).sample([4])[0], found[:1])


def test_features_come_from_the_pass_that_made_the_image(load: LoadGenerator) -> None:
    generator = load(noise="random")
    images, maps = generator.sample([0, 1])
    ws, remade = generator.latents([0, 1]), torch.zeros(2, 3, 2, 2)
    for k, resolution in enumerate((4, 8, 16, 32)):
        block = generator.network.synthesis.block(resolution)
        colours = block.torgb(maps[f"b{resolution}.conv1"], ws[:, 2 * k + 1])
        remade = upsample(remade) + colours
    assert (to_uint8(remade).int() - images.int()).abs().max() <= 1
    names = ["b4.conv1"] + [f"b{r}.conv{i}" for r in (8, 16, 32) for i in (0, 1)]
    assert list(maps) == names
    assert [(s.channels, s.height) for s in maps.spec] == [
        (64, 4), (64, 8), (64, 8), (64, 16), (64, 16), (32, 32), (32, 32)
    ]  # fmt: skip


def test_recording_does_not_change_the_image(load: LoadGenerator) -> None:
    one = load(features=StyleGAN2FeatureConfig(layers=("b8.conv0",)))
    assert torch.equal(one.sample([0])[0], load().sample([0])[0])


def test_chosen_layers_in_the_order_of_the_network(load: LoadGenerator) -> None:
    features = StyleGAN2FeatureConfig(layers=("b16.conv1", "b8.conv0"), constant=True)
    generator = load(features=features)
    _, maps = generator.sample([0, 1])
    assert list(maps) == ["b4.const", "b8.conv0", "b16.conv1"]
    const = generator.network.synthesis.b4.const
    assert torch.equal(maps["b4.const"], const.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match=r"\['b64\.conv0'\] do not exist: .* b4\.conv1, b8\.conv0"):
        load(features=StyleGAN2FeatureConfig(layers=("b64.conv0",)))
    for layers in ((), ("b8.conv0", "b8.conv0")):
        with pytest.raises(ValueError, match="distinct names"):
            StyleGAN2FeatureConfig(layers=layers)


def test_truncation(load: LoadGenerator) -> None:
    average = load(truncation=0.0).sample([0, 1])[0]
    assert torch.equal(average[0], average[1])
    images = load(truncation=0.0, truncation_cutoff=4).sample([0, 1])[0]
    assert not torch.equal(images[0], images[1])


def test_noise_policies(load: LoadGenerator) -> None:
    images = {noise: load(noise=noise).sample([0])[0] for noise in ("const", "none", "random")}
    assert not torch.equal(images["const"], images["none"])
    assert not torch.equal(images["random"], images["none"])
    assert torch.equal(load(noise="random").sample([0])[0], images["random"])


def test_classes(load: LoadGenerator) -> None:
    by_class = [load(CONDITIONAL, class_id=k).sample(range(8))[0] for k in range(3)]
    assert not torch.equal(by_class[0], by_class[1])
    mixed = load(CONDITIONAL, class_id="random").sample(range(8))[0]
    chosen = [
        [k for k in range(3) if (by_class[k][i].int() - mixed[i].int()).abs().max() <= 1]
        for i in range(8)
    ]
    assert all(len(ids) == 1 for ids in chosen)  # the same z, and one of the classes
    assert len({ids[0] for ids in chosen}) > 1
    for wrong in (None, 3):
        with pytest.raises(ValueError, match=f"class_id is {wrong}, expected 0 to 2, or random"):
            load(CONDITIONAL, class_id=wrong)
    with pytest.raises(ValueError, match="no classes"):
        load(NAME, class_id=0)


def test_digest_depends_on_the_network_not_the_settings(
    golden_network: Callable[[str], StyleGAN2], load: LoadGenerator
) -> None:
    assert load(truncation=0.5).digest == load(precision="bfloat16").digest
    changed = golden_network(NAME)
    changed.mapping.w_avg += 1
    config = StyleGAN2Config(weights="")
    digests = [StyleGAN2Generator(n, config).digest for n in (golden_network(NAME), changed)]
    assert digests[0] != digests[1]


def test_folders_and_pickles_give_the_same_generator(
    golden_network: Callable, golden_arguments: Callable, ada_pickle: Callable, tmp_path: Path
) -> None:
    network = golden_network(NAME)
    save(network, tmp_path / "folder")
    (tmp_path / "net.pkl").write_bytes(ada_pickle(network, golden_arguments(NAME)))
    images, digests = [], set()
    for weights in (tmp_path / "folder", tmp_path / "net.pkl"):
        generator = StyleGAN2Generator.load(StyleGAN2Config(weights=str(weights)), "cpu")
        images.append(generator.sample([0, 1])[0])
        digests.add(generator.digest)
    assert torch.equal(images[0], images[1])
    assert len(digests) == 1
    with pytest.raises(FileNotFoundError, match="no StyleGAN2 generator"):
        load_network(str(tmp_path / "none"))


def test_broken_weights_are_one_clear_line(tiny_config: NetworkConfig) -> None:
    network = StyleGAN2(tiny_config)
    network.synthesis.b16.torgb.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        StyleGAN2Generator(network, StyleGAN2Config(weights=""), "cpu").sample([0])
