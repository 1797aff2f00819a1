"""What images with regions cost: a factorized network against a plain one of the same sizes.

    python -m benchmarks.sampling_factorized [--size 64] [--channels 32 64 96 128] [--json FILE]

Both have random weights and sample in turn; figures are medians. The regions come from the last
pass of the sampler. `counted` is the ratio of the products of a pass, on any machine (`--count`
stops there); with `--channels 128 256 384 512 --resnets 3` it is that of the paper's network.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.counting import count, seconds
from factory_core.device import pick_device
from factory_core.storage import write_json
from generators.base import REGIONS_MAP
from generators.config import DDPMConfig, FactorizedConfig
from generators.ddpm.model import DDPMGenerator, build_unet
from generators.ddpm.noise import NoiseModel
from generators.ddpm.training import noise_schedule
from generators.ddpm.unet import embed, walk
from generators.factorized.config import FactorizedFeatures, NetworkConfig
from generators.factorized.model import FactorizedGenerator
from generators.factorized.network import build
from generators.factorized.walking import walk as walk_factorized


def network_config(given: argparse.Namespace) -> NetworkConfig:
    return NetworkConfig(
        image_size=given.size,
        channels=tuple(given.channels),
        resnets_per_level=given.resnets,
        attention_levels=given.attention_levels,
        regions=given.regions,
        structure="factorized",
    )


def counted(config: NetworkConfig) -> tuple[float, float]:
    """Floating-point operations of one pass of each, plain and factorized, for one image."""
    with torch.device("meta"):
        net = build(config).eval()
        x = torch.empty(1, 3, config.image_size, config.image_size)
        emb = embed(net.unet, torch.zeros(1))
    plain = count(lambda: walk(net.unet, x, emb))
    return plain.flops, count(lambda: walk_factorized(net, x, emb)).flops


def measured(config: NetworkConfig, given: argparse.Namespace) -> dict[str, float]:
    """Seconds per image of each, medians."""
    device, schedule = pick_device(given.device), noise_schedule("v_prediction")
    about = {"weights": "random", "steps": given.steps, "batch_size": given.batch_size}
    unet = build_unet(
        config.image_size, config.channels, config.resnets_per_level, config.attention_levels
    )
    plain = DDPMGenerator(unet, schedule, NoiseModel(), DDPMConfig(**about), str(device))
    features = FactorizedFeatures(record="regions")
    ours = FactorizedConfig(**about, features=features)
    factorized = FactorizedGenerator(build(config), schedule, NoiseModel(), ours, str(device))
    indices = range(given.batch_size)

    def with_regions() -> None:
        _, maps = factorized.sample(indices)
        assert REGIONS_MAP in maps

    ways = {"plain": lambda: plain.sample_images(indices), "factorized": with_regions}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(given.repeats + 1):  # the first one warms up
        for name, once in ways.items():
            found = seconds(once, device)
            if repeat:
                times[name].append(found / given.batch_size)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 96, 128])
    parser.add_argument("--resnets", type=int, default=1)
    parser.add_argument("--attention-levels", type=int, default=1)
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--count", action="store_true", help="only count")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    given, console = parser.parse_args(), Console()
    if given.threads:
        torch.set_num_threads(given.threads)
    config = network_config(given)
    flops = counted(config)
    console.print(
        f"counted: {flops[0] / 1e9:.3g} and {flops[1] / 1e9:.3g} GFLOP per pass and image, "
        f"{flops[1] / flops[0]:.2f} times"
    )
    result = {"counted_flops": list(flops), "counted_ratio": flops[1] / flops[0]}
    if not given.count:
        times = measured(config, given)
        threads = torch.get_num_threads()
        table = Table(title=f"{given.steps} steps, {platform.machine()}, {threads} threads")
        for column in ("network", "images/s", "times plain"):
            table.add_column(column, justify="left" if column == "network" else "right")
        for name, sec in times.items():
            table.add_row(name, f"{1 / sec:.2f}", f"{sec / times['plain']:.2f}")
        console.print(table)
        result |= {"seconds": times, "ratio": times["factorized"] / times["plain"]}
    if given.json:
        write_json(given.json, result)


if __name__ == "__main__":
    main()
