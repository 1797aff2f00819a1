"""The training code that all kinds of generator share."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from generators.training import loop as training


def test_batches_walk_through_whole_permutations() -> None:
    batches = list(training.StepBatches(6, 4, seed=0, first=0, steps=6))
    draws = [i for batch in batches for i in batch]
    for epoch in range(4):
        assert sorted(draws[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert list(training.StepBatches(6, 4, seed=0, first=4, steps=2)) == batches[4:]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    def save_checkpoint(path: Path, weights_only: bool) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    last = tmp_path / "last.ckpt"
    last.write_bytes(b"previous")
    trainer = SimpleNamespace(global_step=3, save_checkpoint=save_checkpoint)
    with pytest.raises(OSError, match="No space left"):
        training.KeepLast(last).on_train_epoch_end(
            trainer, SimpleNamespace(ema=torch.nn.Linear(1, 1))
        )
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert last.read_bytes() == b"previous"
