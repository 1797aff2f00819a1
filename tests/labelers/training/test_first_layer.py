"""The hand-written first layer equals autograd."""

from __future__ import annotations

import pytest
import torch

from labelers.ensemble.classifiers import MemberLinear
from labelers.training.first_layer import FirstLayer


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_equals_autograd(dtype, close):
    rng = torch.Generator().manual_seed(0)
    linear = MemberLinear(members=3, inputs=20, outputs=6)
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    ours = FirstLayer(linear, batch=8, dtype=dtype)
    factor = torch.randn(3, 6, 8, generator=rng)
    for _ in range(2):  # memory that is reused
        ours.pixels.copy_(torch.randn(3, 8, 20, generator=rng))
        linear.zero_grad()
        output = ours.forward()
        (output * factor).sum().backward()
        ours.backward(output)
        found = [output.detach(), linear.weight.grad.clone(), linear.bias.grad.clone()]
        linear.zero_grad()
        expected = linear(ours.pixels.float().transpose(1, 2))
        (expected * factor).sum().backward()
        wanted = [expected.detach(), linear.weight.grad, linear.bias.grad]
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=close, atol=close * b.abs().max().item())
