"""How fast images and their features are made, and how near that is to what the device can do.

    python -m benchmarks.sampling [--network demo|lsun|FOLDER|FILE] [--json FILE]
    python -m benchmarks.sampling --network lsun --count --peak 790 --bandwidth 4800

`ours` is what `generate` calls, `DDPMGenerator.sample_images` and then `encode`, as a recipe says.
`plain` is the loop of diffusers' DDPMPipeline with the same solver in as many steps: float32, the
network's `forward`, and for features one more whole pass a timestep, with hooks. They run in turn,
repeated; the figures are medians.

`used` is the arithmetic that was counted (products only; a multiply-add is two) over what a plain
matrix product of the same number format reaches in the same run. `bound` is what it could be if
products ran at that peak, and all other layers at the rate of a plain copy: no way to run the same
layers one by one is faster. What is between `used` and `bound` is lost in the kernels; what is
between `bound` and 100 % only fused layers (`--compile on`) give back.

On an accelerator the default is the network of LSUN at 256 x 256 with random weights (552.8 M
parameters), else the demo's. `--count` only counts, for a device of given rates, on any machine;
`--reduced` is the LSUN network with an eighth of the channels at 64 x 64.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.counting import Work, count, peak_bandwidth, peak_flops, seconds
from generators.config import DDPMConfig, FeatureConfig
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.guided_diffusion import Architecture, Settings, build_unet, noise_schedule
from generators.ddpm.model import DDPMGenerator, to_uint8, to_unit_range
from generators.ddpm.noise import NoiseModel
from generators.ddpm.unet import cast_weights, default_blocks, embed, walk
from generators.hardware import pick_device, pick_dtype

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
    """The weights that `--network` names; a fresh copy in float32 at each call."""
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


class PlainLoop:
    """Sampling and features as one writes them with diffusers."""

    def __init__(self, model: Model, config: DDPMConfig, device: torch.device):
        unet, self.schedule, _ = model
        self.unet, self.config, self.device = unet.to(device).eval(), config, device
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
            x = scheduler.step(self.unet(x, t).sample, t, x).prev_sample
        return to_uint8(x).cpu()

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[Tensor]:
        """Activations of each timestep and block."""
        x_0 = to_unit_range(images.to(self.device))
        eps = torch.randn(1, *self.shape[1:]).to(self.device)
        recorded: list[Tensor] = []
        resnets = [resnet for up in self.unet.up_blocks for resnet in up.resnets]
        hooks = [
            resnets[block].register_forward_hook(lambda _m, _i, out: recorded.append(out))
            for block in self.blocks
        ]
        for t in self.config.features.timesteps:
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
    """Count on the meta device, which computes nothing."""
    unet = load_network(network, reduced, torch.device("meta"))[0].to("meta").eval()
    size, blocks = unet.config.sample_size, default_blocks(unet)
    x = torch.empty(1, 3, size, size, device="meta")
    plain = count(lambda: unet(x, torch.zeros(1, device="meta")))
    cast_weights(unet.to(memory_format=torch.channels_last), dtype)
    x = x.to(dtype, memory_format=torch.channels_last)
    emb = embed(unet, torch.zeros(1, device="meta"))
    whole = count(lambda: walk(unet, x, emb))
    # The share of a decoder block is what the walk spends more if it goes on to it.
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


def counts_table(counts: Counts) -> Table:
    """Where the arithmetic of a pass is."""
    table = Table(title=f"a pass: {counts.whole.flops / 1e9:.5g} GFLOP")
    table.add_column("part")
    table.add_column("share", justify="right")
    for part, flops in counts.level_flops.items():
        table.add_row(part, f"{100 * flops / counts.whole.flops:.1f} %")
    return table


def work_of_image(counts: Counts, config: DDPMConfig) -> Work:
    """Of one image with its features, in our way."""
    return counts.whole * config.steps + counts.features * len(config.features.timesteps)


def summary(counts: Counts, config: DDPMConfig, peak: float | None, bandwidth: float | None) -> str:
    """What an image costs, and how many a second a device of these rates could make at best."""
    work, share = work_of_image(counts, config), counts.features.flops / counts.whole.flops
    lines = [
        f"{counts.parameters / 1e6:.1f} M parameters; an image is {config.steps} passes + "
        f"{len(config.features.timesteps)} x {share:.2f} of one for features: "
        f"{work.flops / 1e12:.4g} TFLOP of products, {work.other_bytes / 1e9:.4g} GB moved by "
        f"other layers"
    ]
    if peak and bandwidth:
        products, other = work.flops / peak, work.other_bytes / bandwidth
        lines.append(
            f"at {peak / 1e12:g} TFLOP/s and {bandwidth / 1e9:g} GB/s: {1 / products:.3g} images/s "
            f"by the products alone, {1 / (products + other):.3g} with all layers"
        )
    return "\n".join(lines)


# --- measuring --------------------------------------------------------------------------------


@dataclass
class Run:
    """One way to make images: what to call, what it costs, how long it took."""

    name: str
    dtype: torch.dtype
    batch_size: int
    images: Callable[[], Tensor]
    encode: Callable[[Tensor], object]
    work: Work  # of one image with its features
    image_seconds: list[float] = field(default_factory=list)  # of a batch each
    feature_seconds: list[float] = field(default_factory=list)

    def once(self, device: torch.device, keep: bool = True) -> None:
        """One batch, timed."""
        made: list[Tensor] = []
        image_seconds = seconds(lambda: made.append(self.images()), device)
        feature_seconds = seconds(lambda: self.encode(made[0]), device)
        if keep:
            self.image_seconds.append(image_seconds)
            self.feature_seconds.append(feature_seconds)

    @property
    def seconds(self) -> float:
        """Of one image with its features, median."""
        pairs = zip(self.image_seconds, self.feature_seconds, strict=True)
        return statistics.median(a + b for a, b in pairs) / self.batch_size

    @property
    def feature_share(self) -> float:
        """What features cost, relative to sampling alone."""
        pairs = zip(self.image_seconds, self.feature_seconds, strict=True)
        return statistics.median(b / a for a, b in pairs)


def plain_run(options: argparse.Namespace, config: DDPMConfig, counts: Counts) -> Run:
    model = load_network(options.network, options.reduced, options.device)
    loop = PlainLoop(model, config, options.device)
    work = counts.plain * (config.steps + len(config.features.timesteps))
    return Run("plain", torch.float32, config.batch_size, loop.sample_images, loop.encode, work)


def our_run(options: argparse.Namespace, config: DDPMConfig, counts: Counts) -> Run:
    model = load_network(options.network, options.reduced, options.device)
    generator = DDPMGenerator(*model, config, str(options.device))
    indices = range(config.batch_size)
    return Run(
        "ours, compiled" if config.compile else "ours",
        generator.dtype,
        config.batch_size,
        lambda: generator.sample_images(indices),
        lambda images: generator.encode(images, indices),
        work_of_image(counts, config),
    )


def measure(options: argparse.Namespace, counts: Counts) -> list[Run]:
    """All runs of all batch sizes, those of one batch size in turn."""
    done: list[Run] = []
    for batch_size in options.batch_size:
        config = config_of(options, batch_size)
        runs = [plain_run(options, config, counts)] if options.plain else []
        for compiled in {"off": [False], "on": [True], "both": [False, True]}[options.compile]:
            runs.append(our_run(options, config.model_copy(update={"compile": compiled}), counts))
        for repeat in range(options.repeats + 1):
            for run in runs:
                run.once(options.device, keep=repeat > 0)  # the first one warms up and compiles
        done += runs
    return done


def config_of(options: argparse.Namespace, batch_size: int) -> DDPMConfig:
    """The recipe's section that is measured."""
    return DDPMConfig(
        weights=options.network,
        steps=options.steps,
        batch_size=batch_size,
        precision=options.precision,
        features=FeatureConfig(),
    )


def results(runs: list[Run], device: torch.device) -> list[dict[str, Any]]:
    """Figures of each run, by name of the table's column."""
    peaks = {dtype: peak_flops(device, dtype) for dtype in {run.dtype for run in runs}}
    bandwidth = peak_bandwidth(device)
    plain = {run.batch_size: run.seconds for run in runs if run.name == "plain"}
    rows = []
    for run in runs:
        peak = peaks[run.dtype]
        bound = run.work.flops / peak + run.work.other_bytes / bandwidth
        rows.append(
            {
                "run": f"{run.name}, {str(run.dtype).removeprefix('torch.')}",
                "batch": run.batch_size,
                "images/s": 1 / run.seconds,
                "x plain": plain.get(run.batch_size, float("nan")) / run.seconds,
                "features": run.feature_share,
                "peak": peak / 1e12,
                "used": run.work.flops / run.seconds / peak,
                "bound": run.work.flops / peak / bound,
                "image_seconds": run.image_seconds,
                "feature_seconds": run.feature_seconds,
            }
        )
    return rows


def results_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The figures, without the single repeats.

    `features` is their time over that of sampling, `peak` TFLOP/s of a plain product, `used` the
    utilisation of it, `bound` the utilisation that memory would allow.
    """
    table = Table(title=title)
    shares = ("features", "used", "bound")
    for key in rows[0]:
        if not key.endswith("_seconds"):
            table.add_column(key, justify="left" if key == "run" else "right")
    for row in rows:
        cells = []
        for key, value in row.items():
            if key in shares:
                cells.append(f"{100 * value:.1f} %")
            elif not key.endswith("_seconds"):
                cells.append(f"{value:.3g}" if isinstance(value, float) else str(value))
        table.add_row(*cells)
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", help="demo, lsun (random weights), a folder or a file")
    parser.add_argument("--reduced", action="store_true", help="lsun: for a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[16])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", choices=("off", "on", "both"), default="off")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="leave it out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--count", action="store_true", help="only count, measure nothing")
    parser.add_argument("--peak", type=float, help="TFLOP/s of a device to count for")
    parser.add_argument("--bandwidth", type=float, help="GB/s of a device to count for")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.device = pick_device(options.device)
    options.network = options.network or ("demo" if options.device.type == "cpu" else "lsun")
    return options


def main() -> None:
    options, console = parse(), Console()
    if options.threads:
        torch.set_num_threads(options.threads)
    counts = count_passes(
        options.network, options.reduced, pick_dtype(options.precision, options.device)
    )
    rates = [options.peak and options.peak * 1e12, options.bandwidth and options.bandwidth * 1e9]
    console.print(counts_table(counts))
    console.print(summary(counts, config_of(options, 1), *rates), soft_wrap=True)
    if options.count:
        return
    rows = results(measure(options, counts), options.device)
    cuda = options.device.type == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.machine()
    threads = torch.get_num_threads()
    title = f"{options.network}, {options.steps} steps, {device}, {threads} threads"
    console.print(results_table(rows, title))
    if options.json:
        content = {"device": device, "threads": threads, "torch": torch.__version__}
        content |= {"options": {key: str(value) for key, value in vars(options).items()}}
        content |= {"counts": asdict(counts), "results": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
