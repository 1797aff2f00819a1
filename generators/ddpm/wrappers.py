"""The state dict of a guided-diffusion network in what trainers wrap it in.

Trainers nest state dicts in dictionaries, prefix the names of tensors (`module.`, `_orig_mod.`,
`ema_model.`) and add counters and buffers. The network is found by the names of its own tensors,
wherever they are. Of several, the weights averaged over training are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LANDMARK = "time_embed.0.weight"  # in every guided-diffusion network
# Names of averaged weights: ema, model_ema, ema_0.9999, params_ema, AveragedModel's counter, ...
AVERAGED = re.compile(r"(^|[^a-z])(ema|swa)([^a-z]|$)|averag|shadow", re.IGNORECASE)
ONLINE = re.compile(r"(^|[^a-z])online([^a-z]|$)")  # ema_pytorch's name of the others
# What wrappers of single layers put into names.
INSIDE = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
SHADOW = "shadow_params"  # of score_sde and torch_ema: averaged weights without names
MAX_DEPTH = 6
SCHEDULE_TOLERANCE = 1e-3  # of the share of signal; linear and cosine differ by up to 0.4


class Found(NamedTuple):
    """A state dict, and where it was.

    `place` is the path of keys and the prefix of names, such as "ema_model" or
    "state_dict: model.", or "" if the file is the state dict. `buffers` are the other tensors
    without a dot in their name beside it, such as betas. `recognised`: the names are those of such
    a network.
    """

    state: dict[str, Tensor]
    place: str
    averaged: bool
    buffers: dict[str, Tensor]
    recognised: bool = True

    @property
    def description(self) -> str:
        """For people: where the weights were, and whether they are averaged."""
        return f"{self.place or 'the whole file'}{' (averaged)' if self.averaged else ''}"

    def contradicts(self, alphas_cumprod: Tensor) -> bool:
        """Whether the noise schedule beside the network, if any, is not this one, float `[T]`."""
        stored = self.buffers.get("alphas_cumprod")
        if stored is None and "betas" in self.buffers:
            stored = (1 - self.buffers["betas"].double()).cumprod(dim=0)
        if stored is None:
            return False
        same_length = stored.shape == alphas_cumprod.shape
        return not same_length or not torch.allclose(
            stored.double(), alphas_cumprod.double(), rtol=0, atol=SCHEDULE_TOLERANCE
        )


def find_state(content: object) -> Found:
    """The state dict in the content of a file: averaged weights if there are any.

    Raises ValueError if there are no tensors by name. If no network is recognised, the result is
    the largest state dict, for the caller to refuse.
    """
    places = list(_mappings(content, "", set()))
    found = [candidate for place, mapping in places for candidate in _candidates(place, mapping)]
    found += [averaged for place, mapping in places for averaged in _shadow(place, mapping, found)]
    if found:
        return max(found, key=lambda candidate: candidate.averaged)  # the first of the best
    states = [(place, _tensors(mapping)) for place, mapping in places]
    place, tensors = max(states, key=lambda state: len(state[1]), default=("", {}))
    if not tensors:
        raise ValueError("found no tensors by name, expected a state dict")
    return Found(tensors, place, averaged=False, buffers={}, recognised=False)


def _mappings(
    content: object, place: str, seen: set[int]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every dictionary in `content`, and its path of keys."""
    if not isinstance(content, Mapping) or id(content) in seen or place.count("/") > MAX_DEPTH:
        return
    seen.add(id(content))
    mapping = {str(key): value for key, value in content.items()}
    yield place, mapping
    for key, value in mapping.items():
        yield from _mappings(value, f"{place}/{key}" if place else key, seen)


def _tensors(mapping: Mapping[str, object]) -> dict[str, Tensor]:
    return {
        INSIDE.sub("", name): value for name, value in mapping.items() if isinstance(value, Tensor)
    }


def _candidates(place: str, mapping: Mapping[str, object]) -> Iterator[Found]:
    """The networks among the tensors of one dictionary, one per prefix of names."""
    tensors = _tensors(mapping)
    counted = COUNTER in tensors
    for landmark in [name for name in tensors if name.endswith(LANDMARK)]:
        prefix = landmark.removesuffix(LANDMARK)
        if prefix and not prefix.endswith("."):
            continue
        names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        own = {name: tensors[prefix + name] for name in names}
        state = {name: tensor for name, tensor in own.items() if not _is_buffer(name, tensor)}
        buffers = {name: t for name, t in (tensors | own).items() if _is_buffer(name, t)}
        where = _place(place, prefix)
        averaged = counted or bool(AVERAGED.search(where) and not ONLINE.search(prefix))
        yield Found(state, where, averaged, buffers)
        yield from _flattened(place, tensors, state, buffers)


def _is_buffer(name: str, tensor: Tensor) -> bool:
    """Counters and schedules of trainers have no dot in their names; the network's tensors do."""
    return "." not in name and tensor.ndim <= 1


def _place(place: str, prefix: str) -> str:
    return ": ".join(part for part in (place, prefix) if part)


def _flattened(
    place: str, tensors: Mapping[str, Tensor], raw: dict[str, Tensor], buffers: dict[str, Tensor]
) -> Iterator[Found]:
    """The averages that latent diffusion's LitEma keeps of `raw`: names without their dots."""
    end = LANDMARK.replace(".", "")
    for landmark in [name for name in tensors if name.endswith(end) and name != LANDMARK]:
        start = landmark.removesuffix(end)
        names = {name: start + name.replace(".", "") for name in raw}
        if AVERAGED.search(start) and all(flat in tensors for flat in names.values()):
            state = {name: tensors[flat] for name, flat in names.items()}
            yield Found(state, _place(place, start), True, buffers)


def _shadow(place: str, mapping: Mapping[str, object], found: Sequence[Found]) -> Iterator[Found]:
    """Averaged weights in a list: those of a network of `found`, in the order of its tensors."""
    shadow = mapping.get(SHADOW)
    if not isinstance(shadow, Sequence) or not all(isinstance(t, Tensor) for t in shadow):
        return
    for raw in found:
        shapes = [tensor.shape for tensor in raw.state.values()]
        if shapes == [tensor.shape for tensor in shadow]:
            state = dict(zip(raw.state, shadow, strict=True))
            yield Found(state, _place(place, SHADOW), True, raw.buffers)
            return
