"""The segmentation network, and the artefact that a training leaves behind."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch.nn import functional as F

from factory_core.dataset import default_palette, write_json
from factory_core.device import pick_device
from factory_core.storage import write_bytes
from train_seg.config import SegmenterConfig

WEIGHTS_NAME = "model.safetensors"
ABOUT_NAME = "model.json"
FORMAT_VERSION = 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Network(torch.nn.Module):
    """A model with its normalisation and sizes: images uint8 in, logits of the same size out."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, config: SegmenterConfig, classes: int, image_size: tuple[int, int], pretrained: bool
    ):
        """`image_size` (height, width) is the size of training; images of others are resized."""
        super().__init__()
        self.net = smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            encoder_depth=config.encoder_depth,
            encoder_weights=config.encoder_weights if pretrained else None,
            classes=classes,
            **_own_settings(config),
        )
        # smp builds all stages of a ResNet whatever the depth: the unused ones would be most of
        # the file.
        for stage in ("layer3", "layer4")[config.encoder_depth - 3 :]:
            if hasattr(self.net.encoder, stage):
                setattr(self.net.encoder, stage, torch.nn.Identity())
        stride = self.net.encoder.output_stride
        self.input_size = tuple(
            math.ceil(side * config.input_scale / stride) * stride for side in image_size
        )
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float `[N, K, h, w]` of images uint8 `[N, 3, h, w]`."""
        size = images.shape[-2:]
        x = (images.float() / 255 - self.mean) / self.std
        if tuple(size) != self.input_size:
            x = F.interpolate(x, self.input_size, mode="bilinear", antialias=True)
        logits = self.net(x.contiguous(memory_format=torch.channels_last))
        if tuple(size) != self.input_size:
            logits = F.interpolate(logits, size, mode="bilinear")
        return logits


def _own_settings(config: SegmenterConfig) -> dict[str, Any]:
    """What `config` says to its architecture beside the encoder, by the names of smp.

    Raises ValueError if there is no such architecture, or it has no dropout to set.
    """
    kinds = smp.MODEL_ARCHITECTURES_MAPPING
    if config.architecture.lower() not in kinds:
        names = [kind.__name__ for kind in kinds.values()]
        near = difflib.get_close_matches(config.architecture, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(names)}"
        raise ValueError(f"segmentation-models-pytorch has none so called: {hint}")
    kind = kinds[config.architecture.lower()]
    parameters = inspect.signature(kind).parameters
    settings: dict[str, Any] = {
        "encoder_output_stride": config.output_stride,
        "decoder_atrous_rates": config.atrous_rates,
    }
    dropouts = [name for name in parameters if name.endswith("dropout")]
    if config.dropout is not None:
        if not dropouts:
            raise ValueError("it has no dropout: leave that setting out")
        settings |= dict.fromkeys(dropouts, config.dropout)
    settings = {name: value for name, value in settings.items() if name in parameters}
    channels = getattr(parameters.get("decoder_channels"), "default", None)
    if isinstance(channels, tuple):  # of U-Nets: one a stage
        settings["decoder_channels"] = channels[: config.encoder_depth]
    if kind is smp.PSPNet:  # upsamples once, from the encoder's last map to the image
        settings["upsampling"] = 2**config.encoder_depth
    return settings


def build(
    config: SegmenterConfig, classes: int, image_size: tuple[int, int], pretrained: bool = True
) -> Network:
    """The network of `config`; `pretrained` False leaves even its encoder random (to be loaded).

    Raises:
        ValueError: segmentation-models-pytorch has no such architecture or encoder, or cannot
            build it so.
    """
    if classes < 2:
        raise ValueError(f"found {classes} class, expected at least 2")
    try:
        return Network(config, classes, image_size, pretrained)
    except (KeyError, ValueError, RuntimeError) as error:
        what = f"cannot build {config.architecture} on encoder '{config.encoder}'"
        if str(error.args[0] if error.args else "").startswith("Wrong encoder name"):
            names = smp.encoders.get_encoder_names()  # some hundreds: smp's error lists them all
            near = difflib.get_close_matches(config.encoder, names, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ", expected e.g. resnet18"
            raise ValueError(
                f"{what}: segmentation-models-pytorch has none so called{hint}"
            ) from None
        reason = str(error.args[0] if error.args else error).splitlines()[0][:200]
        raise ValueError(f"{what} with weights {config.encoder_weights!r}: {reason}") from error


def check_sizes(network: Network, image_size: tuple[int, int]) -> None:
    """Raise ValueError unless the network gives logits as large as its images of training.

    Some architectures take images of one size only, or none so small, which shows in use alone.
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


@dataclass
class Segmenter:
    """A trained segmenter with all it takes to use it."""

    network: Network
    config: SegmenterConfig
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int]
    training_digest: str
    scores: dict[str, Any] = field(default_factory=dict)
    """of the validation set: what `Scores.to_dict` gives, empty without one"""
    skipped: dict[str, int] = field(default_factory=dict)
    """damaged training samples that were left out, by reason"""

    @classmethod
    def create(
        cls,
        network: Network,
        config: SegmenterConfig,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None,
        image_size: tuple[int, int],
        training_digest: str,
        scores: dict[str, Any],
        skipped: dict[str, int] | None = None,
    ) -> Segmenter:
        """Pack up a network; without a `palette` the classes get the default colours."""
        colours = [list(c) for c in palette or default_palette(len(classes))]
        return cls(
            network.eval(),
            config,
            list(classes),
            colours,
            image_size,
            training_digest,
            scores,
            skipped or {},
        )

    def predict(self, images: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
        """Class ids uint8 `[N, h, w]` of images uint8 `[N, 3, h, w]` of any size.

        Images are resized to the size of training, their logits back to `h` x `w`. Raises
        ValueError for any other type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"found images {images.dtype} of shape {list(images.shape)}, expected torch.uint8 "
                "RGB [N, 3, h, w] of 0-255"
            )
        device = next(self.network.parameters()).device
        self.network.eval()
        masks = [torch.empty(0, *images.shape[-2:], dtype=torch.uint8)]
        with torch.inference_mode():
            for batch in images.split(batch_size):
                masks.append(self.network(batch.to(device)).argmax(1).to(torch.uint8).cpu())
        return torch.cat(masks)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors, then model.json, each under its name only when complete."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = weights_bytes(self.network)
        write_bytes(path / WEIGHTS_NAME, weights)
        about = {
            "format_version": FORMAT_VERSION,
            "architecture": self.config.architecture,
            "encoder": self.config.encoder,
            "classes": self.classes,
            "palette": self.palette,
            "image_size": list(self.image_size),
            "normalisation": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "training_digest": self.training_digest,
            "scores": self.scores,
            "skipped": self.skipped,
            "config": self.config.model_dump(mode="json"),
        }
        write_json(path / ABOUT_NAME, about)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Segmenter:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: model.json or model.safetensors is missing.
            ValueError: one of them is damaged, of another version, or they do not match.
        """
        path = Path(folder)
        for name in (ABOUT_NAME, WEIGHTS_NAME):
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f"{path} holds no {name}: expected a folder written by `factory train-deeplab`"
                )
        try:
            about = json.loads((path / ABOUT_NAME).read_bytes())
            if (version := about.get("format_version")) != FORMAT_VERSION:
                raise ValueError(f"format version {version}, expected {FORMAT_VERSION}")
            weights = (path / WEIGHTS_NAME).read_bytes()
            if hashlib.sha256(weights).hexdigest() != about.get("weights_sha256"):
                raise ValueError(
                    f"{WEIGHTS_NAME} is damaged or does not belong to {ABOUT_NAME} (sha256 "
                    "differs): copy both again, or run the training again"
                )
            config = SegmenterConfig(**about["config"])
            size = (about["image_size"][0], about["image_size"][1])
            network = build(config, len(about["classes"]), size, pretrained=False)
            network.load_state_dict(safetensors.torch.load(weights))
        except ValidationError as error:
            raise ValueError(f"{path / ABOUT_NAME}: {error.errors()[0]['msg']}") from None
        except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} holds no usable model: {reason}") from None
        return cls(
            network.eval().to(pick_device(device)),
            config,
            about["classes"],
            about["palette"],
            size,
            about["training_digest"],
            about["scores"],
            about.get("skipped", {}),  # absent from models of earlier versions
        )


def weights_bytes(network: Network) -> bytes:
    """The weights as a safetensors file."""
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    return safetensors.torch.save(state)
