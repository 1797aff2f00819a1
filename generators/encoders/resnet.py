"""ResNets of timm as encoders: the inputs of their residual blocks."""

from __future__ import annotations

from timm.models.resnet import ResNet
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import choose_layers
from generators.encoders.vit import Normalise

STAGES = 4
MULTIPLE = 32  # the stride of the last stage


class ResidualNetwork(nn.Module):
    """An `EncoderNetwork` over a ResNet: `layerL.I` is the input of block I of stage L.

    That is the output of the block before it, after its ReLU; `layer1.0` is the stem's. By default
    every second block, as in the DDPM paper's comparison.
    """

    def __init__(self, network: ResNet, config: EncoderConfig, normalise: Normalise | None = None):
        super().__init__()
        self.normalise, self.network = normalise or Normalise(), network
        stages = {f"layer{n}": getattr(network, f"layer{n}") for n in range(1, 1 + STAGES)}
        self._blocks = [(f"{n}.{i}", b) for n, stage in stages.items() for i, b in enumerate(stage)]
        self.layer_names = tuple(name for name, _ in self._blocks)
        self.default_layers = tuple(
            f"{name}.{i}" for name, stage in stages.items() for i in range(0, len(stage), 2)
        )
        self.layers = choose_layers(config.layers, self.layer_names, self.default_layers)
        self.native_size: int | None = None
        self.multiple = MULTIPLE

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers`, at 1/4 of the image's size in the first stage, 1/16 in the last."""
        network, found = self.network, {}
        x: Tensor = network.maxpool(
            network.act1(network.bn1(network.conv1(self.normalise(images))))
        )
        for name, block in self._blocks:
            if name in self.layers:
                found[name] = x
            if name == self.layers[-1]:
                break
            x = block(x)
        return found
