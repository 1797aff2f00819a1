"""The Ray actor: a `ShardWorker` that returns a user's mistakes as values."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from factory.pipeline.executors.base import Outcome, attempt
from factory.pipeline.executors.shipping import Weights, find_copy, keep_copy, with_weights
from factory.pipeline.shard import Shard
from factory.pipeline.worker import ShardWorker, WorkerSpec
from factory_core.dataset import CANDIDATES_DIR, JOB_NAME
from factory_core.device import DeviceFailed, gpu_fault, one_line


@dataclass(frozen=True)
class Lacking:
    """The worker's machine does not have all of the weights."""


@dataclass(frozen=True)
class Ready:
    """The worker, on the node of this id, has loaded its models.

    `note` says why it computes without the GPU of its machine, None if it uses it or has none.
    """

    node_id: str
    note: str | None = None


@dataclass(frozen=True)
class Broken:
    """The worker's device fails, and will until the process ends."""

    reason: str


class ShardActor:
    """A worker on one machine of the cluster.

    A user's mistake (ValueError, OSError) is returned, not raised: if raised, it would arrive
    wrapped in pages of Ray's traceback. Anything raised is a bug.
    """

    def __init__(self, spec: WorkerSpec, threads: int, weights: Sequence[Weights]):
        # Workers share a machine: each must keep to its cores, or they compete for all of them.
        torch.set_num_threads(threads)
        self.spec, self.weights = spec, weights
        self.worker: ShardWorker | None = None

    def load(
        self, shipped: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Ready | Lacking | Broken | ValueError | OSError:
        """Find the weights and load the models; `shipped` holds the weight files by section.

        They are Ray references: each file is fetched only where it is missing, and workers that
        share a machine do not copy it again.
        """
        import ray

        try:
            self._check_folder()
            spec = self.spec
            for weights in self.weights:
                path = find_copy(weights)
                if path is None and shipped is None:
                    return Lacking()
                if path is None:
                    assert shipped is not None
                    files = {name: ray.get(f) for name, f in shipped[weights.section].items()}
                    path = keep_copy(weights, files)
                spec = with_weights(spec, weights.section, path)
            self.worker = ShardWorker(spec)
            self.worker.models  # noqa: B018 - loads them, or finds out why not, before any shard
        except torch.OutOfMemoryError as error:
            return ValueError(
                f"out of memory while the models were loaded ({one_line(error)}): give each worker "
                "more of a GPU (--gpus-per-worker 1), or --device cpu"
            )
        except (DeviceFailed, torch.AcceleratorError) as error:
            return Broken(one_line(error))
        except (ValueError, OSError) as error:
            return plain(error)
        uses_cpu = self.worker.device == "cpu" and spec.device == "auto"
        return Ready(ray.get_runtime_context().get_node_id(), gpu_fault() if uses_cpu else None)

    def make(self, shard: Shard) -> Outcome | Broken | ValueError | OSError:
        """Make a shard (after `load`)."""
        assert self.worker is not None
        try:
            return attempt(self.worker, shard)
        except DeviceFailed as error:
            return Broken(str(error))
        except (ValueError, OSError) as error:
            return plain(error)

    def _check_folder(self) -> None:
        """Raise FileNotFoundError unless this machine sees the driver's folder."""
        if not (self.spec.out / CANDIDATES_DIR).exists(JOB_NAME):
            raise FileNotFoundError(
                f"{self.spec.out} does not exist on {socket.gethostname()}, a machine of the"
                " cluster: give an --out that all machines share, or a bucket such as s3://BUCKET/FOLDER"
            )


def plain(error: ValueError | OSError) -> ValueError | OSError:
    """The same mistake as a built-in exception: libraries' own types may not survive pickling."""
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, error.strerror, error.filename)
    return OSError(str(error)) if isinstance(error, OSError) else ValueError(str(error))
