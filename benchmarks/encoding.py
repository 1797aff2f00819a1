"""Seconds and memory to load encoders of published sizes from files, and to encode one image.

The files have random weights and the form in which they are published.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from factory_core.machine import GIB, peak_memory_bytes
from factory_core.storage import write_json
from generators.encoders.config import EncoderConfig

SIZE = 256  # pixels
NETWORKS = ("mae", "swav", "dinov2", "vdvae")


def write(network: str, file: Path) -> None:
    """A checkpoint of full size: MAE ViT-L/8, SwAV RN50w2, DINOv2 ViT-B/14, or VDVAE FFHQ-256."""
    from timm import create_model

    from generators.encoders.mae import encoder
    from generators.encoders.swav import resnet
    from generators.encoders.vdvae_config import PRESETS, VDVAEShape
    from generators.encoders.vdvae_network import VDVAE

    torch.manual_seed(0)
    if network == "mae":
        state = encoder(SIZE, 8, 1024, 24, 16).state_dict()
        # So much of the decoder that the file is recognised.
        state["decoder_blocks.0.norm1.weight"] = torch.ones(512)
        torch.save({"model": state}, file)
    elif network == "swav":
        with torch.device("meta"):
            plain = create_model("resnet50", num_classes=0).state_dict()
        shapes = {n: [2 * s if s > 7 else s for s in t.shape] for n, t in plain.items()}
        network_of_shapes = resnet({n: torch.empty(shape) for n, shape in shapes.items()})
        state = {f"module.{n}": t for n, t in network_of_shapes.state_dict().items()}
        state["module.projection_head.0.weight"] = torch.zeros(8, 4096)
        torch.save(state, file)
    elif network == "vdvae":
        widths = dict.fromkeys((1, *(2**n for n in range(2, 9))), 512)
        shape = VDVAEShape(**PRESETS["ffhq256"]._asdict(), widths=widths)
        torch.save(VDVAE(shape).state_dict(), file)
    else:
        state = create_model("vit_base_patch14_dinov2", num_classes=0).state_dict()
        torch.save({**state, "mask_token": torch.zeros(1, 768)}, file)


def measure(file: Path, threads: int) -> dict[str, Any]:
    """Load the file, find its features' shapes, encode one image."""
    from generators.encoders.model import ImageEncoder

    torch.set_num_threads(threads)
    before = peak_memory_bytes()
    times = [time.perf_counter()]
    config = EncoderConfig(weights=str(file), image_size=SIZE, precision="float32")
    encoder = ImageEncoder.load(config, "cpu")
    times.append(time.perf_counter())
    spec = encoder.feature_spec
    times.append(time.perf_counter())
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8, generator=rng)
    assert encoder.encode(image).spec == spec
    times.append(time.perf_counter())
    load_sec, spec_sec, encode_sec = (b - a for a, b in pairwise(times))
    return {
        "network": encoder.name,
        "parameters_millions": sum(t.numel() for t in encoder.network.state_dict().values()) / 1e6,
        "maps": len(spec),
        "channels": sum(m.channels for m in spec),
        "load_sec": load_sec,
        "spec_sec": spec_sec,
        "encode_sec": encode_sec,
        "imports_gib": before / GIB,
        "peak_gib": peak_memory_bytes() / GIB,
    }


def main() -> None:
    """Write, measure and print one network after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="working folder: up to 1.3 GB")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for network in options.networks:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            file = Path(name) / f"{network}.pth"
            with spawn.Pool(1) as pool:
                pool.apply(write, (network, file))
            with spawn.Pool(1) as pool:  # in its own process, for its own peak memory
                rows.append(pool.apply(measure, (file, options.threads)))
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    if options.json:
        write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
