"""Generators: how to make images and the activations behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generators.config import GeneratorConfig

if TYPE_CHECKING:
    from generators.base import Encoder, Generator
    from generators.encoders.config import EncoderConfig


def load(config: GeneratorConfig, device: str = "auto") -> Generator:
    """The generator that `config` describes, its weights on `device`.

    With `config.encoders`, the features are theirs. Raises ValueError for an encoder alone.
    """
    if config.kind == "encoder":
        raise ValueError(
            f"{config.weights} is an encoder, which makes no images: give a generator too "
            "(--generator DIR --encoder FILE), or label photographs with `factory label`"
        )
    maker = _load_maker(config, device)
    if not config.encoders:
        return maker
    from generators.encoders.paired import Paired

    return Paired(maker, _load_encoders(config.encoders, maker.image_size[0], device))


def load_encoder(config: GeneratorConfig, device: str = "auto") -> Encoder:
    """As `load`, for images that exist: also an encoder alone, or several."""
    if config.kind != "encoder":
        return load(config, device)
    alone = config.model_copy(update={"encoders": None})
    return _load_encoders((alone, *(config.encoders or ())), config.image_size, device)


def _load_encoders(
    configs: tuple[EncoderConfig, ...], image_size: int | None, device: str
) -> Encoder:
    """The encoders, whose images have `image_size` pixels unless they give their own."""
    from generators.encoders.concatenated import Concatenated
    from generators.encoders.model import ImageEncoder

    loaded: list[ImageEncoder] = []
    for config in configs:
        if config.image_size is None:
            config = config.model_copy(update={"image_size": image_size})
        loaded.append(ImageEncoder.load(config, device))
        image_size = loaded[0].image_size[0]
    return loaded[0] if len(loaded) == 1 else Concatenated(loaded)


def _load_maker(config: GeneratorConfig, device: str) -> Generator:
    if config.kind == "stylegan2":
        from generators.stylegan2.model import StyleGAN2Generator

        return StyleGAN2Generator.load(config, device)
    if config.kind == "factorized":
        from generators.factorized.model import FactorizedGenerator

        return FactorizedGenerator.load(config, device)
    assert config.kind == "ddpm"
    if config.parametrisation is not None:
        from generators.ddpm.preconditioned import PreconditionedGenerator

        return PreconditionedGenerator.load(config, device)
    from generators.ddpm.model import DDPMGenerator

    return DDPMGenerator.load(config, device)
