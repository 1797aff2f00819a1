"""The segmentation network: a model between uint8 images and logits of the same size."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from factory_core.segmentation_unet import (
    SegmentationUNet,
    UNetDescription,
    small_unet,
    training_format,
)
from factory_core.symmetries import mean_logits, symmetries
from train_seg.config import UNET_GN, SegmenterConfig
from train_seg.network.pretrained import load_encoder, weights_file
from train_seg.network.sizes import Sizes, sizes_of

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TO_UNIT_RANGE = ((0.5,) * 3, (0.5,) * 3)  # [-1, 1], as the images of diffusion models


class Network(torch.nn.Module):
    """A model with its normalisation and sizes: uint8 images in, logits of the same size out."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        config: SegmenterConfig,
        classes: int,
        image_size: tuple[int, int],
        pretrained: bool,
        start: Mapping[str, torch.Tensor] | None = None,
    ):
        """`image_size` (height, width) is the training size; other images are resized to it.

        `pretrained` False leaves the encoder random too, for weights that are loaded afterwards.
        `start` holds the weights of the generator with the U-Net `config.unet`.
        """
        super().__init__()
        sizes = sizes_of(config, image_size)
        self.net: torch.nn.Module
        if config.is_unet_gn:
            shape = dict(config.unet or small_unet(max(image_size), config.width).config)
            if config.dropout is not None:
                shape["dropout"] = config.dropout
            unet = SegmentationUNet(UNetDescription(shape, start or {}), classes)
            self.net, stride, (mean, std) = unet, unet.stride, TO_UNIT_RANGE
        else:
            model = _smp_model(config, sizes, classes, pretrained)
            self.net, stride, (mean, std) = model, model.encoder.output_stride, IMAGENET
        self.input_size = tuple(
            math.ceil(side * sizes.input_scale / stride) * stride for side in image_size
        )
        self.views = symmetries()
        if config.averaged:
            moved, is_square = config.augment, self.input_size[0] == self.input_size[1]
            turns = moved.quarter_turns and is_square
            self.views = symmetries(moved.horizontal_flip, moved.vertical_flip, turns)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        if not config.is_unet_gn:  # whose format depends on its use: see `_memory_format`
            self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float `[N, K, h, w]` of images uint8 `[N, 3, h, w]`.

        Outside training, those of the mean probabilities if `config.averaged`.
        """
        size = images.shape[-2:]
        x = (images.float() / 255 - self.mean) / self.std
        if tuple(size) != self.input_size:
            x = F.interpolate(x, self.input_size, mode="bilinear", antialias=True)
        x = x.contiguous(memory_format=self._memory_format(x.device))
        if self.training:
            logits = self.net(x)
        else:
            logits = mean_logits([back(self.net(there(x))) for there, back in self.views])
        if tuple(size) != self.input_size:
            logits = F.interpolate(logits, size, mode="bilinear")
        return logits

    def _memory_format(self, device: torch.device) -> torch.memory_format:
        if self.training and isinstance(self.net, SegmentationUNet):
            return training_format(device)
        return torch.channels_last

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """`mean` and `std` per channel, of images divided by 255; the network applies them."""
        values = {"mean": self.mean, "std": self.std}
        return {name: [round(v, 6) for v in t.flatten().tolist()] for name, t in values.items()}


def _smp_model(config: SegmenterConfig, sizes: Sizes, classes: int, pretrained: bool) -> Any:
    weights = config.encoder_weights if pretrained else None
    file = weights_file(weights)
    net = smp.create_model(
        config.architecture,
        encoder_name=config.encoder,
        encoder_depth=sizes.encoder_depth,
        encoder_weights=weights if file is None else None,
        classes=classes,
        **_own_settings(config, sizes),
    )
    # smp builds all stages of a ResNet whatever the depth: the unused ones would take up most of
    # the file.
    for stage in ("layer3", "layer4")[sizes.encoder_depth - 3 :]:
        if hasattr(net.encoder, stage):
            setattr(net.encoder, stage, torch.nn.Identity())
    if file is not None:
        load_encoder(net.encoder, file)
    return net


def _own_settings(config: SegmenterConfig, sizes: Sizes) -> dict[str, Any]:
    """The settings of the architecture in `config`, without the encoder's, under smp's names.

    Raises ValueError if the architecture is unknown, or has no dropout to set.
    """
    kinds = smp.MODEL_ARCHITECTURES_MAPPING
    if config.architecture.lower() not in kinds:
        names = [*(kind.__name__ for kind in kinds.values()), UNET_GN]
        near = difflib.get_close_matches(config.architecture, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(names)}"
        raise ValueError(f"unknown architecture '{config.architecture}', {hint}")
    kind = kinds[config.architecture.lower()]
    parameters = inspect.signature(kind).parameters
    settings: dict[str, Any] = {
        "encoder_output_stride": config.output_stride,
        "decoder_atrous_rates": sizes.atrous_rates,
    }
    dropouts = [name for name in parameters if name.endswith("dropout")]
    if config.dropout is not None:
        if not dropouts:
            raise ValueError("this architecture has no dropout; leave that setting out")
        settings |= dict.fromkeys(dropouts, config.dropout)
    settings = {name: value for name, value in settings.items() if name in parameters}
    channels = getattr(parameters.get("decoder_channels"), "default", None)
    if isinstance(channels, tuple):  # U-Nets: one per stage
        settings["decoder_channels"] = channels[: sizes.encoder_depth]
    if kind is smp.PSPNet:  # upsamples once, from the encoder's last map to the image
        settings["upsampling"] = 2**sizes.encoder_depth
    return settings


def build(
    config: SegmenterConfig,
    classes: int,
    image_size: tuple[int, int],
    pretrained: bool = True,
    start: Mapping[str, torch.Tensor] | None = None,
) -> Network:
    """The network of `config`; arguments as for `Network`.

    Raises:
        ValueError: fewer than two classes, segmentation-models-pytorch does not know the
            architecture or the encoder, or cannot combine the settings, or the weights `start` do
            not fit `config.unet`.
    """
    if classes < 2:
        raise ValueError(f"found {classes} class, expected at least 2")
    try:
        return Network(config, classes, image_size, pretrained, start)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0][:200]
        if config.is_unet_gn:
            raise ValueError(f"cannot build {UNET_GN}: {reason}") from error
        what = f"cannot build {config.architecture} on encoder '{config.encoder}'"
        if reason.startswith("Wrong encoder name"):
            names = smp.encoders.get_encoder_names()  # hundreds, all of them in smp's error
            near = difflib.get_close_matches(config.encoder, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "expected e.g. resnet18"
            raise ValueError(f"{what}: unknown encoder, {hint}") from None
        raise ValueError(f"{what} with weights {config.encoder_weights!r}: {reason}") from error


def check_sizes(network: Network, image_size: tuple[int, int]) -> None:
    """Raise ValueError unless the logits are as large as images of the training size.

    Some architectures take images of one size only, or no small ones. They fail only when used.
    """
    found = ""
    try:
        with torch.inference_mode():
            logits = network.eval()(torch.zeros(1, 3, *image_size, dtype=torch.uint8))
        if tuple(logits.shape[-2:]) != image_size:
            found = f"its output has {logits.shape[-2]}x{logits.shape[-1]} pixels"
    except (RuntimeError, ValueError, AssertionError) as error:
        found = str(error).splitlines()[0][:200]
    network.train()
    if found:
        height, width = network.input_size
        raise ValueError(
            f"this architecture and encoder_depth cannot take images of {height}x{width}: {found}; "
            "set image_size, input_scale or encoder_depth"
        )


def weights_bytes(network: torch.nn.Module) -> bytes:
    """The weights as a safetensors file."""
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    return safetensors.torch.save(state)
