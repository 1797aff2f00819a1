"""Counting of arithmetic and memory traffic."""

import torch
from torch import nn

from benchmarks.counting import count


def test_a_convolution_counts_as_multiply_adds_without_traffic() -> None:
    conv = nn.Conv2d(4, 8, kernel_size=3, padding=1, device="meta")
    work = count(lambda: conv(torch.empty(2, 4, 16, 16, device="meta")))
    assert work.flops == 2 * (2 * 8 * 16 * 16) * (4 * 3 * 3)
    assert work.other_bytes == 2 * 4 * 16 * 16 * 4  # the empty tensor itself


def test_other_layers_read_operands_and_write_results() -> None:
    x = torch.zeros(1000)
    work = count(lambda: (x + x.view(10, 100).view(-1)).mul_(2))
    assert work.flops == 0
    assert work.other_bytes == 4000 * 3 + 4000 * 2
