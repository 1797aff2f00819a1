"""`factory sample`: images from a generator, for a person to annotate.

`factory.annotation.samples` describes the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.annotation.choosing import Candidates, Selection, choose_images
from factory.annotation.preview import write_preview
from factory.annotation.samples import (
    IMAGES_DIR,
    Samples,
    find_samples,
    load_generator,
    pixels_sha256,
)
from factory.locking.lock import exclusive
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory_core.dataset import MAX_SAMPLES, PREVIEW_NAME, encode_rgb, sample_key
from factory_core.output_folder import contents
from factory_core.storage import sweep_temporaries, write_bytes
from generators.config import GeneratorConfig

if TYPE_CHECKING:
    from generators.base import Generator


@dataclass(frozen=True)
class SampleJob:
    """The options of `sample`: samples `start` to `start + n` of a generator.

    Other than at `random`, `n` of the first `candidates` from `start` are chosen, with `labeler`.
    """

    generator: GeneratorConfig
    start: int
    n: int
    out: Path
    device: str
    console: Console
    how: Selection = "random"
    labeler: str | None = None
    candidates: int = 0


def sample(job: SampleJob) -> None:
    """Write the samples; existing ones are left unchanged.

    Raises:
        ValueError: an index too large, or the folder holds other files, or samples from a different
            generator or other settings.
        OSError: no such weights, the folder is in use, or the disk is full.
    """
    if job.start + max(job.n, job.candidates) > MAX_SAMPLES:
        raise ValueError(f"--start {job.start} --n {job.n}: expected indices below {MAX_SAMPLES}")
    quiet_libraries()
    from generators.encoders.paired import maker_of

    wanted = job.generator
    if job.how == "random":  # no features
        wanted = wanted.model_copy(update={"encoders": None})
    generator, config = load_generator("generator.weights", wanted, job.device)
    indices, write = _choose(job, generator)
    with exclusive(job.out):
        samples = _begin(job.out, Samples(digest=maker_of(generator).digest, generator=config))
        samples = _make_missing(job, indices, generator, samples)
        write_preview(job.out, sorted(samples.images))
        write()
    job.console.print(
        f"{len(samples.images)} samples in {job.out / IMAGES_DIR}; see {job.out / PREVIEW_NAME}\n"
        f"Put masks with the same names into {job.out / 'masks'} (not every image needs one) and "
        f"class names into {job.out / 'classes.json'}. Then: "
        f"factory train-labeler --labeled {job.out} --out labeler"
    )


def _choose(job: SampleJob, generator: Generator) -> tuple[Sequence[int], Callable[[], None]]:
    """The indices to sample, and what writes why they were chosen."""
    if job.how == "random":
        return range(job.start, job.start + job.n), lambda: None
    import torch

    from factory.annotation.candidates import describe_samples, load_labeler
    from factory.annotation.chosen import read_chosen, write_chosen
    from factory_core.images import read_image

    labeler = None if job.labeler is None else load_labeler(job.labeler, generator, job.device)
    if labeler is None and job.how != "diverse":
        raise ValueError(f"--select {job.how} needs a labeler: give one, or --select diverse")
    pool = range(job.start, job.start + max(job.n, job.candidates))
    candidates = Candidates(*describe_samples(pool, generator, labeler, job.console))
    chosen = choose_images(job.how, candidates, job.n)
    indices = [pool[choice.row] for choice in chosen]
    names = [f"{sample_key(index)}.png" for index in indices]

    def write() -> None:
        if {row["file"] for row in read_chosen(job.out)} >= set(names):  # a resumed run
            return
        images = torch.stack([read_image(job.out / IMAGES_DIR / name) for name in names])
        write_chosen(job.out, names, images, job.how, candidates, chosen)

    return indices, write


def _begin(out: Path, new: Samples) -> Samples:
    """The record in the folder, checked against `new`; `new`, written there, if it is empty."""
    _, found = find_samples(out)
    if found is not None:
        found.check(out, new.digest, new.generator)
        return found
    if others := contents(out):
        raise ValueError(
            f"--out {out} holds no samples but {others[0]}: give a new or empty folder"
        )
    (out / IMAGES_DIR).mkdir(parents=True)
    new.write(out)
    return new


def _make_missing(
    job: SampleJob, indices: Sequence[int], generator: Generator, samples: Samples
) -> Samples:
    """Write the images that are missing, and samples.json after each batch."""
    folder = job.out / IMAGES_DIR
    folder.mkdir(exist_ok=True)
    for place in (job.out, folder):
        sweep_temporaries(place)
    keys = {index: sample_key(index) for index in indices}
    files = {index: folder / f"{keys[index]}.png" for index in indices}
    done = {i for i in indices if keys[i] in samples.images and files[i].is_file()}
    missing = [index for index in indices if index not in done]
    with ProgressLine("sampling", "images", job.n, job.console, folder) as line:
        line.update(len(done))
        for start in range(0, len(missing), job.generator.batch_size):
            batch = missing[start : start + job.generator.batch_size]
            images = generator.sample_images(batch).cpu()
            made = {}
            for index, image in zip(batch, images, strict=True):
                write_bytes(files[index], encode_rgb(image.permute(1, 2, 0).numpy()))
                made[keys[index]] = pixels_sha256(image)
            samples = samples.model_copy(update={"images": samples.images | made})
            samples.write(job.out)
            line.update(len(done) + start + len(batch))
    return samples
