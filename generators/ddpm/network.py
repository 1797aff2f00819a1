"""A U-Net prepared for fast evaluation: number format, memory layout, compilation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from factory_core.device import send
from generators.ddpm.unet import cast_weights, check_walkable, embed, walk

# From this many activations at the finest level (128 x 128 pixels, 64 channels), a CPU is busy with
# one sample: measured in bfloat16, 16 at a time cost as much each (at 256 x 256 a sixth more), and
# their memory grows with their number.
LARGE_NETWORK = 2**20

MOST_EMBEDDINGS = 1024  # of times that are kept, 4 KB a row: the steps of a sampler are few
# As `generators.ddpm.unet.walk`.
Walk = Callable[..., tuple[Tensor | None, dict[int, Tensor]]]


def activations(unet: UNet2DModel, image_size: tuple[int, int]) -> int:
    """Activations of one sample `image_size` = (height, width) at the finest level."""
    height, width = image_size
    return height * width * unet.config.block_out_channels[0]


class Network:
    """One U-Net on one device, evaluated by `walk`.

    Attention is PyTorch's scaled-dot-product kernel, which is what diffusers chooses.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        walk: Walk = walk,
    ):
        """Takes over `unet`: moves it to `device` and converts its weights to `dtype`.

        Weights converted once need no autocast, which would convert activations between layers.
        Channels-last is the layout that the convolutions of oneDNN and of tensor cores prefer.
        `walk` evaluates networks that contain more than the U-Net.

        Raises ValueError for a U-Net with unknown parts.
        """
        check_walkable(unet)
        self.unet = unet.to(device, memory_format=torch.channels_last).eval()
        self.net: nn.Module = self.unet  # what is walked
        cast_weights(self.unet, dtype)
        self.device, self.dtype = device, dtype
        self._plain = self._walk = walk
        self._embeddings: dict[tuple[float, ...], Tensor] = {}
        if compile:
            # reduce-overhead: with CUDA graphs where there is CUDA.
            self._walk = torch.compile(walk, mode="reduce-overhead", dynamic=False)

    @torch.inference_mode()
    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        classes: Tensor | None = None,
        blocks: Sequence[int] = (),
        to_output: bool = True,
    ) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Output `[N, 3 or 6, H, W]` and activations of `blocks`, all float32 (see `walk`).

        `x` is noisy images `[N, 3, H, W]`, `t` timesteps `[1]` or `[N]`, and `classes` class
        vectors `[1, E]` or `[N, E]` of a class-conditional network. The weights of the time
        embedding must not change, because embeddings are kept.
        """
        x = send(x, self.device).to(self.dtype, memory_format=torch.channels_last)
        emb = self._time(t)
        if classes is not None:
            emb = emb + classes
        output, recorded = self._run(x, emb, tuple(blocks), to_output)
        # Copies, because the next pass of a CUDA graph overwrites the outputs of the last.
        copy = self._walk is not self._plain
        maps = {block: h.to(torch.float32, copy=copy) for block, h in recorded.items()}
        return None if output is None else output.to(torch.float32, copy=copy), maps

    def _time(self, t: Tensor) -> Tensor:
        """The embedding of times `t`, computed once: on a GPU, that is ten launches of a pass."""
        key = tuple(t.tolist())
        if key not in self._embeddings:
            if sum(map(len, self._embeddings)) + len(key) > MOST_EMBEDDINGS:
                self._embeddings.clear()
            self._embeddings[key] = embed(self.unet, send(t, self.device))
        return self._embeddings[key]

    @torch.inference_mode()
    def map_shapes(
        self, image_size: tuple[int, int], blocks: Sequence[int]
    ) -> dict[int, torch.Size]:
        """`(C, h, w)` of the activations of `blocks`, found with two blank images.

        Never compiled: a graph for this batch would not be used again. Two images, because PyTorch
        refuses to normalise a single one where a group is a single value.
        """
        x = torch.zeros(2, 3, *image_size, dtype=self.dtype, device=self.device)
        emb = embed(self.unet, torch.zeros(2, dtype=torch.long, device=self.device))
        _, recorded = self._plain(self.net, x, emb, tuple(blocks), False)
        return {block: h.shape[1:] for block, h in recorded.items()}

    def _run(self, *args) -> tuple[Tensor | None, dict[int, Tensor]]:
        if self._walk is self._plain:
            return self._plain(self.net, *args)
        torch.compiler.cudagraph_mark_step_begin()
        try:
            with warnings.catch_warnings():
                # A warning of five lines, about tracing through a version check of diffusers.
                warnings.filterwarnings("ignore", r"(?s)Dynamo detected.*functools\.lru_cache")
                return self._walk(self.net, *args)
        except torch._dynamo.exc.TorchDynamoException as error:  # among them: no compiler found
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"continuing without generator.compile: {reason}", stacklevel=2)
            self._walk = self._plain
            return self._plain(self.net, *args)
