"""StyleGAN2 for `benchmarks.sampling`: our synthesis, and two plain ones."""

from __future__ import annotations

import argparse
import copy

import torch
from torch import Tensor

from benchmarks.contenders import OnePass, Run
from benchmarks.counting import Work, count
from benchmarks.plain_stylegan2 import (
    Modulated,
    modulate_activations,
    modulate_weights,
    synthesise,
)
from factory_core.device import pick_dtype
from generators.stylegan2.config import NetworkConfig, StyleGAN2Config
from generators.stylegan2.model import StyleGAN2Generator, to_uint8
from generators.stylegan2.network import StyleGAN2

TOLERANCE = 1e-4  # relative to the largest value of an image, between two float32 ways
PLAIN: dict[str, Modulated] = {
    "plain": modulate_weights,
    "plain, unfused": modulate_activations,
}


class Adversarial:
    """A StyleGAN2 with random weights, of the shape given by the options."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        shape = NetworkConfig(resolution=options.resolution, channel_base=options.channel_base)
        torch.manual_seed(0)
        self.network = StyleGAN2(shape).requires_grad_(False).eval()
        for name, parameter in self.network.synthesis.named_parameters():
            if name.endswith(("conv0.bias", "conv1.bias", "torgb.bias", "noise_strength")):
                parameter.normal_(std=0.1)  # with zeros, a missing one would go unnoticed
        self.title = f"stylegan2 {shape.resolution} x {shape.resolution}"
        self.dtype = pick_dtype(options.precision, options.device)
        self.work = our_work(shape, self.dtype)
        self.parts, before = {}, 0.0
        for resolution in shape.block_resolutions[1:]:  # 8 x 8 is the smallest network
            part = shape.model_copy(update={"resolution": resolution})
            flops = our_work(part, self.dtype).flops
            self.parts[f"{resolution} x {resolution}"], before = flops - before, flops

    def cost(self) -> str:
        parameters = sum(p.numel() for p in self.network.parameters())
        return f"{parameters / 1e6:.1f} M parameters; an image with its features is one pass"

    def runs(self, batch_size: int) -> list[Run]:
        runs = [self._plain(name, batch_size) for name in PLAIN] if self.options.plain else []
        # Also in float32, to separate our gain from that of the number format.
        runs.append(self._ours("float32", batch_size))
        if self.dtype is not torch.float32:
            runs.append(self._ours(self.options.precision, batch_size))
        return runs

    def _plain(self, name: str, batch_size: int) -> Run:
        """Features are free here: the loop has all activations at hand."""
        ours, indices = self._generator("float32", batch_size), range(batch_size)
        network, modulated = ours.network, PLAIN[name]
        same, _ = network.synthesis(ours.latents(indices))
        found, _ = synthesise(network, ours.latents(indices), modulated)
        worst = float((found - same).abs().max() / same.abs().max())
        if worst > TOLERANCE:
            raise AssertionError(f"{name}: its images differ from ours by {worst:.1e}")
        return Run(
            name,
            torch.float32,
            batch_size,
            lambda: to_uint8(synthesise(network, ours.latents(indices), modulated)[0]).cpu(),
            lambda _: None,
            plain_work(self.network.config, modulated),
        )

    def _ours(self, precision: str, batch_size: int) -> Run:
        generator, indices = self._generator(precision, batch_size), range(batch_size)

        @torch.inference_mode()
        def images() -> Tensor:
            ws = generator.latents(indices)
            return to_uint8(generator.network.synthesis(ws, dtype=generator.dtype)[0]).cpu()

        return OnePass(
            "ours",
            generator.dtype,
            batch_size,
            images,
            lambda _: generator.sample(indices),
            our_work(self.network.config, generator.dtype),
        )

    def _generator(self, precision: str, batch_size: int) -> StyleGAN2Generator:
        config = StyleGAN2Config.model_validate(
            {"weights": "", "precision": precision, "batch_size": batch_size}
        )
        return StyleGAN2Generator(copy.deepcopy(self.network), config, str(self.options.device))


def our_work(shape: NetworkConfig, dtype: torch.dtype) -> Work:
    """Work of one image with its features, counted on the meta device without computing."""
    with torch.device("meta"):
        synthesis = StyleGAN2(shape).synthesis
        ws = torch.empty(1, shape.num_ws, shape.w_dim)
    with torch.no_grad():
        synthesis.freeze(dtype)
    return count(lambda: synthesis(ws, dtype=dtype, keep=synthesis.layers))


def plain_work(shape: NetworkConfig, modulated: Modulated) -> Work:
    """The same for a plain loop."""
    with torch.device("meta"):
        network, ws = StyleGAN2(shape), torch.empty(1, shape.num_ws, shape.w_dim)
    return count(lambda: synthesise(network, ws, modulated))
