"""What `factory generate` makes of the demo recipe, in plain code: the baseline of `main_job`.

    python -m benchmarks.plain_job [--n 64] --out FILE.tar

Images and activations come from diffusers' loop under autocast with channels-last weights, batch by
batch. The members of the ensemble are separate networks that label image after image, in bfloat16
where the machine multiplies it. The most uncertain tenth is dropped, and Pillow and `tarfile` write
the rest. This is the published method as a practitioner would write it today: nothing resumes, and
the next process makes other images.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

from benchmarks.plain_labeler import PixelClassifier, predict
from benchmarks.sampling_ddpm import PlainLoop, load_network
from benchmarks.shard_writing import Picture, plain
from factory.recipe import load_recipe, resolve
from factory_core.dataset import sample_key
from factory_core.device import pick_dtype
from generators.base import FeatureMaps, batches
from generators.ddpm.config import DDPMConfig
from labelers.ensemble.classifiers import Ensemble
from labelers.labeler import Labeler

DROPPED = 0.1


def members_of(ensemble: Ensemble) -> list[PixelClassifier]:
    """The members as separate networks in eval mode; their inputs in the order of `in_order`."""
    first, *others = ensemble.linears
    widths = [linear.weight.shape[1] for linear in ensemble.linears]
    members = []
    for m in range(ensemble.members):
        member = PixelClassifier(first.weight.shape[2], widths[:-1], widths[-1])
        state: dict[str, torch.Tensor] = {}
        for i, linear in enumerate([first, *others]):
            state |= {
                f"layers.{3 * i}.{name}": value[m] for name, value in linear.state_dict().items()
            }
        for i, norm in enumerate(ensemble.norms):
            state |= {
                f"layers.{3 * i + 2}.{name}": value[m] for name, value in norm.state_dict().items()
            }
        member.load_state_dict(state, strict=False)  # batches are not counted
        members.append(member.eval())
    return members


def in_order(recorded: list[torch.Tensor], ensemble: Ensemble) -> FeatureMaps:
    """Activations in the order of `ensemble.spec`, as the members expect them: by size."""
    by_name = {m.name: h for m, h in zip(ensemble.spec, recorded, strict=True)}
    found = FeatureMaps(by_name).spec
    assert found == ensemble.spec, found
    return FeatureMaps({m.name: by_name[m.name] for maps in ensemble.groups.values() for m in maps})


def label(
    image: torch.Tensor,
    features: FeatureMaps,
    key: str,
    members: list[PixelClassifier],
    classes: int,
) -> Picture:
    """A sample: its mask, its uncertainty, and the pixels of each class."""
    height, width = image.shape[1:]
    mask, js = predict(members, features, (height, width))
    meta = {
        "uncertainty": float(js.flatten().topk(height * width // 10).values.float().mean()),
        "class_pixels": torch.bincount(mask.flatten(), minlength=classes).tolist(),
    }
    return Picture(key, image.numpy(), mask.to(torch.uint8).numpy(), meta)


def run(n: int, out: Path) -> str:
    """Write `n` samples, less the tenth that is dropped; returns the sha256 of the tar."""
    recipe, device = resolve(load_recipe("demo")), torch.device("cpu")
    config = recipe.generator
    assert isinstance(config, DDPMConfig)
    dtype = pick_dtype("auto", device)
    loop = PlainLoop(load_network("demo", False, device), config, device, dtype)
    assert recipe.labeler.weights is not None
    ensemble = Labeler.load(recipe.labeler.weights, device).ensemble
    assert ensemble is not None
    members = [member.to(dtype) for member in members_of(ensemble)]
    classes, pictures = len(recipe.classes), []
    for rows in batches(range(n), config.batch_size):
        images = loop.sample_images()
        maps = in_order(loop.encode(images), ensemble).to(dtype)
        for i, index in enumerate(rows):
            features = maps.select(slice(i, i + 1))
            pictures.append(label(images[i], features, sample_key(index), members, classes))
    pictures.sort(key=lambda picture: picture.meta["uncertainty"])
    plain(out, pictures[: round(n * (1 - DROPPED))], "png", recipe.palette)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(run(options.n, options.out))


if __name__ == "__main__":
    main()
