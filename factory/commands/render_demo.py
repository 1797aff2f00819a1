"""`factory render-demo`: photographs and masks of the embedded domain, for trying things out."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from factory.demo.render import render_folder


def render_demo(out: Path, start: int, n: int, console: Console) -> None:
    """Write smears `start` to `start + n`; raises as `render_folder`."""
    render_folder(out, range(start, start + n))
    console.print(f"{n} images and masks in {out}")
