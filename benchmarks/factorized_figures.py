"""The figures of Factorized Diffusion (Yuan & Maire 2023) for a generator of your own.

    python -m benchmarks.factorized_figures sheet G.png --generator G            images, masks
    python -m benchmarks.factorized_figures photographs G.png --generator G --images DIR
    python -m benchmarks.factorized_figures channels G.png --generator G --images DIR
    python -m benchmarks.factorized_figures refinement G.png --generator G       along t
    python -m benchmarks.factorized_figures interpolation G.png --generator G --images DIR
    python -m benchmarks.factorized_figures against-t G.png --generator G --labeled DIR

`sheet` (their Figures 7, 8, 11): samples, their masks, and the most probable region of each pixel.
`photographs` (3-6): the same of real images, in one pass. `channels` (9): the K masks one by one.
`refinement` (10): what the network predicts as the clean image, and the regions, along the
sampler's way. `interpolation` (12): the first two images, noised to t = 250 and mixed, x_t =
(1 - λ) x + λ x', denoised in `--passes` steps. `against-t`: Acc, IoU and DICE of the foreground
against the noise level of the one pass, also as JSON beside the figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from torchvision.utils import make_grid, save_image

from factory.pipeline.region_finder import RegionFinder
from factory.reports.region_scores import foreground_ids, score_regions
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory_core.annotated.annotations import ImageFolder, read_annotations
from factory_core.dataset import default_palette
from factory_core.storage import write_json
from generators.base import REGIONS_MAP, check_batch, sample_generators
from generators.ddpm import samplers
from generators.ddpm.model import to_uint8, to_unit_range
from generators.factorized.model import FactorizedGenerator
from train_seg.evaluation.foreground import METRICS, count_pairs
from train_seg.evaluation.plots import COLOURS, encode_png, figure_type

TILE = 96  # pixels of an image in a sheet
INTERPOLATION_T, MIXTURES = 250, 11
TIMESTEPS = range(0, 61, 10)
SHORT = {"accuracy": "Acc", "iou": "IoU", "dice": "DICE"}


def coloured(m: Tensor) -> Tensor:
    """The regions of masks `[N, K, H, W]` in colour, mixed where they are soft, uint8."""
    palette = torch.tensor(default_palette(m.shape[1] + 1)[1:], dtype=torch.float32)
    return torch.einsum("nkhw,kc->nchw", m.float().cpu(), palette).round().to(torch.uint8)


def decided(m: Tensor) -> Tensor:
    """Masks `[N, K, H, W]` of ones and zeros: each pixel in its most probable region."""
    return F.one_hot(m.argmax(1), m.shape[1]).movedim(-1, 1)


def write_sheet(rows: Sequence[Tensor], file: Path) -> None:
    """PNG of rows of images, each uint8 `[N, 3, H, W]`, or `[N, 1, H, W]` if grey."""
    tiles = [
        F.interpolate(row.expand(-1, 3, -1, -1).float().cpu() / 255, (TILE, TILE), mode="nearest")
        for row in rows
    ]
    grid = make_grid(torch.cat(tiles), nrow=len(rows[0]), pad_value=1)
    save_image(grid, file)


# --- what the figures show -------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """What one pass of a sampler at timestep t sees: x_t, the predicted x_0, the masks."""

    t: int
    x_t: Tensor
    x_0: Tensor
    m: Tensor


def watched(generator: FactorizedGenerator, passes: list[Pass]) -> samplers.Denoise:
    """The network as a sampler sees it, which appends to `passes`."""
    schedule, clip = generator.schedule, generator.config.clip_x0

    def denoise(x: Tensor, t: float) -> Tensor:
        output, _ = generator.network(x, torch.tensor([t]), generator._class_of_features())
        assert output is not None
        abar = schedule.alphas_cumprod[int(t)]
        x_0 = samplers.predict_x_0(output, x, abar, schedule, clip)
        passes.append(Pass(int(t), x, x_0, generator.network.masks))
        return output

    return denoise


@torch.inference_mode()
def sampling_passes(generator: FactorizedGenerator, indices: Sequence[int]) -> list[Pass]:
    """All passes of the sampler for samples `indices`, noisiest first."""
    streams = sample_generators(generator.config.seed, indices)
    passes: list[Pass] = []

    def draw() -> Tensor:
        noise = generator.noise.draw(streams, (3, *generator.image_size))
        return noise.to(generator.device)

    samplers.sample(watched(generator, passes), generator.schedule, generator.config, draw)
    return passes


@torch.inference_mode()
def interpolate(
    generator: FactorizedGenerator, pair: Tensor, mixtures: int, visits: int
) -> tuple[Tensor, Tensor]:
    """Images uint8 `[M, 3, H, W]` and masks between two images uint8 `[2, 3, H, W]`.

    Each end has a noise of its own; the noise of the denoising steps is shared by all mixtures.
    """
    schedule, config = generator.schedule, generator.config
    device, stream = generator.device, torch.Generator().manual_seed(config.seed)
    x_0 = to_unit_range(pair.to(device))
    eps = torch.randn(x_0.shape, generator=stream).to(device)
    x_t = samplers.q_sample(x_0, eps, schedule.alphas_cumprod[INTERPOLATION_T])
    weights = torch.linspace(0, 1, mixtures, device=device).view(-1, 1, 1, 1)
    x = (1 - weights) * x_t[:1] + weights * x_t[1:]
    steps = np.unique(np.linspace(0, INTERPOLATION_T, visits).round().astype(int)).tolist()
    posterior, passes = samplers.Posterior(schedule, steps), list[Pass]()
    denoise = watched(generator, passes)
    for i in reversed(range(len(steps))):
        output = denoise(x, steps[i])
        x = posterior.mean(passes[-1].x_0, x, i)
        if i > 0:
            z = torch.randn(x_0[:1].shape, generator=stream).to(device)
            x = x + (posterior.log_variance(output, i) / 2).exp() * z
        del passes[:-1]
    return to_uint8(x), passes[-1].m


# --- the figures -----------------------------------------------------------------------------


def sheet(finder: RegionFinder, given: argparse.Namespace) -> None:
    images, maps = finder.generator.sample(range(given.n))
    m = maps[REGIONS_MAP]
    write_sheet([images, coloured(m), coloured(decided(m))], given.out)


def photographs(finder: RegionFinder, given: argparse.Namespace) -> None:
    images = read_images(finder, given)
    m = finder.generator.find_regions(images)
    write_sheet([images, coloured(m), coloured(decided(m))], given.out)


def channels(finder: RegionFinder, given: argparse.Namespace) -> None:
    images = read_images(finder, given)
    m = (finder.generator.find_regions(images) * 255).round().to(torch.uint8)
    write_sheet([images, *(m[:, k : k + 1] for k in range(m.shape[1]))], given.out)


def refinement(finder: RegionFinder, given: argparse.Namespace) -> None:
    passes = sampling_passes(finder.generator, range(given.rows))
    shown = np.unique(np.linspace(0, len(passes) - 1, given.n).round().astype(int))
    chosen = [passes[i] for i in shown]
    rows = []
    for row in range(given.rows):
        rows.append(torch.stack([to_uint8(one.x_0[row]) for one in chosen]))
        rows.append(torch.cat([coloured(one.m[row : row + 1]) for one in chosen]))
    write_sheet(rows, given.out)
    print("t =", ", ".join(str(one.t) for one in chosen))


def interpolation(finder: RegionFinder, given: argparse.Namespace) -> None:
    pair = read_images(finder, argparse.Namespace(images=given.images, n=2))
    images, m = interpolate(finder.generator, pair, MIXTURES, given.passes)
    write_sheet([images, coloured(m)], given.out)


def against_t(finder: RegionFinder, given: argparse.Namespace) -> None:
    generator = finder.generator
    found = read_annotations(given.labeled, finder.image_size, pictures=finder.pictures)
    wanted = foreground_ids(given.foreground, found.classes)
    scored: list[dict[str, Any]] = []
    with ProgressLine("timesteps", "passes", len(TIMESTEPS), Console()) as line:
        for number, t in enumerate(TIMESTEPS, 1):
            features = generator.config.features.model_copy(update={"region_timestep": t})
            generator.config = generator.config.model_copy(update={"features": features})
            regions = finder.predict(found.images)
            counts = count_pairs(regions, found.masks, generator.regions, len(found.classes))
            scores = score_regions(counts, found.classes, wanted)
            scored.append(
                {"t": t, "dataset": asdict(scores.dataset), "oracle": asdict(scores.oracle)}
            )
            line.update(number)
    figure = figure_type()(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for colour, metric in zip(COLOURS, METRICS, strict=False):
        for grouping, style in (("dataset", "-"), ("oracle", "--")):
            values = [row[grouping][metric] for row in scored]
            label = f"{SHORT[metric]}, {grouping}"
            axes.plot(list(TIMESTEPS), values, style, color=colour, marker="o", label=label)
    axes.set(xlabel="t", ylabel="score of the foreground")
    axes.legend(fontsize="small")
    given.out.write_bytes(encode_png(figure))
    write_json(given.out.with_suffix(".json"), {"images": len(found.images), "scores": scored})


FIGURES: dict[str, Callable[[RegionFinder, argparse.Namespace], None]] = {
    "sheet": sheet,
    "photographs": photographs,
    "channels": channels,
    "refinement": refinement,
    "interpolation": interpolation,
    "against-t": against_t,
}


def read_images(finder: RegionFinder, given: argparse.Namespace) -> Tensor:
    """The first N images of the folder, uint8 `[N, 3, H, W]` of the generator's size."""
    folder = ImageFolder(given.images, finder.image_size, finder.pictures)
    check_batch(given.n, finder.generator.batch_size)
    return torch.stack([folder[i] for i in range(min(given.n, len(folder)))])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figure", choices=list(FIGURES))
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--generator", required=True)
    parser.add_argument("--images", type=Path, help="of photographs, channels and interpolation")
    parser.add_argument("--labeled", type=Path, help="of against-t")
    parser.add_argument("--foreground", action="append", default=[], metavar="CLASS")
    parser.add_argument("--n", type=int, default=8, help="images, or passes of refinement")
    parser.add_argument("--rows", type=int, default=3, help="samples of refinement")
    parser.add_argument("--passes", type=int, default=251, help="of interpolation")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    needed = {"photographs": "images", "channels": "images", "interpolation": "images"}
    flag = {**needed, "against-t": "labeled"}.get(given.figure)
    if flag and getattr(given, flag) is None:
        parser.error(f"{given.figure} needs --{flag} DIR")
    quiet_libraries()
    finder = RegionFinder.load(given.generator, given.settings, given.device)
    FIGURES[given.figure](finder, given)
    print(f"{given.figure} in {given.out}")


if __name__ == "__main__":
    main()
