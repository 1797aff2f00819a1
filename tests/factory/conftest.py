"""A whole job in milliseconds: tiny stand-ins for generator and labeler, that can be disturbed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from factory.pipeline.executors import Executor
from factory.pipeline.job import Job
from factory.pipeline.progress import OnProgress, ignore
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import Manifest
from factory_core.storage import Store, open_store
from generators.base import FeatureMaps, sample_seed

SIZE = (16, 16)


@dataclass
class Prediction:
    mask: torch.Tensor
    uncertainty: torch.Tensor
    pixel_uncertainty: torch.Tensor


@dataclass
class TinyModels:
    """Generator and labeler in one. `made` is what was sampled; `disturb` sees it first."""

    made: list[int] = field(default_factory=list)
    disturb: Callable[[Sequence[int]], None] = lambda indices: None
    broken: set[int] = field(default_factory=set)  # samples of no finite uncertainty
    image_size: tuple[int, int] = SIZE

    def sample(self, indices: Sequence[int]) -> tuple[torch.Tensor, FeatureMaps]:
        self.disturb(indices)
        self.made.extend(indices)
        noise = [
            np.random.default_rng(sample_seed(0, i)).integers(0, 256, (3, *SIZE), np.uint8)
            for i in indices
        ]
        images = torch.from_numpy(np.stack(noise))
        return images, self.encode(images, indices)

    def encode(self, images: torch.Tensor, indices: Sequence[int]) -> FeatureMaps:
        maps = images.float() / 255
        for place, index in enumerate(indices):
            if index in self.broken:
                maps[place] = torch.nan
        return FeatureMaps({"image": maps})

    def check(self, generator: Any) -> None:
        pass

    def predict(
        self, features: FeatureMaps, size: tuple[int, int], vote: Any, uncertainty: Any
    ) -> Prediction:
        grey = features["image"].mean(1)
        unsure = 0.5 - (grey - 0.5).abs()
        return Prediction((grey > 0.5).byte(), unsure.mean((1, 2)), unsure)


@dataclass
class Tiny:
    """Jobs of shards of 8 candidates in batches of 3, 7 kept samples a final shard."""

    folder: Path
    models: TinyModels = field(default_factory=TinyModels)

    def recipe(self, *overrides: str) -> ResolvedRecipe:
        return resolve(load_recipe(str(self.folder / "tiny.yaml"), list(overrides)))

    def load(self, *_: Any) -> Any:
        return self.models, self.models

    def job(self, out: Path | Store, n: int = 25, overrides: Sequence[str] = (), **how: Any) -> Job:
        return Job.sampling(self.recipe(*overrides), n, out, load=self.load, **how)

    def make(
        self,
        out: Path | Store,
        n: int = 25,
        overrides: Sequence[str] = (),
        executor: Executor | None = None,
        on_progress: OnProgress = ignore,
        **how: Any,
    ) -> Manifest:
        return run(self.job(out, n, overrides, **how), executor, on_progress)

    def label(self, images: Path, out: Path) -> Manifest:
        return run(Job.labeling(self.recipe(), images, out, load=self.load))

    def begin(self, out: Path | Store, shards: int, **more: Any) -> None:
        """Make so many shards, then stop as Ctrl-C does."""

        def stop(progress: Any) -> None:
            if progress.shards_done == shards and progress.stage == "generate":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.make(out, on_progress=stop, **more)
        self.models.made.clear()


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "labeler.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {weights}, batch_size: 3}}\n"
        f"labeler: {{weights: {weights}}}\ndataset: {{shard_size: 8, samples_per_shard: 7}}\n"
    )
    return Tiny(tmp_path)


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
    """A running S3 server, and the environment that leads to it."""
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
    """A folder that nobody has used, in a new bucket."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(bucket)
    return open_store(f"s3://{bucket}/some/out")


@pytest.fixture
def memory_out() -> Store:
    """For what does not depend on the store."""
    return open_store(f"memory://{uuid.uuid4().hex}/out")
