"""Tiny random networks against their outputs in the original program."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import CONST, StyleGAN2, SynthesisLayer
from generators.stylegan2.resample import fir_filter, upsample

GOLDEN = Path(__file__).parents[2] / "golden" / "stylegan2"
NAMES = ("net_b_map2_r32", "net_c_cond3_map2_r32", "net_d_clamp1p5_r32")
TRUNCATION = {"psi1": (1.0, None), "psi0.7": (0.7, None), "psi0.7_cut4": (0.7, 4)}


def assert_close(actual: Tensor, expected: np.ndarray | Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    actual, expected = actual.detach(), torch.as_tensor(expected).detach()
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
class TestGolden:
    @pytest.fixture
    def network(self, name: str, golden_network: Callable[[str], StyleGAN2]) -> StyleGAN2:
        return golden_network(name)

    @pytest.fixture
    def golden(self, name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.golden.npz") as file:
            return {key: torch.from_numpy(file[key]) for key in file}

    def test_w(self, network: StyleGAN2, golden: dict[str, Tensor]) -> None:
        w = network.mapping(golden["z"], golden["c"])
        for key, (psi, cutoff) in TRUNCATION.items():
            assert_close(network.mapping.broadcast(w, psi, cutoff), golden[f"w/{key}"])

    def test_w_of_a_tiny_z(self, network: StyleGAN2, golden: dict[str, Tensor]) -> None:
        w = network.mapping(golden["z_tiny"], golden["c"])
        assert_close(network.mapping.broadcast(w), golden["w/z_tiny"])

    @pytest.mark.parametrize("noise", ["const", "none"])
    @pytest.mark.parametrize("gradients", [False, True])
    def test_images(
        self, network: StyleGAN2, golden: dict[str, Tensor], noise: str, gradients: bool
    ) -> None:
        for key in TRUNCATION:
            with torch.set_grad_enabled(gradients):
                image, _ = network.synthesis(golden[f"w/{key}"], noise)
            assert_close(image, golden[f"img/{key}/{noise}"])

    def test_images_of_mixed_styles(self, network: StyleGAN2, golden: dict[str, Tensor]) -> None:
        image, _ = network.synthesis(golden["w/mixed"])
        assert_close(image, golden["img/mixed/const"])

    def test_every_activation(self, network: StyleGAN2, golden: dict[str, Tensor]) -> None:
        found: dict[str, Tensor] = {}
        for path, module in network.named_modules():
            path = path.removeprefix("synthesis.")
            if f"act/{path}" in golden:
                module.register_forward_hook(
                    lambda _, inputs, output, path=path: found.update({path: output.clone()})
                )
        w = network.mapping(golden["z"], golden["c"])
        with torch.inference_mode():
            _, kept = network.synthesis(network.mapping.broadcast(w), keep=network.synthesis.layers)
        expected = {key.removeprefix("act/") for key in golden if key.startswith("act/")}
        assert set(found) == expected
        assert set(kept) == {path for path in expected if "conv" in path}
        for path in expected:
            assert_close(found[path], golden[f"act/{path}"])
        for path, activation in kept.items():  # kept until the end of the pass, unchanged
            assert_close(activation, golden[f"act/{path}"])

    def test_unfused_equals_fused(self, network: StyleGAN2, golden: dict[str, Tensor]) -> None:
        image, _ = network.synthesis(golden["w/psi1"])
        assert_close(image, golden["img_unfused/psi1/const"])
        assert_close(image, golden["img/psi1/const"])


@pytest.mark.parametrize("up", [False, True])
def test_scaled_activations_equal_scaled_weights(tiny_config: NetworkConfig, up: bool) -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(6, 5, 8, up=up, config=tiny_config)
    x, w = torch.randn(3, 6, 8 // (1 + up), 8 // (1 + up)), torch.randn(3, 8)
    weight = layer.weight * layer.affine(w)[:, None, :, None, None]  # Eq. 1, [N, O, I, 3, 3]
    weight = weight / (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()  # Eq. 3
    expected = []
    for image, kernel in zip(x, weight, strict=True):
        if up:
            y = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
            fir = (fir_filter() * 4).expand(5, 1, 4, 4)
            y = F.conv2d(F.pad(y, (1, 1, 1, 1)), fir, groups=5)
        else:
            y = F.conv2d(image[None], kernel, padding=1)
        expected.append(F.leaky_relu(y, 0.2) * 2**0.5)
    assert_close(layer(x, w, noise=None), torch.cat(expected))


def build(config: NetworkConfig, **settings: object) -> StyleGAN2:
    torch.manual_seed(0)
    network = StyleGAN2(config.model_copy(update=settings)).eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, SynthesisLayer):
            layer.noise_strength.data.fill_(0.3)
            layer.bias.data.normal_()
    return network


def some_ws(network: StyleGAN2, n: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, network.config.num_ws, network.config.w_dim, generator=rng)


@pytest.mark.parametrize("resolution", [8, 64, 256])
def test_any_power_of_two(tiny_config: NetworkConfig, resolution: int) -> None:
    network = build(tiny_config, resolution=resolution, channel_base=512)
    image, kept = network.synthesis(some_ws(network, 1), keep=network.synthesis.layers)
    assert image.shape == (1, 3, resolution, resolution)
    assert list(kept) == list(network.synthesis.layers)
    assert [x.shape[-1] for x in kept.values()] == sorted(x.shape[-1] for x in kept.values())


@pytest.mark.parametrize(("base", "channels"), [(16384, 4480), (32768, 5376)])
def test_feature_channels_at_256(base: int, channels: int) -> None:
    config = NetworkConfig(resolution=256, channel_base=base)
    with torch.device("meta"):
        layers = StyleGAN2(config).synthesis.layers
    assert sum(config.channels(int(name[1:].split(".")[0])) for name in layers) == channels


def test_residual_architecture(tiny_config: NetworkConfig) -> None:
    """y = up2(skip(x)/√I)·√.5; x = y + conv1(gain √.5): computed here from the parts."""
    network = build(tiny_config, resolution=8, architecture="resnet", conv_clamp=1.0)
    ws = some_ws(network)
    synthesis = network.synthesis
    image, kept = synthesis(ws, noise="none", keep=(*synthesis.layers, CONST))
    x = synthesis.b4.conv1(kept[CONST], ws[:, 0], None)
    assert_close(kept["b4.conv1"], x)
    weight = synthesis.b8.skip.weight / x.shape[1] ** 0.5
    residual = upsample(F.conv2d(x, weight)) * 0.5**0.5
    x = synthesis.b8.conv0(x, ws[:, 1], None)
    x = synthesis.b8.conv1(x, ws[:, 2], None, gain=0.5**0.5)
    assert float(x.detach().abs().max()) <= 0.5**0.5 + 1e-6  # the clamp follows the gain
    assert_close(image, synthesis.b8.torgb(residual + x, ws[:, 3]))
    assert [n for n, _ in synthesis.named_modules() if n.endswith("torgb")] == ["b8.torgb"]


def test_original_architecture_produces_colours_only_at_the_end(tiny_config: NetworkConfig) -> None:
    network = build(tiny_config, architecture="orig")
    assert [n for n, _ in network.named_modules() if n.endswith("torgb")] == ["synthesis.b16.torgb"]
    ws = some_ws(network)
    image, kept = network.synthesis(ws, keep=network.synthesis.layers)
    assert_close(image, network.synthesis.b16.torgb(kept["b16.conv1"], ws[:, -1]))


def test_each_w_steers_its_own_layers(tiny_config: NetworkConfig) -> None:
    network = build(tiny_config)
    ws = some_ws(network, 1)
    image, kept = network.synthesis(ws, keep=network.synthesis.layers)
    for i in range(network.config.num_ws):
        moved = ws.clone()
        moved[:, i] += 1
        other, changed = network.synthesis(moved, keep=network.synthesis.layers)
        first = [n for n in kept if not torch.allclose(kept[n], changed[n], atol=1e-4)]
        # Layer i is the first to change; the last w is that of the last toRGB alone.
        assert first == list(network.synthesis.layers[i:])
        assert not torch.allclose(image, other, atol=1e-4)


def test_random_noise_is_drawn_for_each_sample(tiny_config: NetworkConfig) -> None:
    network = build(tiny_config)
    ws = some_ws(network, 1).repeat(3, 1, 1)

    def images(*seeds: int) -> Tensor:
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return network.synthesis(ws[: len(seeds)], "random", rngs)[0]

    together = images(4, 5, 4)
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    assert_close(images(5)[0], together[1])


class TestLowPrecision:
    """bfloat16 in all blocks, float16 in those meant for it: nearly the results of float32."""

    def test_bfloat16(self, tiny_config: NetworkConfig) -> None:
        network = build(tiny_config)
        ws = some_ws(network)
        exact, _ = network.synthesis(ws)
        image, kept = network.synthesis(ws, dtype=torch.bfloat16, keep=network.synthesis.layers)
        assert image.dtype == torch.float32
        assert {x.dtype for x in kept.values()} == {torch.bfloat16}
        assert 1e-4 < float((image - exact).abs().max() / exact.abs().max()) < 0.05

    @pytest.mark.parametrize(("blocks", "half"), [(0, ()), (1, (16,)), (2, (8, 16)), (4, (8, 16))])
    def test_float16_blocks(
        self, tiny_config: NetworkConfig, blocks: int, half: tuple[int, ...]
    ) -> None:
        network = build(tiny_config, num_fp16_res=blocks)
        ws = some_ws(network)
        exact, _ = network.synthesis(ws)
        image, kept = network.synthesis(ws, dtype=torch.float16, keep=network.synthesis.layers)
        for name, x in kept.items():
            resolution = int(name[1:].split(".")[0])
            assert x.dtype == (torch.float16 if resolution in half else torch.float32), name
        assert float((image - exact).abs().max() / exact.abs().max()) < 0.01

    def test_float16_does_not_overflow_with_large_weights(self, tiny_config: NetworkConfig) -> None:
        network = build(tiny_config, num_fp16_res=2)
        for block in (network.synthesis.b8, network.synthesis.b16):
            for layer in (block.conv0, block.conv1):
                layer.weight.data *= 1e4
                layer.affine.weight.data *= 100
        image, _ = network.synthesis(some_ws(network), dtype=torch.float16)
        assert image.isfinite().all()
