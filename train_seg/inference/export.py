"""Exporting a segmenter for other runtimes: one file that does not need this package.

The exported model takes images as decoders return them, and gives class ids:

    images  uint8    [N, 3, H, W]  RGB, 0-255; any N, H, W
    mask    uint8    [N, H, W]     class ids
    logits  float32  [N, K, H, W]  for probabilities or blended tiles; free if not requested

The model includes normalisation and resizing to and from the size of the network. The file also
holds class names, palette and the rest of `metadata`: as `metadata_props` in ONNX, as the extra
file `metadata.json` in TorchScript.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from factory_core.storage import write_bytes
from train_seg.network.segmenter import Segmenter

Format = Literal["onnx", "torchscript"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript"}
METADATA_NAME = "metadata.json"
OPSET = 18  # the first whose Resize can antialias
# float32 sums in a different order; a wrong graph is off by the size of the logits.
MAX_LOGIT_ERROR = 1e-3
MAX_DIFFERING = 1e-3  # fraction of pixels that such errors may move to another class

Runtime = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class ExportCheck:
    """The comparison of the exported model with the segmenter."""

    pixels: int
    differing: int
    """pixels with a different class: numerical ties"""
    logit_error: float
    """largest difference of a logit, relative to the largest logit"""


class Deployed(torch.nn.Module):
    """The network as it is deployed: images to (mask, logits)."""

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.network = segmenter.network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 `[N, 3, H, W]` to mask uint8 `[N, H, W]`, logits float `[N, K, H, W]`."""
        logits = self.network(images)
        return logits.argmax(1).to(torch.uint8), logits


def pick_format(out: Path, asked: Format | None) -> Format:
    """The requested format, or that of the file's suffix.

    Raises ValueError if the two disagree, or neither is known.
    """
    named = SUFFIXES.get(out.suffix.lower())
    if asked and named and asked != named:
        raise ValueError(f"--out {out} is a name for {named}, --format says {asked}")
    chosen = asked or named
    if chosen is None:
        suffixes = " or ".join(SUFFIXES)
        raise ValueError(f"--out {out}: expected a name ending in {suffixes}, or --format")
    return chosen


def export(
    segmenter: Segmenter, out: str | Path, format: Format, images: Sequence[torch.Tensor] = ()
) -> ExportCheck:
    """Write `segmenter` (on the CPU) to the file `out` after checking that the masks match.

    The check runs on `images` (uint8 `[3, H, W]`), or on noise of several sizes if there are none.

    Raises:
        ImportError: ONNX's packages are not installed, with the command that installs them.
        ValueError: the architecture cannot be exported, or the result differs; nothing is written.
    """
    model = Deployed(segmenter).eval()
    height, width = segmenter.image_size
    # Not the training size: a trace follows the branches of its example, and must resize.
    example = torch.zeros(2, 3, height + 8, width + 16, dtype=torch.uint8)
    build, load = {"onnx": (_onnx, _load_onnx), "torchscript": (_torchscript, _load_torchscript)}[
        format
    ]
    with _quiet(), torch.no_grad():
        try:
            data = build(model, example, metadata(segmenter))
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"cannot export this model as {format}: {reason}") from error
        probes = [image[None] for image in images] or _noise(segmenter.image_size)
        check = _compare(model, load(data), probes)
    write_bytes(Path(out), data)
    return check


def metadata(segmenter: Segmenter) -> dict[str, Any]:
    """What users of the exported model need to know, ready for JSON."""
    return {
        "input": "images: uint8 [N, 3, H, W], RGB, 0-255, any size",
        "outputs": "mask: uint8 [N, H, W] class ids; logits: float32 [N, K, H, W]",
        "classes": segmenter.classes,
        "palette": segmenter.palette,
        "normalisation": {**segmenter.network.normalisation, "inside": True},
        "image_size": list(segmenter.image_size),
        "network_size": list(segmenter.network.input_size),
        "architecture": segmenter.architecture,
        "encoder": segmenter.encoder,
        "training_digest": segmenter.training_digest,
        "scores": segmenter.scores,
    }


# --- ONNX ------------------------------------------------------------------------------------


def require_onnx() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime.

    Raises ImportError if a package is not installed, with the command that installs it.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter writes with it
    except ImportError as error:
        raise ImportError(
            f"ONNX export needs more packages ({error}): pip install 'dataset-factory[export]'"
        ) from None
    return onnx, onnxruntime


def _onnx(model: Deployed, example: torch.Tensor, about: dict[str, Any]) -> bytes:
    require_onnx()
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["mask", "logits"],
        dynamic_shapes={"images": {0: "N", 2: "H", 3: "W"}},
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for key, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        proto.metadata_props.add(key=key, value=text)
    return proto.SerializeToString()


def _load_onnx(data: bytes) -> Runtime:
    onnx, onnxruntime = require_onnx()
    onnx.checker.check_model(data)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask, logits = session.run(["mask", "logits"], {"images": images.numpy()})
        return torch.from_numpy(mask), torch.from_numpy(logits)

    return run


# --- TorchScript -----------------------------------------------------------------------------


def _torchscript(model: Deployed, example: torch.Tensor, about: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    traced = torch.jit.trace(model, example, check_trace=False)  # `export` checks, on other sizes
    text = json.dumps(about, ensure_ascii=False, indent=1)
    torch.jit.save(traced, buffer, _extra_files={METADATA_NAME: text})
    return buffer.getvalue()


def _load_torchscript(data: bytes) -> Runtime:
    return torch.jit.load(io.BytesIO(data), map_location="cpu")


# --- the check -------------------------------------------------------------------------------


def _noise(size: tuple[int, int]) -> list[torch.Tensor]:
    """Colour patches with noise: at the training size, larger, and of an odd size."""
    generator, (height, width) = torch.Generator().manual_seed(0), size
    batches = []
    for n, h, w in (
        (2, height, width),
        (1, 2 * height, height + width),
        (3, height + 1, width // 2),
    ):
        patches = torch.rand(n, 3, 5, 5, generator=generator)
        image = torch.nn.functional.interpolate(patches, (h, w), mode="bicubic")
        image += 0.1 * torch.randn(image.shape, generator=generator)
        batches.append((255 * image).clamp(0, 255).to(torch.uint8))
    return batches


def _compare(model: Deployed, runtime: Runtime, batches: Sequence[torch.Tensor]) -> ExportCheck:
    pixels, differing, error = 0, 0, 0.0
    for images in batches:
        (mask, logits), (their_mask, their_logits) = model(images), runtime(images)
        if their_mask.shape != mask.shape or their_mask.dtype != mask.dtype:
            raise ValueError(
                f"the exported model gives a mask {their_mask.dtype} {list(their_mask.shape)}, "
                f"expected {mask.dtype} {list(mask.shape)}: it was not written"
            )
        pixels += mask.numel()
        differing += int((their_mask != mask).sum())
        scale = float(logits.abs().max().clamp(min=1e-6))
        error = max(error, float((their_logits - logits).abs().max()) / scale)
    if not error <= MAX_LOGIT_ERROR or differing > MAX_DIFFERING * pixels:
        raise ValueError(
            f"the exported model differs in {differing} of {pixels} pixels, and in logits by "
            f"{error:.1e} of their size: it was not written"
        )
    return ExportCheck(pixels, differing, error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages of the exporters that are meant for their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
