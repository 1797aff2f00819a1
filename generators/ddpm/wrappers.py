"""The state dict of a guided-diffusion network in what trainers wrap it in.

Trainers nest state dicts in dictionaries and lists, prefix the names of tensors (`module.`,
`_orig_mod.`, `ema_model.`) and add counters and buffers. The network is found by the names of its
own tensors, wherever they are. Of several, the weights averaged over training are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LANDMARK = "time_embed.0.weight"  # in every guided-diffusion network
# Names of averaged weights: ema, model_ema, modelEMA, ema_0.9999, params_ema, avg_model, ...
AVERAGED = re.compile(
    r"(^|[^a-z])(?i:ema|swa|avg|polyak)(?![a-zA-Z])|[a-z]E(MA|ma)(?![a-z])|"
    r"(^|[^a-zA-Z])(ema|swa)(?=[A-Z])|(?i:averag|shadow)"
)
# ema_pytorch's name of the others, and names that say so.
ONLINE = re.compile(r"(^|[^a-z])(online([^a-z]|$)|(non?|not|without)_?ema)", re.IGNORECASE)
INDEX = re.compile(r"\[(\d+)\]")  # in a list
DECAY = re.compile(r"0?\.\d+")  # in the name of an average
OPTIMIZER = re.compile(r"(^|[^a-z])(optim|exp_avg)", re.IGNORECASE)  # its averages have no network
# What wrappers of single layers put into names.
INSIDE = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
SHADOW = "shadow_params"  # of score_sde and torch_ema: averaged weights without names
MAX_DEPTH = 6
SCHEDULE_TOLERANCE = 1e-3  # of the share of signal; linear and cosine differ by up to 0.4


class Found(NamedTuple):
    """A state dict, and where it was.

    `place` is the path of keys and the prefix of names, such as "ema_model" or
    "state_dict: model.", or "" if the file is the state dict. `schedules` are the noise schedules
    in the file, as alphas_cumprod `[T]`. `recognised`: the names are those of such a network.
    """

    state: dict[str, Tensor]
    place: str
    averaged: bool
    schedules: tuple[Tensor, ...] = ()
    recognised: bool = True

    @property
    def description(self) -> str:
        """For people: where the weights were, and whether they are averaged."""
        return f"{self.place or 'the whole file'}{' (averaged)' if self.averaged else ''}"

    def contradicts(self, alphas_cumprod: Tensor) -> bool:
        """Whether there are noise schedules in the file, but not this one, float64 `[T]`."""
        return bool(self.schedules) and not any(
            stored.shape == alphas_cumprod.shape
            and torch.allclose(stored, alphas_cumprod.double(), rtol=0, atol=SCHEDULE_TOLERANCE)
            for stored in self.schedules
        )

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Higher is better: averaged weights, the longest average, the later one of a list.

        The lists of ermongroup/ddim and NCSN end with the averaged weights.
        """
        decays = map(float, DECAY.findall(self.place) if self.averaged else ())
        indices = map(int, INDEX.findall(self.place))
        return self.averaged, max(decays, default=0.0), max(indices, default=0)


def find_state(content: object) -> Found:
    """The state dict in the content of a file: averaged weights if there are any.

    Raises ValueError if there are no tensors by name. If no network is recognised, the result is
    the largest state dict, for the caller to refuse.
    """
    places = list(_mappings(content, "", set()))
    found = [candidate for place, mapping in places for candidate in _candidates(place, mapping)]
    found += [averaged for place, mapping in places for averaged in _shadow(place, mapping, found)]
    if found:
        best = max(found, key=lambda candidate: candidate.rank)  # the first of the best
        return best._replace(schedules=tuple(s for _, m in places for s in _schedules(m)))
    states = [(place, _tensors(mapping)) for place, mapping in places]
    place, tensors = max(states, key=lambda state: len(state[1]), default=("", {}))
    if not tensors:
        raise ValueError("found no tensors by name, expected a state dict")
    return Found(tensors, place, averaged=False, recognised=False)


def _mappings(
    content: object, place: str, seen: set[int]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every dictionary in `content`, and its path of keys."""
    if (
        not isinstance(content, Mapping | list)
        or id(content) in seen
        or place.count("/") + place.count("[") > MAX_DEPTH
    ):
        return
    seen.add(id(content))
    if isinstance(content, list):
        for index, value in enumerate(content):
            yield from _mappings(value, f"{place}[{index}]", seen)
        return
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
    if OPTIMIZER.search(place):
        return
    for landmark in [name for name in tensors if name.endswith(LANDMARK)]:
        prefix = landmark.removesuffix(LANDMARK)
        if prefix and not prefix.endswith("."):
            continue
        names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        own = {name: tensors[prefix + name] for name in names}
        state = {name: tensor for name, tensor in own.items() if not _is_buffer(name, tensor)}
        where = _place(place, prefix)
        parts = prefix.split(".")
        counted = any(".".join((*parts[:i], COUNTER)) in tensors for i in range(len(parts)))
        averaged = counted or bool(AVERAGED.search(where) and not ONLINE.search(where))
        yield Found(state, where, averaged)
        yield from _flattened(place, tensors, state)


def _schedules(mapping: Mapping[str, object]) -> Iterator[Tensor]:
    """Noise schedules among the tensors of one dictionary, as alphas_cumprod `[T]`, float64."""
    for name, tensor in _tensors(mapping).items():
        kind = name.rpartition(".")[2]
        if tensor.ndim == 1 and kind == "alphas_cumprod":
            yield tensor.double()
        elif tensor.ndim == 1 and kind == "betas":
            yield (1 - tensor.double()).cumprod(dim=0)


def _is_buffer(name: str, tensor: Tensor) -> bool:
    """Counters and schedules of trainers have no dot in their names; the network's tensors do."""
    return "." not in name and tensor.ndim <= 1


def _place(place: str, prefix: str) -> str:
    return ": ".join(part for part in (place, prefix) if part)


def _flattened(
    place: str, tensors: Mapping[str, Tensor], raw: dict[str, Tensor]
) -> Iterator[Found]:
    """The averages that latent diffusion's LitEma keeps of `raw`: names without their dots."""
    end = LANDMARK.replace(".", "")
    for landmark in [name for name in tensors if name.endswith(end) and name != LANDMARK]:
        start = landmark.removesuffix(end)
        names = {name: start + name.replace(".", "") for name in raw}
        if AVERAGED.search(start) and all(flat in tensors for flat in names.values()):
            state = {name: tensors[flat] for name, flat in names.items()}
            yield Found(state, _place(place, start), True)


def _shadow(place: str, mapping: Mapping[str, object], found: Sequence[Found]) -> Iterator[Found]:
    """Averaged weights in a list: those of a network of `found`, in the order of its tensors."""
    shadow = mapping.get(SHADOW)
    if not isinstance(shadow, Sequence) or not all(isinstance(t, Tensor) for t in shadow):
        return
    for raw in found:
        shapes = [tensor.shape for tensor in raw.state.values()]
        if shapes == [tensor.shape for tensor in shadow]:
            state = dict(zip(raw.state, shadow, strict=True))
            yield Found(state, _place(place, SHADOW), True)
            return
