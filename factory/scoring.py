"""The scoring jobs: a segmenter or a labeler on annotated images, a segmenter on new ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.dataset import write_bytes

if TYPE_CHECKING:
    import torch

    from train_seg.metrics import Scores

# Renderings that nothing in the package was trained on: training used indices below 200 000.
DEMO_TEST_INDICES = range(1_000_000, 1_000_200)


@dataclass(frozen=True)
class Predictor:
    """Anything that turns images uint8 `[N, 3, H, W]` of `image_size` into class ids."""

    predict: Callable[[torch.Tensor], torch.Tensor]
    classes: list[str]
    palette: list[list[int]]
    image_size: tuple[int, int]


def load_segmenter(folder: Path, device: str) -> Predictor:
    """A trained DeepLabV3."""
    from train_seg.model import Segmenter

    segmenter = Segmenter.load(folder, device)
    return Predictor(segmenter.predict, segmenter.classes, segmenter.palette, segmenter.image_size)


def load_labeler(folder: str, generator: str | None, device: str) -> Predictor:
    """The direct method of the DDPM paper: features of the real image, then the ensemble."""
    from factory.recipe import recipe_of_labeler, resolve
    from factory.weights import find_weights
    from factory.worker import load_models

    recipe = recipe_of_labeler(str(find_weights("--labeler", folder)), generator)
    resolved = resolve(recipe)
    model, labeler = load_models(resolved.generator, resolved.labeler, device)
    labeler.check(model)

    def predict(images: torch.Tensor) -> torch.Tensor:
        return labeler.predict(model.encode(images), model.image_size, resolved.labeler.vote).mask

    palette = [list(colour) for colour in resolved.palette]
    return Predictor(predict, list(resolved.classes), palette, model.image_size)


def evaluate(
    predictor: Predictor, labeled: Path | None, out: Path | None, console: Console
) -> Scores:
    """Score on an annotated folder, or on unseen renderings of the demo; print, and write JSON."""
    from factory.progress import ProgressLine
    from train_seg.evaluate import evaluate as score
    from train_seg.evaluate import scores_table

    if labeled is None:
        images, masks = _demo_images(predictor)
        name = f"{len(images)} unseen renderings"
    else:
        from labelers import read_annotations

        annotations = read_annotations(labeled, predictor.image_size, predictor.classes)
        images, masks = annotations.images, annotations.masks
        name = f"{len(images)} images of {labeled}"
    done = 0
    with ProgressLine("scoring", "images", len(images), console) as line:

        def predict(batch: torch.Tensor) -> torch.Tensor:
            nonlocal done
            result = predictor.predict(batch)
            done += len(batch)
            line.update(done)
            return result

        scores = score(predict, images, masks, predictor.classes)
    height, width = predictor.image_size
    console.print(scores_table(scores, f"{name}, at {height} x {width}"))
    if out is not None:
        write_bytes(out, (json.dumps(scores.to_dict(), indent=1) + "\n").encode())
        console.print(f"JSON in {out}")
    return scores


def _demo_images(predictor: Predictor) -> tuple[torch.Tensor, torch.Tensor]:
    import numpy as np
    import torch

    from factory.demo.render import CLASSES, render

    if predictor.classes != list(CLASSES):
        raise ValueError(
            f"--demo has the classes {', '.join(CLASSES)}, the model "
            f"{', '.join(predictor.classes)}: give --labeled DIR"
        )
    height, width = predictor.image_size
    if height != width:
        raise ValueError(f"--demo renders square images, the model works at {height} x {width}")
    pairs = [render(i, height) for i in DEMO_TEST_INDICES]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    return images.contiguous(), torch.from_numpy(np.stack([mask for _, mask in pairs]))


def predict(predictor: Predictor, images: Path, out: Path, console: Console) -> None:
    """Segment every image of a folder, or one file, at its own size: index PNG and overlay."""
    from factory.progress import ProgressLine
    from labelers import list_images, read_image
    from train_seg.predict import predict as write_predictions

    paths = [images] if images.is_file() else list_images(images)
    with ProgressLine("predicting", "images", len(paths), console) as line:

        def read() -> Iterator[tuple[str, Any]]:
            for number, path in enumerate(paths, 1):
                yield path.stem, read_image(path)
                line.update(number)

        counts = write_predictions(predictor.predict, read(), out, predictor.palette)
    total = sum(counts.class_pixels)
    shares = ", ".join(
        f"{name} {100 * pixels / total:.1f} %"
        for name, pixels in zip(predictor.classes, counts.class_pixels, strict=True)
    )
    console.print(f"{counts.images} images: masks and overlays in {out} ({shares})")
