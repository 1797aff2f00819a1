"""Steps, precision and loader processes of a training."""

from __future__ import annotations

import torch

from train_seg.config import SegmenterConfig
from train_seg.training.plan import pick_num_workers, pick_precision, round_steps, total_steps


def test_length_of_a_run():
    config = SegmenterConfig(batch_size=8, epochs=3)
    assert total_steps(config, 100) == 38
    assert total_steps(config.model_copy(update={"max_steps": 7}), 100) == 7
    assert (round_steps(config, 24), round_steps(config, 8000)) == (50, 1000)


def test_auto_precision_depends_on_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    for supported, expected in ((True, "bf16-mixed"), (False, "32-true")):
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda s=supported: s, raising=False)
        assert pick_precision(SegmenterConfig(), cpu) == expected
    assert pick_precision(SegmenterConfig(precision="bfloat16"), cpu) == "bf16-mixed"


def test_loader_processes_depend_on_the_device():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert pick_num_workers(SegmenterConfig(), cpu) == 0
    assert pick_num_workers(SegmenterConfig(), gpu) == 1
    torch.set_num_threads(20)
    assert pick_num_workers(SegmenterConfig(), gpu) == 8
    assert pick_num_workers(SegmenterConfig(num_workers=0), gpu) == 0
    assert pick_num_workers(SegmenterConfig(num_workers=3), cpu) == 3
