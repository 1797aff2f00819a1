"""Sampling and encoding with a tiny diffusion model."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch import _inductor as inductor

import generators
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import DDPMGenerator, build_unet, map_place, weights_digest
from generators.ddpm.network import Network
from generators.ddpm.noise import NoiseModel
from generators.ddpm.training import noise_schedule

PACKAGED = Path(__file__).parents[3] / "factory" / "demo" / "generator"
FEATURES = FeatureConfig(blocks=(0, 2), timesteps=(50, 250))


def load(weights: Path, **settings) -> DDPMGenerator:
    settings = {"steps": 4, "features": FEATURES} | settings
    return DDPMGenerator.load(DDPMConfig(weights=str(weights), **settings), device="cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++", "unipc"])
def test_sample_depends_on_its_index_alone(
    tiny_weights: Path, sampler: str, precision: str
) -> None:
    eta = 0.5 if sampler == "ddim" else 0.0
    generator = load(tiny_weights, sampler=sampler, eta=eta, precision=precision, batch_size=8)
    together, maps = generator.sample([3, 8, 5])
    assert together.shape == (3, 3, 16, 16)
    assert together.dtype == torch.uint8
    assert (together[0].int() - together[1].int()).abs().max() > 10
    assert maps.spec == generator.feature_spec
    again, _ = generator.sample([3, 8, 5])
    assert torch.equal(again, together)
    # Batch composition may change float sums in the last bits: one grey level after rounding.
    for others, row in (([8], 0), ([8, 0, 1, 2, 4, 6, 7], 0), ([*range(7), 8], 7)):
        images, other_maps = generator.sample(others)
        assert len(images) == len(others) == other_maps.batch_size
        assert (images[row].int() - together[1].int()).abs().max() <= 1
        for name in maps:
            # An image one level apart has slightly different features.
            error = (other_maps[name][row] - maps[name][1]).abs().mean()
            assert error < 0.02 * maps[name][1].abs().mean()


def test_large_networks_run_one_by_one_on_a_cpu(tmp_path: Path) -> None:
    """Not filled to `batch_size`, and with the same bytes in any batch, bfloat16 included."""
    unet = build_unet(256, (16, 16), resnets_per_level=1, attention_levels=0)
    unet.save_pretrained(tmp_path)
    generator = load(tmp_path, precision="bfloat16", batch_size=3, steps=1)
    assert generator.pass_size == 1
    images, maps = generator.sample([4, 5])
    alone, own_maps = generator.sample([5])
    assert torch.equal(images[1], alone[0])
    assert torch.equal(generator.sample_images([4, 5]), images)
    encoded = generator.encode(images, [4, 5])
    for name, h in maps.items():
        assert torch.equal(h[1], own_maps[name][0])
        assert torch.equal(h, encoded[name])
    small = load(PACKAGED, batch_size=3)
    assert small.pass_size == small.batch_size == 3


def test_times_are_embedded_once(tiny_weights: Path) -> None:
    generator = load(tiny_weights, steps=4)
    embedded = []
    generator.network.unet.time_embedding.register_forward_hook(lambda *_: embedded.append(1))
    images, maps = generator.sample([0, 1])
    assert len(embedded) == 4 + 1  # the features are one pass
    again, other_maps = generator.sample([0, 1])
    assert len(embedded) == 5
    assert torch.equal(again, images)
    assert all(torch.equal(other_maps[name], maps[name]) for name in maps)
    for t in range(2000):
        generator.network(torch.zeros(1, 3, 16, 16), torch.tensor([t]))
    assert len(generator.network._embeddings) <= 1024


def test_bfloat16_changes_images_by_a_few_grey_levels(tiny_weights: Path) -> None:
    exact = load(tiny_weights, precision="float32").sample_images([0, 1, 2]).int()
    fast = load(tiny_weights, precision="bfloat16").sample_images([0, 1, 2]).int()
    assert 0 < (fast - exact).abs().float().mean() < 1


def test_the_seed_changes_every_sample(tiny_weights: Path) -> None:
    first, _ = load(tiny_weights, seed=0).sample([0, 1])
    other, _ = load(tiny_weights, seed=1).sample([0, 1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_features_of_a_sample_equal_those_of_its_saved_image(tiny_weights: Path) -> None:
    generator = load(tiny_weights, precision="float32")
    images, maps = generator.sample([0, 1])
    again = generator.encode(images, [0, 1])
    assert list(maps) == ["t50.b0", "t50.b2", "t250.b0", "t250.b2"]
    for name in maps:
        torch.testing.assert_close(maps[name], again[name], rtol=0, atol=0)


def test_low_precision_pads_batches_of_samples_but_not_of_real_images(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load(tiny_weights, precision="bfloat16", batch_size=16)
    network, rows = generator.network, []

    def watched(x, *args, **kwargs):
        rows.append(len(x))
        return network(x, *args, **kwargs)

    monkeypatch.setattr(generator, "network", watched)
    images, _ = generator.sample([0, 1])
    assert rows == [16] * 4 + [2 * 16]  # the sampler's steps, then both timesteps of features
    rows.clear()
    maps = generator.encode(images)
    assert rows == [2 * 2]
    assert maps.batch_size == 2


def test_the_feature_spec_matches_the_samples(tiny_weights: Path) -> None:
    for record in ("renoise", "trajectory"):
        features = FeatureConfig(blocks=(0, 1, 2), timesteps=(249, 499), record=record)
        generator = load(tiny_weights, features=features)
        assert generator.feature_spec == generator.sample([0])[1].spec


def test_recording_changes_features_and_nothing_else(tiny_weights: Path) -> None:
    """A recorder gives what a generator with these features would; the original is unchanged."""
    generator = load(tiny_weights, precision="float32")
    recorder = generator.recording([1], [7, 50])
    images = generator.sample_images([0, 1])
    wanted = load(
        tiny_weights,
        precision="float32",
        features=FeatureConfig(blocks=(1,), timesteps=(7, 50)),
    )
    assert recorder.feature_spec == wanted.feature_spec
    expected = wanted.encode(images)
    for name, maps in recorder.encode(images).items():
        assert torch.equal(maps, expected[name])
    assert generator.feature_spec == load(tiny_weights).feature_spec
    assert recorder.digest == generator.digest
    assert [map_place(m.name) for m in recorder.feature_spec] == [(7, 1), (50, 1)]
    assert map_place("regions") is None
    last = generator.block_count - 1
    with pytest.raises(ValueError, match=rf"this U-Net has blocks 0 to {last}"):
        generator.recording([last + 1], [0])
    with pytest.raises(ValueError, match=r"timesteps .* do not exist"):
        generator.recording([0], [generator.timestep_count])


def test_noise_policies(tiny_weights: Path) -> None:
    image = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8).repeat(2, 1, 1, 1)

    def maps(noise: str):
        features = FeatureConfig(blocks=(0,), timesteps=(100, 101), noise=noise)
        return load(tiny_weights, features=features).encode(image)

    for policy, same_in_batch in (("shared", True), ("per_timestep", True), ("fresh", False)):
        for tensor in maps(policy).values():
            assert torch.allclose(tensor[0], tensor[1], atol=1e-5) is same_in_batch

    def apart(noise: str) -> float:  # between two neighbouring timesteps
        a, b = maps(noise).values()
        return float((a - b).abs().mean())

    assert apart("shared") < 0.1 * apart("per_timestep")


def test_zero_terminal_snr_sampling_starts_from_noise_alone(tiny_weights: Path) -> None:
    generator = load(tiny_weights)
    assert float(generator.schedule.alphas_cumprod[-1]) == 0.0


def test_digest_depends_on_the_weights_not_the_settings(tiny_weights: Path) -> None:
    assert load(tiny_weights, steps=2).digest == load(tiny_weights, steps=3).digest
    original = load(tiny_weights, precision="bfloat16")
    assert original.digest == load(tiny_weights, precision="float32").digest
    unet, schedule, noise = load_unet(str(tiny_weights))
    with torch.no_grad():
        unet.conv_in.bias[0] += 1
    assert DDPMGenerator(unet, schedule, noise, original.config).digest != original.digest


def test_digest_depends_on_the_number_of_attention_heads(tiny_weights: Path) -> None:
    unet, schedule, noise = load_unet(str(tiny_weights))
    digest = weights_digest(unet, schedule, noise)
    assert digest == weights_digest(*load_unet(str(tiny_weights)))
    unet.mid_block.attentions[0].heads *= 2
    assert digest != weights_digest(unet, schedule, noise)


def test_missing_weights_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no generator at .*train-generator"):
        generators.load(DDPMConfig(weights=str(tmp_path)))


def test_truncated_weights_are_one_clear_line(tiny_weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for source in tiny_weights.rglob("*"):
        if source.is_file():
            target = copy / source.relative_to(tiny_weights)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot read the U-Net weights"):
        load(copy)


def test_settings_out_of_range_are_refused(tiny_weights: Path) -> None:
    with pytest.raises(ValueError, match=r"blocks \[7\] do not exist"):
        load(tiny_weights, features=FeatureConfig(blocks=(7,)))
    with pytest.raises(ValueError, match=r"timesteps \[1000\] do not exist"):
        load(tiny_weights, features=FeatureConfig(blocks=(1,), timesteps=(1000,)))
    few = DDPMScheduler(num_train_timesteps=300)
    config = DDPMConfig(weights="", steps=301, features=FEATURES)
    with pytest.raises(ValueError, match=r"steps is 301, but the noise schedule has 300 timest"):
        DDPMGenerator(load_unet(str(tiny_weights))[0], few, NoiseModel(), config, device="cpu")
    with pytest.raises(ValueError, match="ascending"):
        FeatureConfig(blocks=(3, 1))
    with pytest.raises(ValueError, match="images are"):
        load(tiny_weights).encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_call_takes_one_batch(tiny_weights: Path, precision: str) -> None:
    generator = load(tiny_weights, precision=precision, batch_size=2)
    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    for call in (generator.sample, generator.sample_images):
        with pytest.raises(ValueError, match="found a batch of 3 images, expected 1 to 2"):
            call(range(3))
    with pytest.raises(ValueError, match="found a batch of 3 images, expected 1 to 2"):
        generator.encode(images)
    assert generator.encode(images[:2]).batch_size == generator.batch_size == 2


# --- features from the sampler's own passes ---------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++", "unipc"])
def test_trajectory_features_come_from_the_samplers_own_passes(
    tiny_weights: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = FeatureConfig(blocks=(0, 2), timesteps=(249, 499), record="trajectory")
    generator = load(tiny_weights, sampler=sampler, features=features)
    passes: list[tuple[torch.Tensor, int]] = []
    network = generator.network

    def watched(x, t, *args, **kwargs):
        passes.append((x.clone(), t.tolist()))
        return network(x, t, *args, **kwargs)

    monkeypatch.setattr(generator, "network", watched)
    images, maps = generator.sample([0, 1])
    assert [t for _, t in passes] == [[999], [749], [499], [249]]
    assert torch.equal(images, load(tiny_weights, sampler=sampler).sample_images([0, 1]))
    assert list(maps) == ["t249.b0", "t249.b2", "t499.b0", "t499.b2"]
    for x, (t,) in passes[2:]:
        _, expected = network(x, torch.tensor([t]), None, (0, 2))
        assert torch.equal(maps[f"t{t}.b2"], expected[2][:2])  # the batch may be padded
    # Photographs have no trajectory: they are noised, as by default.
    renoised = load(tiny_weights, features=FeatureConfig(blocks=(0, 2), timesteps=(249, 499)))
    for name, h in generator.encode(images).items():
        assert torch.equal(h, renoised.encode(images)[name])
    assert generator.feature_settings["features.record"] == "trajectory"
    assert renoised.feature_settings["features.record"] == "renoise"


def test_a_sampler_that_skips_the_timesteps_is_refused_with_those_it_visits(
    tiny_weights: Path,
) -> None:
    features = FeatureConfig(blocks=(0,), timesteps=(50, 249, 600), record="trajectory")
    message = (
        r"dpmsolver\+\+ in 4 steps does not visit the feature timesteps \[50, 600\]: set "
        r"generator.features.timesteps=\[249, 499\] .*record=renoise"
    )
    with pytest.raises(ValueError, match=message):
        load(tiny_weights, features=features)


# --- class-conditional networks ---------------------------------------------------------------


def conditional(**settings) -> DDPMGenerator:
    """An untrained network of 5 classes that differ strongly."""
    torch.manual_seed(0)
    plain = build_unet(16, (8, 16), resnets_per_level=1, attention_levels=0)
    kept = {key: value for key, value in plain.config.items() if not key.startswith("_")}
    unet = type(plain)(**(kept | {"num_class_embeds": 5}))
    torch.nn.init.normal_(unet.class_embedding.weight, std=5)
    config = DDPMConfig(weights="cond", steps=4, precision="float32", features=FEATURES, **settings)
    schedule = noise_schedule("v_prediction")
    return DDPMGenerator(unet, schedule, NoiseModel(0.1), config, device="cpu")


def test_samples_and_photographs_share_a_fixed_class() -> None:
    first, second = conditional(class_id=0), conditional(class_id=4)
    assert not torch.equal(first.sample_images([0]), second.sample_images([0]))
    images, maps = first.sample([0, 1])
    assert (first.feature_settings["class_id"], second.feature_settings["class_id"]) == (0, 4)
    for name, h in first.encode(images).items():
        assert torch.equal(h, maps[name])
        assert not torch.allclose(h, second.encode(images)[name])


def test_random_classes_are_drawn_from_the_samples_seeds() -> None:
    drawn, fixed = conditional(class_id="random"), [conditional(class_id=c) for c in range(5)]
    indices = range(8)
    images = drawn.sample_images(indices)
    of_class = torch.stack([g.sample_images(indices) for g in fixed])
    apart = (of_class.int() - images.int()).abs().amax((2, 3, 4))  # [classes, samples]
    assert (apart.min(0).values <= 1).all()
    assert len(set(apart.argmin(0).tolist())) > 1
    alone = drawn.sample_images([5])
    assert (alone[0].int() - images[5].int()).abs().max() <= 1
    # The class of a photograph is unknown, so features of samples do not depend on theirs either.
    photographs, maps = drawn.sample([3, 4])
    for name, h in drawn.encode(photographs, [7, 8]).items():
        assert torch.equal(h, maps[name])


def test_a_class_is_required_if_and_only_if_there_are_classes(tiny_weights: Path) -> None:
    with pytest.raises(ValueError, match=r"class_id is 3, but the network of .* has no classes"):
        load(tiny_weights, class_id=3)
    for class_id in (None, 5):
        with pytest.raises(ValueError, match=rf"class_id is {class_id}.* has classes 0 to 4"):
            conditional(class_id=class_id)
    with pytest.raises(ValueError, match="class_id"):
        DDPMConfig(weights="", class_id=-1)


# --- compilation ------------------------------------------------------------------------------


@pytest.fixture
def network() -> Network:
    """Untrained, with few kernels; nothing that another test compiled is reused."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    unet = build_unet(8, (8,), resnets_per_level=1, attention_levels=0)
    return Network(unet, torch.device("cpu"), compile=True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a compiler")
@inductor.config.patch({"cpp.simdlen": 1})  # compiles faster
def test_a_compiled_network_computes_the_same(network: Network) -> None:
    first, second = torch.randn(2, 1, 3, 8, 8)
    t, blocks = torch.tensor([9]), (1,)
    plain = Network(network.unet, torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as the one about continuing without it
        output, maps = network(first, t, None, blocks)
    kept, kept_map = output.clone(), maps[1].clone()
    again = network(second, t, None, blocks)
    for x, (found, found_maps) in ((first, (output, maps)), (second, again)):
        expected, expected_maps = plain(x, t, None, blocks)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found_maps[1], expected_maps[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(output, kept)
    assert torch.equal(maps[1], kept_map)


@pytest.mark.slow
def test_without_a_compiler_the_network_runs_uncompiled(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([9])
    expected, _ = Network(network.unet, torch.device("cpu"))(x, t)
    no_compiler = inductor.config.patch({"cpp.cxx": (None, str(tmp_path / "no-compiler"))})
    with (
        no_compiler,
        pytest.warns(UserWarning, match=r"^continuing without generator.compile: .*compiler.*$"),
    ):
        output, _ = network(x, t)
    assert torch.equal(output, expected)


def test_a_start_for_segmenters_is_exact_whatever_the_precision(tiny_weights: Path) -> None:
    exact = load(tiny_weights, precision="float32").describe_unet()
    fast = load(tiny_weights, precision="bfloat16").describe_unet()
    assert fast.config == exact.config
    assert all(torch.equal(fast.weights[name], exact.weights[name]) for name in exact.weights)
