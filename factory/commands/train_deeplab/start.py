"""What `--init` names: a generator, or a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.recipe.weights import find_weights
from train_seg.config import NETWORK_SETTINGS

if TYPE_CHECKING:
    from factory_core.segmentation_unet import UNetDescription
    from train_seg.network.segmenter import Segmenter

ADOPTED = {*NETWORK_SETTINGS, "input_scale", "dropout"}  # from the segmenter to start from


def read_start(init: str | None) -> UNetDescription | Segmenter | None:
    """The weights that `init` names, on the CPU.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: they are damaged, or of a generator without a U-Net.
    """
    if init is None:
        return None
    path = find_weights("--init", init)
    if _is_segmenter(path):
        from train_seg.network.segmenter import Segmenter

        return Segmenter.load(path, device="cpu")
    from factory.annotation.samples import load_generator
    from factory.recipe.choosing import generator_recipe
    from generators.base import Finetunable

    recipe = generator_recipe(None, init, [])
    generator, config = load_generator("--init", recipe.generator, "cpu")
    if not isinstance(generator, Finetunable):
        raise ValueError(
            f"--init {init}: a {config.kind} generator has no U-Net to start from: give a "
            "diffusion model or a segmenter"
        )
    return generator.describe_unet()


def network_of(init: str) -> dict[str, Any]:
    """The settings of the network if `init` names a segmenter, else nothing.

    Raises FileNotFoundError if there is nothing, ValueError if model.json is damaged.
    """
    from train_seg.network.segmenter import read_info

    path = find_weights("--init", init)
    if not _is_segmenter(path):
        return {}
    return read_info(path).config.model_dump(mode="json", include=ADOPTED)


def _is_segmenter(path: Path) -> bool:
    from train_seg.network.segmenter import INFO_NAME

    return (path / INFO_NAME).is_file()
