"""The speed of making images and their features, and how close it is to the device's limit.

    python -m benchmarks.sampling [--network demo|lsun|FOLDER|FILE] [--json FILE]
    python -m benchmarks.sampling --network stylegan2 [--resolution 256]
    python -m benchmarks.sampling --network lsun --count --peak 790 --bandwidth 4800

`ours` is what `generate` calls for a recipe: `DDPMGenerator.sample_images` and then `encode`, or
the single pass of `StyleGAN2Generator.sample`. `plain` is the same in plain code without this
package, in float32 (`sampling_ddpm`, `plain_stylegan2`), and `plain, autocast` is the diffusion
loop under autocast with channels-last weights. They run repeatedly in turn; figures are medians.

`used` is the counted arithmetic (products only; a multiply-add is two) relative to what a plain
matrix product in the same number format reaches in the same run. `bound` is the value that `used`
would have if products ran at that peak, and all other layers at the rate of a plain copy. Running
the same layers one by one cannot be faster. The difference between `used` and `bound` is lost in
the kernels; only fused layers (`--compile on`) can recover the part between `bound` and 100 %.

On an accelerator, the default is the LSUN network at 256 x 256 with random weights (552.8 M
parameters), else the demo's network. `--count` only counts, for a device of given rates, on any
machine. `--reduced` is the LSUN network with an eighth of the channels at 64 x 64. `stylegan2` has
random weights and `--channel-base` / resolution channels, at most 512.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.contenders import (
    Run,
    Subject,
    parts_table,
    results,
    results_table,
    summary,
)
from factory_core.device import pick_device
from factory_core.storage import write_json

STYLEGAN2 = "stylegan2"
OF_DDPM = {"reduced": False, "steps": 25, "compile": "off"}  # options and their defaults
OF_STYLEGAN2 = {"resolution": 64, "channel_base": 16384}


def measure(subject: Subject, options: argparse.Namespace) -> list[Run]:
    """All runs of all batch sizes; those of one batch size are timed in turn."""
    done: list[Run] = []
    for batch_size in options.batch_size:
        runs = subject.runs(batch_size)
        for repeat in range(options.repeats + 1):
            for run in runs:
                run.once(options.device, keep=repeat > 0)  # the first one warms up and compiles
        done += runs
    return done


def load_subject(options: argparse.Namespace) -> Subject:
    """The network that `--network` names."""
    if options.network == STYLEGAN2:
        from benchmarks.sampling_stylegan2 import Adversarial

        return Adversarial(options)
    from benchmarks.sampling_ddpm import Diffusion

    return Diffusion(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--network", help="demo, lsun or stylegan2 (random weights), a folder or a file"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, nargs="+", help="default: 8; for diffusion 16")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="leave it out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--count", action="store_true", help="only count, without measuring")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, with --count")
    parser.add_argument("--bandwidth", type=float, help="GB/s of the device, with --count")
    parser.add_argument("--json", type=Path)
    diffusion = parser.add_argument_group("diffusion models")
    diffusion.add_argument("--reduced", action="store_true", help="lsun: for a CPU")
    diffusion.add_argument("--steps", type=int)
    diffusion.add_argument("--compile", choices=("off", "on", "both"))
    adversarial = parser.add_argument_group("stylegan2")
    adversarial.add_argument("--resolution", type=int, help="default: 64")
    adversarial.add_argument("--channel-base", type=int, help="default: 16384")
    options = parser.parse_args()
    options.device = pick_device(options.device)
    options.network = options.network or ("demo" if options.device.type == "cpu" else "lsun")
    _complete(parser, options)
    return options


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fill in the defaults for the kind of network; reject options of the other kind."""
    is_stylegan2 = options.network == STYLEGAN2
    ours, others = (OF_STYLEGAN2, OF_DDPM) if is_stylegan2 else (OF_DDPM, OF_STYLEGAN2)
    for name in others:
        if getattr(options, name):
            flag = "--" + name.replace("_", "-")
            parser.error(f"{flag} is not an option of --network {options.network}")
    for name, default in ours.items():
        setattr(options, name, getattr(options, name) or default)
    options.batch_size = options.batch_size or [8 if is_stylegan2 else 16]


def main() -> None:
    options, console = parse(), Console()
    if options.threads:
        torch.set_num_threads(options.threads)
    subject = load_subject(options)
    rates = [options.peak and options.peak * 1e12, options.bandwidth and options.bandwidth * 1e9]
    console.print(parts_table(subject))
    console.print(summary(subject, *rates), soft_wrap=True)
    if options.count:
        return
    rows = results(measure(subject, options), options.device)
    cuda = options.device.type == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.machine()
    threads = torch.get_num_threads()
    console.print(results_table(rows, f"{subject.title}, {device}, {threads} threads"))
    if options.json:
        content = {"device": device, "threads": threads, "torch": torch.__version__}
        content |= {"options": {key: str(value) for key, value in vars(options).items()}}
        content |= {"parts": subject.parts, "results": rows}
        write_json(options.json, content)


if __name__ == "__main__":
    main()
