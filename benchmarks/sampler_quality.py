"""The quality of cheaper samplers: mIoU of a DeepLabV3 trained on their samples.

    python -m benchmarks.sampler_quality --data DIR --labeler DIR --out DIR [--json FILE]
        [--row NAME=LABELER:SAMPLER:STEPS ...]

`--data` holds `unlabeled/` and `test/` as for `benchmarks.real_images`; `--labeler` is a folder of
`factory train-labeler`. Rows differ only in the sampler: seeds, labeler, number of candidates and
the settings of the segmenter are the same. Existing results are reused. `--row` compares others,
each with the labeler of its own generator, such as a distilled one, or of features of one timestep.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.real_images import Row, add_segmenter_options, run, scores_of
from factory_core.storage import write_json


@dataclass(frozen=True)
class Sampling:
    """A labeler with its generator, a sampler, and its number of network passes per sample."""

    name: str  # in tables and of folders
    labeler: str
    sampler: str
    steps: int

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """From `NAME=LABELER:SAMPLER:STEPS`."""
        name, _, rest = text.partition("=")
        labeler, sampler, steps = rest.rsplit(":", 2)
        return cls(name, labeler, sampler, int(steps))


SAMPLERS = (("dpmsolver++", 10), ("dpmsolver++", 25), ("dpmsolver++", 50), ("ddpm", 250))


def sample(row: Sampling, options: argparse.Namespace) -> Path:
    """Make the dataset of one row on one core, with a comparison to the real images."""
    out = options.out / "datasets" / row.name
    log = options.out / "logs" / f"{row.name}.txt"
    if not (out / "fidelity.json").exists():
        settings = (f"generator.sampler={row.sampler}", f"generator.steps={row.steps}")
        run(
            [
                *("generate", "--labeler", row.labeler, "--n", options.n, "--out", out),
                *("--real", options.data / "unlabeled", "--executor", "local"),
                *(part for setting in settings for part in ("--set", setting)),
            ],
            log,
            threads=1,
        )
    return out


def frechet_ratio(dataset: Path) -> float:
    """Fréchet distance to the real images over its noise floor; 1 is as good as real images."""
    return float(json.loads((dataset / "fidelity.json").read_text())["frechet"]["ratio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labeler", help="of all samplers, without --row")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=500, help="candidates per sampler")
    parser.add_argument("--samplers", nargs="*", help="only these, e.g. ddpm-250")
    parser.add_argument(
        "--row", action="append", type=Sampling.parse, metavar="NAME=LABELER:SAMPLER:STEPS"
    )
    add_segmenter_options(parser)
    options = parser.parse_args()
    if not options.row and options.labeler is None:
        parser.error("found neither --labeler nor --row: give one of them")
    every = [Sampling(f"{kind}-{n}", options.labeler, kind, n) for kind, n in SAMPLERS]
    chosen = options.row or [s for s in every if not options.samplers or s.name in options.samplers]
    datasets = {row.name: sample(row, options) for row in chosen}
    scores = scores_of([Row(name, (folder,)) for name, folder in datasets.items()], options)
    table = Table(title=f"{options.n} candidates, {options.steps} steps of DeepLabV3")
    for column in ("sampler", "passes", "Fréchet ratio", "mIoU", "std", "seeds"):
        table.add_column(column)
    results = {}
    for sampling in chosen:
        miou, ratio = scores[sampling.name], frechet_ratio(datasets[sampling.name])
        spread = f"{statistics.stdev(miou):.4f}" if len(miou) > 1 else "-"
        mean = f"{statistics.mean(miou):.4f}"
        results[sampling.name] = {"miou": miou, "frechet_ratio": ratio}
        passes, seeds = str(sampling.steps), str(len(miou))
        table.add_row(sampling.name, passes, f"{ratio:.2f}", mean, spread, seeds)
    Console().print(table)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
