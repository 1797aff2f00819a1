"""Resampling against its definition, and its derivatives against numerical ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.stylegan2.resample import blur, downsample, fir_filter, upsample

DTYPES = [torch.float32, torch.bfloat16]


def zeros_between(x: Tensor) -> Tensor:
    wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def fir(x: Tensor, *padding: int) -> Tensor:
    weight = fir_filter().expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding), weight, groups=x.shape[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_resampling_matches_its_definition(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype is torch.float32 else 0.02}

    def found(operation: Callable[[Tensor], Tensor]) -> Tensor:
        return operation(x.to(dtype)).float()

    torch.testing.assert_close(found(upsample), 4 * fir(zeros_between(x), 2, 1, 2, 1), **tolerance)
    torch.testing.assert_close(found(downsample), fir(x, 1, 1, 1, 1)[..., ::2, ::2], **tolerance)
    for padding in (1, 2):
        expected = fir(x, *[padding] * 4)
        torch.testing.assert_close(found(lambda x, p=padding: blur(x, p)), expected, **tolerance)


@pytest.mark.parametrize(
    "operation", [upsample, downsample, lambda x: blur(x, 1), lambda x: blur(x, 2)]
)
def test_first_and_second_derivatives(operation: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operation, x)
    assert torch.autograd.gradgradcheck(operation, x)


@pytest.mark.parametrize("operation", [upsample, downsample, lambda x: blur(x, 2)])
def test_gradients_in_bfloat16(operation: Callable[[Tensor], Tensor]) -> None:
    gradients = []
    for dtype in DTYPES:
        x = torch.ones(1, 2, 4, 4, dtype=dtype, requires_grad=True)
        (operation(x) * 3).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.float())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.02, atol=0)
