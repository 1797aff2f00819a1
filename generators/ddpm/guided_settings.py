"""What a guided-diffusion file does not say: its settings, given or assumed.

Such a file holds tensors alone. Attention heads, noise schedule, number of training steps and what
is predicted leave no trace in them. The defaults are those of the published network of the same
shape, and else those of the guided-diffusion program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict, Unpack

from diffusers import DDPMScheduler

from generators.ddpm.architecture import Architecture
from generators.ddpm.config import Parametrisation

AttentionOrder = Literal["legacy", "new"]
Schedule = Literal["linear", "cosine"]
Prediction = Literal["epsilon", "x_start", "v"]

COARSEST_PX = 8  # side of the coarsest level in each size of network that ADM defines
DIFFUSERS_SCHEDULE: dict[Schedule, str] = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
DIFFUSERS_PREDICTION: dict[Prediction, str] = {
    "epsilon": "epsilon",
    "x_start": "sample",
    "v": "v_prediction",
}
# guided-diffusion's linear schedule runs from 1e-4 to 0.02 over 1000 steps; other numbers of steps
# scale it. With so few steps, the last would erase the image completely.
TOO_FEW_LINEAR_STEPS = 20


SCHEDULE_KEYS = ("schedule", "train_steps", "predicts")
TIMESTEP_KEYS = (*SCHEDULE_KEYS, "rescale_timesteps")


class GivenSettings(TypedDict, total=False):
    """Settings that a guided-diffusion file lacks; None: not given. For their meaning, `Settings`.

    The keys are those of a recipe's `generator` section.
    """

    parametrisation: Parametrisation | None
    image_size: int | None
    channels_per_head: int | None
    heads: int | None
    num_heads_upsample: int | None
    attention_order: AttentionOrder | None
    schedule: Schedule | None
    train_steps: int | None
    rescale_timesteps: bool | None
    predicts: Prediction | None


@dataclass(frozen=True)
class Settings:
    """What names and shapes hide. Exactly one of `channels_per_head` and `heads` is set."""

    image_size: int  # pixels
    channels_per_head: int | None = None
    heads: int | None = 4  # the same number at every width
    num_heads_upsample: int | None = None  # heads of the decoder, if not the same as elsewhere
    attention_order: AttentionOrder = "legacy"  # heads, then q, k, v in each; new: the reverse
    schedule: Schedule = "linear"
    train_steps: int = 1000
    rescale_timesteps: bool = False  # the network is given t * 1000 / train_steps
    predicts: Prediction = "epsilon"
    parametrisation: Parametrisation | None = None  # of consistency_models' networks
    assumed: frozenset[str] = field(default=frozenset(), compare=False)  # keys that were not given

    @classmethod
    def choose(cls, net: Architecture, **given: Unpack[GivenSettings]) -> Settings:
        """The given settings, completed by those of the published network of this shape, if any.

        Raises ValueError if they contradict each other or do not fit the network.
        """
        chosen = {key: value for key, value in given.items() if value is not None}
        check_parametrised(given)
        coarsest = 2 ** (len(net.channels) - 1)
        default = PUBLISHED.get(_family(net)) or cls(COARSEST_PX * coarsest)
        if "parametrisation" in chosen:  # all networks of that program have the same attention
            default = cls(
                COARSEST_PX * coarsest, channels_per_head=64, heads=None, attention_order="new"
            )
        settings = replace(default, **_with_heads(chosen))
        assumed = {f.name for f in fields(cls)} - {"assumed", *chosen, *_implied(chosen, settings)}
        settings = replace(settings, assumed=frozenset(assumed))
        settings._check(net, coarsest)
        if settings.heads and not settings.num_heads_upsample:
            widths = net.attention_channels
            if len(widths) == 1:  # which diffusers can express
                return replace(settings, channels_per_head=widths[0] // settings.heads, heads=None)
        return settings

    def _check(self, net: Architecture, coarsest: int) -> None:
        if self.image_size % coarsest:
            raise ValueError(
                f"image_size is {self.image_size}, expected a multiple of {coarsest}: the network "
                f"has {len(net.channels)} levels"
            )
        for key in ("channels_per_head", "heads", "num_heads_upsample"):
            divisor = getattr(self, key)
            if divisor and (unfit := [w for w in net.attention_channels if w % divisor]):
                raise ValueError(
                    f"found attention over {unfit} channels, expected multiples of {divisor}: set "
                    f"{key} to what the network was trained with"
                )


def check_parametrised(given: Mapping[str, Any]) -> None:
    """Raise ValueError if settings of timesteps are given for a network that sees noise levels."""
    kind = given.get("parametrisation")
    if kind and (needless := [key for key in TIMESTEP_KEYS if given.get(key) is not None]):
        raise ValueError(
            f"found {needless[0]} with parametrisation {kind}, which has noise levels of its own: "
            f"remove {needless[0]}"
        )


def _with_heads(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with None for the way of counting heads that it replaces."""
    if "channels_per_head" not in given:
        counted = {"heads", "num_heads_upsample"} & given.keys()
        return {"channels_per_head": None, "heads": 4, **given} if counted else dict(given)
    if other := [key for key in ("heads", "num_heads_upsample") if key in given]:
        raise ValueError(f"found both channels_per_head and {other[0]}, expected one of them")
    return {"heads": None, **given}


def _implied(given: Mapping[str, Any], settings: Settings) -> set[str]:
    """Keys that need no assumption, because of what is given or because they change nothing."""
    implied = {key for key in ("channels_per_head", "heads") if getattr(settings, key) is None}
    if "heads" not in given:
        implied.add("num_heads_upsample")  # an assumed number of heads is one assumption, not two
    implied.add("parametrisation")  # the tensors differ
    if settings.parametrisation:
        implied |= set(TIMESTEP_KEYS)
    if settings.train_steps == 1000:
        implied.add("rescale_timesteps")
    return implied


def noise_schedule(net: Architecture, settings: Settings) -> DDPMScheduler:
    """The schedule of training; for a network that sees noise levels, that of the DDPM paper."""
    if settings.parametrisation:
        return schedule_of()
    variance = "learned_range" if net.learns_sigma else "fixed_large"
    return schedule_of(settings.schedule, settings.train_steps, settings.predicts, variance)


def schedule_of(
    schedule: Schedule = "linear",
    train_steps: int = 1000,
    predicts: Prediction = "epsilon",
    variance_type: str = "fixed_small",
) -> DDPMScheduler:
    """guided-diffusion's schedule in diffusers' form; by default that of the DDPM paper.

    Raises ValueError for too few steps.
    """
    if schedule == "linear" and train_steps <= TOO_FEW_LINEAR_STEPS:
        raise ValueError(
            f"train_steps is {train_steps}, expected more than {TOO_FEW_LINEAR_STEPS} with "
            f"schedule linear"
        )
    scale = 1000 / train_steps
    return DDPMScheduler(
        num_train_timesteps=train_steps,
        beta_start=1e-4 * scale,
        beta_end=0.02 * scale,
        beta_schedule=DIFFUSERS_SCHEDULE[schedule],
        prediction_type=DIFFUSERS_PREDICTION[predicts],
        variance_type=variance_type,
    )


def _family(net: Architecture) -> Architecture:
    """`net` without what does not decide the settings: networks are fine-tuned on other classes."""
    return replace(net, num_classes=None, learns_sigma=True)


# The published networks, https://github.com/openai/guided-diffusion#classifier-guidance, by shape.
LSUN = Architecture(  # also FFHQ of Baranchuk et al. 2022, and ImageNet at 256 px
    time_channels=256,
    channels=(256, 256, 512, 512, 1024, 1024),
    resnets_per_level=2,
    attends=(False, False, False, True, True, True),
)
IMAGENET_64 = Architecture(
    time_channels=192,
    channels=(192, 384, 576, 768),
    resnets_per_level=3,
    attends=(False, True, True, True),
)
IMAGENET_128 = Architecture(
    time_channels=256,
    channels=(256, 256, 512, 768, 1024),
    resnets_per_level=2,
    attends=(False, False, True, True, True),
)
IMAGENET_512 = Architecture(
    time_channels=256,
    channels=(128, 256, 256, 512, 512, 1024, 1024),
    resnets_per_level=2,
    attends=(False, False, False, False, True, True, True),
)
PUBLISHED = {
    LSUN: Settings(256, channels_per_head=64, heads=None),
    IMAGENET_64: Settings(
        64, channels_per_head=64, heads=None, attention_order="new", schedule="cosine"
    ),
    IMAGENET_128: Settings(128, heads=4),
    IMAGENET_512: Settings(512, channels_per_head=64, heads=None),
}
