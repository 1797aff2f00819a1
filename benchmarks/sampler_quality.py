"""The quality of cheaper samplers: mIoU of a DeepLabV3 trained on their samples.

    python -m benchmarks.sampler_quality --data DIR --labeler DIR --out DIR [--json FILE]

`--data` holds `unlabeled/` and `test/` as for `benchmarks.real_images`; `--labeler` is a folder of
`factory train-labeler`. Rows differ only in the sampler: seeds, labeler, number of candidates and
the settings of the segmenter are the same. Existing results are reused.
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
class Sampler:
    """A sampler and its number of network passes per sample."""

    kind: str
    steps: int

    @property
    def name(self) -> str:
        """The name in tables and of folders."""
        return f"{self.kind}-{self.steps}"


SAMPLERS = (
    Sampler("dpmsolver++", 10),
    Sampler("dpmsolver++", 25),
    Sampler("dpmsolver++", 50),
    Sampler("ddpm", 250),
)


def sample(sampler: Sampler, options: argparse.Namespace) -> Path:
    """Make the dataset of one sampler on one core, with a comparison to the real images."""
    out = options.out / "datasets" / sampler.name
    log = options.out / "logs" / f"{sampler.name}.txt"
    if not (out / "fidelity.json").exists():
        settings = (f"generator.sampler={sampler.kind}", f"generator.steps={sampler.steps}")
        run(
            [
                *("generate", "--labeler", options.labeler, "--n", options.n, "--out", out),
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
    parser.add_argument("--labeler", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=500, help="candidates per sampler")
    parser.add_argument("--samplers", nargs="*", help="only these, e.g. ddpm-250")
    add_segmenter_options(parser)
    options = parser.parse_args()
    chosen = [s for s in SAMPLERS if not options.samplers or s.name in options.samplers]
    datasets = {s.name: sample(s, options) for s in chosen}
    scores = scores_of([Row(name, (folder,)) for name, folder in datasets.items()], options)
    table = Table(title=f"{options.n} candidates, {options.steps} steps of DeepLabV3")
    for column in ("sampler", "passes", "Fréchet ratio", "mIoU", "std", "seeds"):
        table.add_column(column)
    results = {}
    for sampler in chosen:
        miou, ratio = scores[sampler.name], frechet_ratio(datasets[sampler.name])
        spread = f"{statistics.stdev(miou):.4f}" if len(miou) > 1 else "-"
        mean = f"{statistics.mean(miou):.4f}"
        results[sampler.name] = {"miou": miou, "frechet_ratio": ratio}
        row = (sampler.name, str(sampler.steps), f"{ratio:.2f}", mean, spread, str(len(miou)))
        table.add_row(*row)
    Console().print(table)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
