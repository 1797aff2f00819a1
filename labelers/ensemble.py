"""The ensemble of pixel classifiers, all members in one set of tensors.

A member is Linear -> ReLU -> BatchNorm for each hidden layer, then Linear. Parameters carry a
leading member axis M, so that training is a handful of batched matrix products.

Prediction never builds the upsampled `[N, ΣC, H, W]` tensor. Bilinear upsampling is linear and
acts per channel, so the first layer commutes with it: W·concat_l(up(f_l)) = Σ_l up(W_l·f_l).
Each map is projected at native size, maps of equal size are added, only the sum is upsampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
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
    adjacent: one gather and one upsampling a size, however many maps there are.
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
    """A linear layer a member: weight `[M, out, in]`, bias `[M, out]`."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[M, in, B]` -> `[M, out, B]`."""
        return torch.baddbmm(self.bias[:, :, None], self.weight, x)


class MemberNorm(nn.Module):
    """A batch normalisation a member: weight, bias, running mean and variance `[M, width]`."""

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
        # Members stand side by side as channels of one sample: no copy, one call for them all.
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

    def scale_shift(self, member: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The running normalisation of one member as y = scale·x + shift, `[width]` each."""
        scale = self.weight[member] * torch.rsqrt(self.running_var[member] + self.eps)
        return scale, self.bias[member] - scale * self.running_mean[member]


class Ensemble(nn.Module):
    """M classifiers of pixels described by the feature maps of `spec`.

    `hidden` are the widths of the hidden layers, `classes` the number of classes K. Weights start
    at N(0, 0.02), drawn from `rng`; biases at 0.
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

        `states` holds one state dict a member with keys `layers.{0,3,6}` (linear) and
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
        """Logits `[M, K, B]` of gathered pixels `[M, B, C]`, a batch of its own for each member.

        Channels are in the order of `group_by_size`.
        """
        x = pixels.transpose(1, 2)
        for linear, norm in zip(self.linears[:-1], self.norms, strict=True):
            x = norm(F.relu(linear(x)))
        return self.linears[-1](x)

    def logits(self, features: FeatureMaps, size: tuple[int, int]) -> Iterator[torch.Tensor]:
        """Logits `[N, K, H, W]` of whole images at `size` (H, W), one member after another.

        Batch normalisation uses its running statistics, whatever the mode of the module. The
        features must have the names, order aside, and channels of `spec`.
        """
        tables = channel_last(features, self.groups)
        for member in range(self.members):
            yield self._member_logits(member, tables, size)

    @torch.no_grad()
    def _member_logits(self, member: int, tables: Tables, size: tuple[int, int]) -> torch.Tensor:
        x = self._first_layer(member, tables, size)
        for i, norm in enumerate(self.norms):
            # Normalisation is affine, so it folds into the linear layer that follows it.
            scale, shift = norm.scale_shift(member)
            weight, bias = self._linear(i + 1, member)
            x = x.relu_() @ (weight * scale).T
            x += bias + weight @ shift
        # Classes before pixels: softmax and argmax over a few classes are 5x faster that way.
        return x.transpose(1, 2).contiguous().unflatten(2, size)

    def _first_layer(self, member: int, tables: Tables, size: tuple[int, int]) -> torch.Tensor:
        """Σ_l up(W_l·f_l) + bias, `[N, H·W, hidden]`.

        Channels stay last: PyTorch upsamples that layout 25x faster on a CPU.
        """
        weight, bias = self._linear(0, member)
        columns = weight.split([table.shape[2] for table in tables.values()], 1)
        total: torch.Tensor | None = None
        for (native, table), w in zip(tables.items(), columns, strict=True):
            projected = table @ w.T
            if native != size:
                image = projected.transpose(1, 2).unflatten(2, native)
                image = F.interpolate(image, size, mode="bilinear", align_corners=False)
                projected = image.permute(0, 2, 3, 1).flatten(1, 2)
            total = projected if total is None else total.add_(projected)
        assert total is not None
        return total.add_(bias)

    def _linear(self, layer: int, member: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight `[out, in]` and bias `[out]` of one member."""
        linear = self.linears[layer]
        return linear.weight[member], linear.bias[member]
