"""Any vision transformer or ResNet of timm, by its name there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.eva import Eva
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer as Transformer
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.resnet import ResidualNetwork
from generators.encoders.vit import NORM, Normalise, VisionTransformer

LAST = 4  # blocks of a transformer, as of DINO


def build(checkpoint: Checkpoint, config: EncoderConfig) -> nn.Module:
    """The model `config.timm_model` with the weights of `checkpoint`, which timm has renamed.

    Its classifier is dropped. By default, a transformer's last four blocks after the final norm, or
    the inputs of every second block of a ResNet.
    """
    name = config.timm_model or ""
    if not timm.is_model(name):
        raise ValueError(
            f"generator.timm_model: timm {timm.__version__} has no {name!r}: expected a name such "
            "as vit_base_patch16_224, see timm.list_models()"
        )
    model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    if not isinstance(model, Transformer | Eva | ResNet):
        raise ValueError(
            f"generator.timm_model: {name} is a {type(model).__name__}, expected a vision "
            "transformer or a ResNet"
        )
    cfg: Any = model.pretrained_cfg
    classifiers = cfg["classifier"] or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    prefixes = tuple(f"{head}." for head in heads)
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(prefixes)}
    normalise = Normalise(cfg["mean"], cfg["std"])
    if isinstance(model, ResNet):
        load_strictly(model, tensors, f"timm's {name}")
        return ResidualNetwork(model, config, normalise)
    model = timm.create_model(
        name, pretrained=False, num_classes=0, dynamic_img_size=True, **_size(model, tensors)
    )
    load_strictly(model, tensors, f"timm's {name}")
    return VisionTransformer(model, config, NORM, LAST, native_size=None, normalise=normalise)


def _size(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """`img_size` of the images that the table of positions in `tensors` belongs to."""
    positions = tensors.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return {}
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    side = math.isqrt(max(positions.shape[1] - prefix, 1))
    return {"img_size": side * model.patch_embed.patch_size[0]}
