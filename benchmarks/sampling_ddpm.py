"""A diffusion model for `benchmarks.sampling`: our sampler, and the plain loop of diffusers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor, nn

from benchmarks.contenders import PLAIN, STRONG, Run
from benchmarks.counting import Work, count
from factory_core.device import pick_dtype
from generators.ddpm.architecture import Architecture
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig, FeatureConfig
from generators.ddpm.guided_diffusion import build_unet
from generators.ddpm.guided_settings import Settings, noise_schedule
from generators.ddpm.model import DDPMGenerator, to_uint8, to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.ddpm.unet import cast_weights, default_blocks, embed, walk

DEMO = Path(__file__).parents[1] / "factory" / "demo" / "generator"
LSUN = Architecture(
    time_channels=256,
    channels=(256, 256, 512, 512, 1024, 1024),
    resnets_per_level=2,
    attends=(False, False, False, True, True, True),
)
LSUN_REDUCED = Architecture(
    time_channels=32,
    channels=(32, 32, 64, 64, 128, 128),
    resnets_per_level=2,
    attends=(False, False, False, True, True, True),
)
Model = tuple[UNet2DModel, DDPMScheduler, NoiseModel]


def load_network(name: str, reduced: bool, device: torch.device) -> Model:
    """The weights named by `--network`; a new float32 copy at each call."""
    if name == "demo":
        return load_unet(str(DEMO))
    if name != "lsun":
        return load_unet(name)
    net = LSUN_REDUCED if reduced else LSUN
    settings = Settings.choose(net, image_size=64 if reduced else 256)
    unet = build_unet(net, settings)
    if device.type != "meta":
        unet.to_empty(device=device)
        torch.manual_seed(0)
        for module in unet.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return unet, noise_schedule(net, settings), NoiseModel()


# --- the plain loop ---------------------------------------------------------------------------


def block_outputs(unet: UNet2DModel) -> list[nn.Module]:
    """The module that ends each decoder block: its layer, attention or upsampling."""
    ends: list[nn.Module] = []
    for up in unet.up_blocks:
        ends += getattr(up, "attentions", None) or up.resnets
        if up.upsamplers:
            ends[-1] = up.upsamplers[0]
    return ends


class PlainLoop:
    """Sampling and features in plain diffusers code.

    With `dtype`, under autocast to it and with the weights channels last.
    """

    def __init__(
        self,
        model: Model,
        config: DDPMConfig,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ):
        unet, self.schedule, _ = model
        self.unet, self.config, self.device = unet.to(device).eval(), config, device
        if dtype is not None:
            self.unet.to(memory_format=torch.channels_last)
        is_low = dtype not in (None, torch.float32)
        self.autocast = torch.autocast(device.type, dtype, enabled=is_low)
        self.blocks = default_blocks(unet)
        self.shape = (config.batch_size, 3, unet.config.sample_size, unet.config.sample_size)

    @torch.no_grad()
    def sample_images(self) -> Tensor:
        """uint8 `[N, 3, H, W]`."""
        x = torch.randn(self.shape).to(self.device)
        scheduler = DPMSolverMultistepScheduler.from_config(
            self.schedule.config, timestep_spacing="trailing"
        )
        scheduler.set_timesteps(self.config.steps)
        for t in scheduler.timesteps:
            with self.autocast:
                output = self.unet(x, t).sample
            x = scheduler.step(output.float(), t, x).prev_sample
        return to_uint8(x).cpu()

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """The activations per timestep and block."""
        x_0 = to_unit_range(images.to(self.device))
        eps = torch.randn(1, *self.shape[1:]).to(self.device)
        recorded: list[Tensor] = []
        outputs = block_outputs(self.unet)
        hooks = [
            outputs[block].register_forward_hook(lambda _m, _i, out: recorded.append(out))
            for block in self.blocks
        ]
        for t in self.config.features.timesteps:
            with self.autocast:
                self.unet(self.schedule.add_noise(x_0, eps, torch.tensor(t)), t)
        for hook in hooks:
            hook.remove()
        return recorded


# --- counting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Work of one pass for one image."""

    parameters: int
    plain: Work  # by the network's forward in float32
    whole: Work  # by our walk
    features: Work  # up to the last feature block
    level_flops: dict[str, float]


def count_passes(network: str, reduced: bool, dtype: torch.dtype) -> Counts:
    """Count on the meta device, without computing anything."""
    unet = load_network(network, reduced, torch.device("meta"))[0].to("meta").eval()
    size, blocks = unet.config.sample_size, default_blocks(unet)
    x = torch.empty(1, 3, size, size, device="meta")
    plain = count(lambda: unet(x, torch.zeros(1, device="meta")))
    cast_weights(unet.to(memory_format=torch.channels_last), dtype)
    x = x.to(dtype, memory_format=torch.channels_last)
    emb = embed(unet, torch.zeros(1, device="meta"))
    whole = count(lambda: walk(unet, x, emb))
    # The share of a decoder block is the additional cost of a walk that includes it.
    ends = [0.0]
    for last in range(sum(len(up.resnets) for up in unet.up_blocks)):
        ends.append(count(partial(walk, unet, x, emb, [last], to_output=False)).flops)
    levels = {"encoder, middle and block 0": ends[1]}
    levels |= {f"block {i}": end - ends[i] for i, end in enumerate(ends[1:]) if i > 0}
    return Counts(
        parameters=sum(p.numel() for p in unet.parameters()),
        plain=plain,
        whole=whole,
        features=count(lambda: walk(unet, x, emb, blocks, to_output=False)),
        level_flops=levels | {"output": whole.flops - ends[-1]},
    )


# --- measuring --------------------------------------------------------------------------------


class Diffusion:
    """The diffusion model given by the options."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        dtype = pick_dtype(options.precision, options.device)
        self.counts = count_passes(options.network, options.reduced, dtype)
        self.parts = self.counts.level_flops
        passes = len(self._config(1).features.timesteps)
        self.work = self.counts.whole * options.steps + self.counts.features * passes
        self.plain_work = self.counts.plain * (options.steps + passes)
        self.title = f"{options.network}, {options.steps} steps"

    def cost(self) -> str:
        counts, config = self.counts, self._config(1)
        return (
            f"{counts.parameters / 1e6:.1f} M parameters; an image is {config.steps} passes + "
            f"{len(config.features.timesteps)} x {counts.features.flops / counts.whole.flops:.2f} "
            "of one for features"
        )

    def runs(self, batch_size: int) -> list[Run]:
        config = self._config(batch_size)
        runs = []
        if self.options.plain:
            dtype = pick_dtype(self.options.precision, self.options.device)
            runs = [self._plain(config, PLAIN), self._plain(config, STRONG, dtype)]
        for compiled in {"off": [False], "on": [True], "both": [False, True]}[self.options.compile]:
            runs.append(self._ours(config.model_copy(update={"compile": compiled})))
        return runs

    def _plain(self, config: DDPMConfig, name: str, dtype: torch.dtype | None = None) -> Run:
        loop = PlainLoop(self._model(), config, self.options.device, dtype)
        return Run(
            name,
            dtype or torch.float32,
            config.batch_size,
            loop.sample_images,
            loop.encode,
            self.plain_work,
        )

    def _ours(self, config: DDPMConfig) -> Run:
        generator = DDPMGenerator(*self._model(), config, str(self.options.device))
        indices = range(config.batch_size)
        return Run(
            "ours, compiled" if config.compile else "ours",
            generator.dtype,
            config.batch_size,
            lambda: generator.sample_images(indices),
            lambda images: generator.encode(images, indices),
            self.work,
        )

    def _model(self) -> Model:
        return load_network(self.options.network, self.options.reduced, self.options.device)

    def _config(self, batch_size: int) -> DDPMConfig:
        """The recipe section that is measured."""
        return DDPMConfig(
            weights=self.options.network,
            steps=self.options.steps,
            batch_size=batch_size,
            precision=self.options.precision,
            features=FeatureConfig(),
        )
