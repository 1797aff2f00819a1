"""The ensemble of pixel classifiers, all members in one set of tensors.

A member is Linear -> ReLU -> BatchNorm for each hidden layer, then Linear. Parameters carry a
leading member axis M, so that training is a handful of batched matrix products. `inference` labels
whole images with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from generators.base import FeatureMaps, FeatureMapSpec

INIT_STD = 0.02

Groups = dict[tuple[int, int], list[FeatureMapSpec]]
Tables = dict[tuple[int, int], torch.Tensor]


def group_by_size(spec: Sequence[FeatureMapSpec]) -> Groups:
    """Feature maps by native (height, width), sizes and maps in their order of appearance.

    The input channels of the first layer follow this order, so that the channels of one size are
    adjacent: one gather and one upsampling per size, however many maps there are.
    """
    groups: Groups = {}
    for m in spec:
        groups.setdefault((m.height, m.width), []).append(m)
    return groups


def channel_last(features: FeatureMaps, groups: Groups) -> Tables:
    """The maps of each native size side by side, `[N, h·w, channels of that size]`.

    One copy of the features at native size; each table is one operand of one matrix product.
    """
    return {
        size: torch.cat([features[m.name].flatten(2) for m in maps], 1).transpose(1, 2).contiguous()
        for size, maps in groups.items()
    }


class MemberLinear(nn.Module):
    """One linear layer per member: weight `[M, out, in]`, bias `[M, out]`."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[M, in, B]` -> `[M, out, B]`."""
        return torch.baddbmm(self.bias[:, :, None], self.weight, x)


class MemberNorm(nn.Module):
    """One batch normalisation per member: weight, bias, running mean, variance `[M, width]`."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, members: int, width: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))
        self.register_buffer("running_mean", torch.zeros(members, width))
        self.register_buffer("running_var", torch.ones(members, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[M, width, B]` -> the same; statistics of the batch in training, else running ones."""
        # Members stand side by side as channels of one sample: no copy, one call for all.
        return F.batch_norm(
            x.reshape(1, -1, x.shape[-1]),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            self.training,
            self.momentum,
            self.eps,
        ).view_as(x)

    def scale_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The running normalisation as y = scale·x + shift, `[M, width]` each."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - scale * self.running_mean


class Ensemble(nn.Module):
    """M classifiers of pixels described by the feature maps of `spec`.

    `hidden` are the widths of the hidden layers, `classes` the number of classes K. Weights are
    drawn from `rng`, normal with standard deviation `INIT_STD`; biases start at 0.
    """

    def __init__(
        self,
        spec: Sequence[FeatureMapSpec],
        classes: int,
        hidden: Sequence[int],
        members: int,
        rng: torch.Generator | None = None,
    ):
        super().__init__()
        self.spec = tuple(spec)
        self.groups = group_by_size(self.spec)
        self.members = members
        widths = [sum(m.channels for m in self.spec), *hidden, classes]
        linears = [MemberLinear(members, i, o) for i, o in itertools.pairwise(widths)]
        norms = [MemberNorm(members, w) for w in hidden]
        # ModuleList hides the type of its items.
        self.linears = cast(Sequence[MemberLinear], nn.ModuleList(linears))
        self.norms = cast(Sequence[MemberNorm], nn.ModuleList(norms))
        for linear in linears:
            nn.init.normal_(linear.weight, 0.0, INIT_STD, generator=rng)

    @classmethod
    def from_reference(
        cls, spec: Sequence[FeatureMapSpec], states: Sequence[Mapping[str, torch.Tensor]]
    ) -> Ensemble:
        """Ensemble of members saved by the paper's code, in eval mode.

        `states` holds one state dict per member with keys `layers.{0,3,6}` (linear) and
        `layers.{2,5}` (batch normalisation); input channels in the order of `spec`. Any depth
        works: linears at multiples of 3, norms just before the next linear.
        """
        depth = max(int(k.split(".")[1]) for k in states[0]) // 3
        hidden = [len(states[0][f"layers.{3 * i}.bias"]) for i in range(depth)]
        self = cls(spec, len(states[0][f"layers.{3 * depth}.bias"]), hidden, len(states))
        blocks = torch.arange(sum(m.channels for m in spec)).split([m.channels for m in spec])
        by_name = {m.name: block for m, block in zip(spec, blocks, strict=True)}
        order = torch.cat([by_name[m.name] for maps in self.groups.values() for m in maps])
        target = {}
        for i in range(depth + 1):
            for part in ("weight", "bias"):
                target[f"linears.{i}.{part}"] = f"layers.{3 * i}.{part}"
        for i in range(depth):
            for part in ("weight", "bias", "running_mean", "running_var"):
                target[f"norms.{i}.{part}"] = f"layers.{3 * i + 2}.{part}"
        state = {ours: torch.stack([s[key] for s in states]) for ours, key in target.items()}
        state["linears.0.weight"] = state["linears.0.weight"][:, :, order]
        self.load_state_dict(state)
        return self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits `[M, K, B]` of gathered pixels `[M, B, C]`, a separate batch for each member.

        Channels are in the order of `group_by_size`.
        """
        return self.linears[-1](self.hidden(self.linears[0](pixels.transpose(1, 2))))

    def hidden(self, first: torch.Tensor) -> torch.Tensor:
        """Features `[M, d, B]` of the last hidden layer, from the first linear layer's output."""
        x = self.norms[0](F.relu(first))
        for linear, norm in zip(self.linears[1:-1], self.norms[1:], strict=True):
            x = norm(F.relu(linear(x)))
        return x
