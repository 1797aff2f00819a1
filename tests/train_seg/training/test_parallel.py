"""Two processes with a part of a batch each, compared with one that has the whole batch."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from train_seg.config import SegmenterConfig
from train_seg.data.soft_labels import certain
from train_seg.training.losses import objective
from train_seg.training.parallel import SyncedBatchNorm2d, synchronise, whole, world_size

PARTS = (slice(0, 3), slice(3, 5))  # of different sizes
CHILDREN = multiprocessing.get_context("forkserver")


def make_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 1)
    )


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Five images; most ignored pixels are in the first two, class 2 only in the last."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(5, 3, 8, 8, generator=generator)
    masks = torch.randint(0, 2, (5, 6, 6), generator=generator).byte()
    masks[:2, :4] = 255
    masks[4, 0] = 2
    return images, masks


def soften(masks: torch.Tensor) -> torch.Tensor:
    """Levels `[N, K, H, W]`, less certain in later images."""
    levels = torch.stack([certain(mask, 3) for mask in masks])
    doubt = 20 * torch.arange(len(masks), dtype=torch.uint8)[:, None, None, None]
    return torch.where(levels > 0, levels - 2 * doubt, doubt) * (masks != 255)[:, None]


def step(
    network: torch.nn.Module, part: slice, soft: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and gradients and buffers after one step, gradients averaged as DDP does."""
    images, masks = make_batch()
    labels = soften(masks) if soft else masks
    config = SegmenterConfig(dice=0.5, label_smoothing=0.1)
    loss = objective(network(images[part]), labels[part], config)
    (loss * world_size()).backward()
    found = dict(network.named_buffers())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        found[name] = whole(parameter.grad) / world_size()
    return loss.detach(), found


def _work(number: int, folder: Path, soft: bool) -> None:
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=2)
    network = synchronise(make_network(), torch.device("cpu"))
    assert type(network[1]) is SyncedBatchNorm2d
    torch.save(step(network, PARTS[number], soft), folder / f"{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
def test_two_processes_take_the_step_of_one(tmp_path, soft):
    processes = [CHILDREN.Process(target=_work, args=(i, tmp_path, soft)) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    loss, expected = step(make_network(), slice(None), soft)
    for i in range(2):
        found_loss, found = torch.load(tmp_path / f"{i}.pt")
        assert float(found_loss) == pytest.approx(float(loss), abs=1e-6)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5, msg=name)


def test_a_single_process_exchanges_nothing():
    network = make_network()
    assert synchronise(network, torch.device("cpu")) is network
    assert type(network[1]) is torch.nn.BatchNorm2d
    part = torch.ones(2)
    assert whole(part) is part
