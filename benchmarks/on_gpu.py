"""Everything that has to be checked and measured on a GPU, in one run of a few minutes.

    python -m benchmarks.on_gpu --minutes 8 --json out.json

Parts run in order of value, each in a process of its own with a limit of time, so that one that
fails or hangs costs only itself. The file is rewritten after each; what a part had found when
it was stopped is kept. The exit code is 1 unless every part has succeeded. No Ray, no internet.

`--tiny` makes networks small enough for a CPU: it shows that the script runs, and measures nothing.
The parts are in `benchmarks.on_gpu_parts`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.on_gpu_parts import PARTS, Report
from factory_core.storage import write_json

LEAST_SEC = 10.0  # a part does not begin with less time than that


def run_part(name: str, device: str, tiny: bool, limit_sec: float) -> dict[str, Any]:
    """Results of a part in its own process, with `error` if it failed or was stopped."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks.on_gpu", "--part", name, "--json", str(file)]
        command += ["--device", device, *(["--tiny"] if tiny else [])]
        error = None
        # In a session of its own, so that what the part has started ends with it.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, text = process.communicate(timeout=limit_sec)
            if process.returncode:
                error = "\n".join(text.splitlines()[-20:])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            error = f"stopped after {limit_sec:.0f} s"
        found = json.loads(file.read_text()) if file.exists() else {}
    found["sec"] = round(time.monotonic() - began, 1)
    return found if error is None else {**found, "error": error}


def describe(device: str) -> dict[str, Any]:
    """The machine and the libraries."""
    import diffusers
    import torch

    from factory_core.device import device_kind, gpu_fault, pick_device

    where = pick_device(device)
    return {
        "device": device_kind(where),
        "gpu_fault": None if where.type == "cuda" else gpu_fault(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "diffusers": diffusers.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts, or one of them in this process; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a check of the script on a CPU")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        PARTS[options.part].run(Report(options.json), options.device, options.tiny)
        return 0
    ends = time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {**describe(options.device), "tiny": options.tiny, "parts": {}}
    for name in options.only or PARTS:
        limit_sec = min(PARTS[name].limit_sec, ends - time.monotonic())
        if limit_sec < LEAST_SEC:
            found = {"error": "no time was left"}
        else:
            found = run_part(name, options.device, options.tiny, limit_sec)
        results["parts"][name] = found
        write_json(options.json, results)
        print(f"{name}: {json.dumps(found)}", flush=True)
    return int(any("error" in found for found in results["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
