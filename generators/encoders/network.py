"""What every network of `generators.encoders` offers, and what their modules share.

A module such as `generators.encoders.mae` has one entry point, `build`, a `Build`: it makes the
network that a checkpoint holds, with all its weights. It reads widths and depths from the shapes of
the tensors, and is strict: a tensor that is missing or unexpected is an error. What is known not to
matter for features (a decoder, a head) is named and dropped before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from generators.encoders.config import EncoderConfig


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights, as `generators.encoders.files` reads it.

    `tensors` has the tensors by their names in the state dict, `module.` removed. The state dicts
    that a checkpoint of ALAE holds by name are one: `discriminator_s.from_rgb.0.from_rgb.weight`.
    `settings` has the plain values beside the state dict: the `opts` of an e4e checkpoint.
    """

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)


class EncoderNetwork(Protocol):
    """A network that gives activations of images. Its classes derive from `nn.Module`."""

    layer_names: tuple[str, ...]
    """All maps that can be asked for, in the order in which the network makes them."""

    default_layers: tuple[str, ...]
    """Those of the comparison in the DDPM paper, or of the network's own paper."""

    layers: tuple[str, ...]
    """Those that were asked for, in the order of `layer_names`."""

    native_size: int | None
    """Pixels per side of the images that the network needs; None: any `multiple`."""

    multiple: int
    """The sides of images must be multiples of this."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers` of images uint8 `[N, 3, H, W]`, each `[N, C, h, w]` at native size.

        The images are on the network's device and have a size that it takes. The network normalises
        them itself, and stops after the last of its `layers`.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All its weights (`nn.Module.state_dict`); the digest of the encoder is over these."""
        ...


class Build(Protocol):
    """Makes a network, in evaluation mode, on the CPU, in float32."""

    def __call__(self, checkpoint: Checkpoint, config: EncoderConfig) -> nn.Module:
        """The `EncoderNetwork` of `checkpoint`, for the layers `config.layers` (None: the default).

        Raises ValueError in one line if the checkpoint or the layers do not fit.
        """
        ...


def choose_layers(
    asked: Sequence[str] | None, names: Sequence[str], default: Sequence[str]
) -> tuple[str, ...]:
    """The layers `asked` for in the order of `names`; None: `default`. Refuses unknown names."""
    if unknown := [name for name in asked or () if name not in names]:
        raise ValueError(
            f"generator.layers: unknown layer {unknown[0]!r}: expected some of {', '.join(names)}"
        )
    wanted = default if asked is None else asked
    return tuple(name for name in names if name in wanted)


def take(walk: Iterable[tuple[str, Tensor]], layers: Sequence[str]) -> dict[str, Tensor]:
    """The maps `layers` of a walk through a network, which ends after the last of them."""
    found: dict[str, Tensor] = {}
    for name, x in walk:
        if name in layers:
            found[name] = x
            if len(found) == len(layers):
                break
    return {name: found[name] for name in layers}


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load all of `tensors` into `network`, which has no others, in float32, and freeze it.

    The network may be on torch's meta device, where building it costs nothing: the tensors take the
    place of its own.

    `what` names the network in the error. Raises ValueError in one line if names or shapes differ,
    or if a weight is not finite.
    """
    expected = network.state_dict()
    for problem, names in (
        ("is missing", [name for name in expected if name not in tensors]),
        ("is unexpected", [name for name in tensors if name not in expected]),
    ):
        if names:
            raise ValueError(
                f"not the weights of {what}: {names[0]} {problem} ({len(names)} such tensors of "
                f"{len(expected)}): give the complete checkpoint, as it was published"
            )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"not the weights of {what}: {name} has shape {list(tensor.shape)}, expected "
                f"{list(expected[name].shape)}: give the complete checkpoint, as it was published"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite: copy or download the checkpoint again")
    found = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    network.load_state_dict(found, strict=True, assign=True)
    network.requires_grad_(False).eval()
