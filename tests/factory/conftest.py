"""Tiny jobs and models, and buckets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest
import torch

from factory.reports import preview
from factory_core.storage import Store, open_store
from tests.stand_ins import SIZE, Tiny, by_value


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setattr(preview, "TILE", SIZE[0])  # drawing is most of what a tiny job takes
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "labeler.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {weights}, batch_size: 3}}\n"
        f"labeler: {{weights: {weights}}}\ndataset: {{shard_size: 8, samples_per_shard: 7}}\n"
    )
    return Tiny(tmp_path)


@pytest.fixture
def shippable(tiny: Tiny) -> Tiny:
    """`tiny`, pickled by value, because Ray's workers cannot import what tests define."""
    return by_value(tiny)


def save_gan(folder: Path, seed: int = 0) -> Path:
    """An untrained StyleGAN2 of 16 x 16 whose samples differ, as `train-generator` writes it."""
    from generators.stylegan2.config import NetworkConfig
    from generators.stylegan2.network import StyleGAN2
    from generators.stylegan2.storage import save

    shape = NetworkConfig(
        resolution=16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save(StyleGAN2(shape).requires_grad_(False).eval(), folder)
    return folder


@pytest.fixture(scope="session")
def make_gan() -> Callable[..., Path]:
    """`make_gan(folder, seed)` writes an untrained StyleGAN2 there."""
    return save_gan


@pytest.fixture(scope="session")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `save_gan`."""
    return save_gan(tmp_path_factory.mktemp("gan") / "generator")


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """`tree(folder)` -> sha256 of every file in it."""
    return hashes


# --- buckets ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A running S3 server, and environment variables that point to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield f"http://{host}:{port}"
    server.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def s3_out(s3: str) -> Store:
    """An unused folder in a new bucket."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(bucket)
    return open_store(f"s3://{bucket}/some/out")


@pytest.fixture
def memory_out() -> Store:
    """A folder in memory, for tests that do not depend on the store."""
    return open_store(f"memory://{uuid.uuid4().hex}/out")
