"""The networks of a recipe's generator section: what makes images, and encoders of its features.

The section has one address of weights, and one for each of its `encoders`. An encoder alone, for
photographs, is a section of kind `encoder`; its `encoders` are further ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.recipe.weights import PACKAGE_PREFIX, find_weights, local_path
from generators.config import GeneratorConfig
from generators.kind import kind_of

GENERATOR_KEY = "generator.weights"
# Features without weights, by name.
EMBEDDED = {"pixels": f"{PACKAGE_PREFIX}generators.encoders/embedded/pixels"}


def name_networks(
    section: Mapping[str, Any], generator: str | None, encoders: Sequence[str]
) -> dict[str, Any]:
    """A generator section with the addresses of the options --generator and --encoder.

    A generator is paired with the encoders, which may be those of the section already. Encoders
    alone replace a section that names no generator.
    """
    named = dict(section)
    listed = [named, *(named.get("encoders") or [])]
    if generator is not None:
        if named.get("kind") == "encoder" and _makes_images(generator):
            named = {"encoders": [_without(found, "encoders") for found in listed]}
        named["weights"] = generator
    if not encoders:
        return named
    addresses = [{"weights": _address(encoder)} for encoder in encoders]
    if named.get("kind") != "encoder" and named.get("weights") is not None:
        theirs = named.get("encoders") or []
        return {**named, "encoders": _moved(theirs, addresses)}
    if named.get("kind") == "encoder":
        addresses = _moved([_without(found, "encoders") for found in listed], addresses)
    first, *others = addresses
    return {"kind": "encoder", **first, **({"encoders": others} if others else {})}


def find_networks(key: str, config: GeneratorConfig) -> tuple[GeneratorConfig, dict[str, Path]]:
    """The settings with absolute paths to all weights, and these by key of a recipe.

    `key` names the generator's weights in the errors, which are those of `find_weights`.
    """
    paths = {GENERATOR_KEY: find_weights(key, config.weights)}
    found: dict[str, Any] = {"weights": str(paths[GENERATOR_KEY])}
    if config.encoders:
        names = [f"generator.encoders.{i}.weights" for i in range(len(config.encoders))]
        places = [
            find_weights(name, encoder.weights)
            for name, encoder in zip(names, config.encoders, strict=True)
        ]
        paths |= dict(zip(names, places, strict=True))
        found["encoders"] = tuple(
            encoder.model_copy(update={"weights": str(place)})
            for encoder, place in zip(config.encoders, places, strict=True)
        )
    return config.model_copy(update=found), paths


def with_local_paths(config: GeneratorConfig, found: GeneratorConfig) -> GeneratorConfig:
    """`config` with the absolute paths of `found` where it has paths of its own."""
    update: dict[str, Any] = {}
    if Path(config.weights).expanduser().exists():
        update["weights"] = found.weights
    if config.encoders:
        assert found.encoders is not None
        update["encoders"] = tuple(
            there if Path(ours.weights).expanduser().exists() else ours
            for ours, there in zip(config.encoders, found.encoders, strict=True)
        )
    return config.model_copy(update=update)


def _makes_images(weights: str) -> bool:
    return kind_of(local_path("--generator", weights)) != "encoder"


def _moved(
    theirs: Sequence[Mapping[str, Any]], addresses: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """As many encoders as there are keep their settings at the new addresses."""
    if len(theirs) != len(addresses):
        return list(addresses)
    return [{**found, **address} for found, address in zip(theirs, addresses, strict=True)]


def _address(encoder: str) -> str:
    return encoder if Path(encoder).exists() else EMBEDDED.get(encoder, encoder)


def _without(section: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != key}
