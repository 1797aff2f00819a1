"""Whether `train-labeler` would refuse a folder: asked of the functions by which it reads one."""

from __future__ import annotations

from pathlib import Path

from factory_core.annotated.layouts import SAMPLES_FILE


def refusal(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """The line with which a training would end, None if it would start, and the training's notes.

    Everything is checked that does not depend on the generator.
    """
    from factory.annotation.samples import find_samples, pixels_sha256
    from factory_core.annotated.annotations import annotated_size, read_annotations
    from labelers.config import LabelerConfig
    from labelers.training.fit import check

    try:
        annotations = read_annotations(folder, annotated_size(folder))
        check(annotations.masks, len(annotations.classes), LabelerConfig())
        _, samples = find_samples(folder)
        if samples is not None:
            for stem, image in zip(annotations.stems, annotations.images, strict=True):
                if samples.images.get(stem) != pixels_sha256(image):
                    return f"{stem} has not the pixels recorded in {SAMPLES_FILE}", ()
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()), ()
    return None, annotations.notes
