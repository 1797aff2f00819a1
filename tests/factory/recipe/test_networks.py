"""The generator section of the options --generator and --encoder, and its addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factory.recipe import choose_recipe, generator_recipe, load_recipe
from factory.recipe.comparing import canonical
from factory.recipe.networks import EMBEDDED, find_networks, name_networks, with_local_paths
from generators.config import DDPMConfig
from generators.encoders.config import EncoderConfig

MAE: dict[str, Any] = {"kind": "encoder", "weights": "mae.pth", "heads": 4}


@pytest.mark.parametrize(
    ("section", "generator", "encoders", "expected"),
    [
        ({}, "g", [], {"weights": "g"}),
        ({}, None, ["a"], {"kind": "encoder", "weights": "a"}),
        (
            {},
            None,
            ["a", "b"],
            {"kind": "encoder", "weights": "a", "encoders": [{"weights": "b"}]},
        ),
        ({}, "g", ["a"], {"weights": "g", "encoders": [{"weights": "a"}]}),
        ({"weights": "g"}, None, ["a"], {"weights": "g", "encoders": [{"weights": "a"}]}),
        (  # moved files keep their settings
            {"weights": "g", "encoders": [{"weights": "a", "heads": 4}]},
            "h",
            ["b"],
            {"weights": "h", "encoders": [{"weights": "b", "heads": 4}]},
        ),
        (MAE, None, ["b"], {**MAE, "weights": "b"}),
        (MAE, "g.pkl", [], {"weights": "g.pkl", "encoders": [MAE]}),
        (
            {**MAE, "encoders": [{"weights": "b"}]},
            "g.pkl",
            [],
            {"weights": "g.pkl", "encoders": [MAE, {"weights": "b"}]},
        ),
    ],
)
def test_sections(section: dict, generator: str | None, encoders: list, expected: dict) -> None:
    before = repr(section)
    assert name_networks(section, generator, encoders) == expected
    assert repr(section) == before


def test_an_encoder_replaces_an_encoder(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text("{}")
    assert name_networks(MAE, str(tmp_path), []) == {**MAE, "weights": str(tmp_path)}


def test_recipes_of_the_command_line() -> None:
    alone = generator_recipe(None, None, ["generator.image_size=64"], None, ["mae.pth", "pixels"])
    assert isinstance(alone.generator, EncoderConfig)
    assert alone.generator.image_size == 64
    assert alone.generator.encoders == (EncoderConfig(weights=EMBEDDED["pixels"]),)
    # A recipe lends its classes; photographs do not need its generator.
    named = generator_recipe("demo", None, [], None, ["mae.pth"])
    assert named.generator == EncoderConfig(weights="mae.pth")
    assert named.classes == load_recipe("demo").classes
    recorded = {"kind": "ddpm", "weights": "g"}
    paired = generator_recipe(None, None, [], recorded, ["mae.pth"]).generator
    assert paired == DDPMConfig(weights="g", encoders=(EncoderConfig(weights="mae.pth"),))
    made = choose_recipe("demo", None, None, [], ["mae.pth"]).generator
    assert made.kind == "ddpm"
    assert made.encoders == (EncoderConfig(weights="mae.pth"),)
    with pytest.raises(ValueError, match="or --encoder FILE for photographs"):
        generator_recipe(None, None, [])


def test_encoders_are_a_later_setting() -> None:
    plain, paired = load_recipe("demo"), choose_recipe("demo", None, None, [], ["mae.pth"])
    assert "encoders" not in plain.to_json()["generator"]
    [found] = paired.to_json()["generator"]["encoders"]
    assert found["weights"] == "mae.pth"
    digests = {"generator.weights": "a" * 64, "generator.encoders.0.weights": "b" * 64}
    content = paired.to_json()
    reduced = canonical(content, digests)
    assert reduced["generator"]["encoders"][0]["weights"] == f"sha256:{'b' * 64}"
    assert content["generator"]["encoders"][0]["weights"] == "mae.pth"  # unchanged


def test_addresses_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("g.pt", "a.pth"):
        Path(name).touch()
    encoders = (EncoderConfig(weights="a.pth"), EncoderConfig(weights=EMBEDDED["pixels"]))
    config = DDPMConfig(weights="g.pt", encoders=encoders)
    found, paths = find_networks("--generator", config)
    assert list(paths) == [
        "generator.weights",
        "generator.encoders.0.weights",
        "generator.encoders.1.weights",
    ]
    assert found.encoders is not None
    assert [e.weights for e in found.encoders] == [str(p) for p in list(paths.values())[1:]]
    recorded = with_local_paths(config, found)
    assert recorded.encoders is not None
    assert recorded.weights == str(tmp_path / "g.pt")
    assert [e.weights for e in recorded.encoders] == [str(tmp_path / "a.pth"), EMBEDDED["pixels"]]
    missing = config.model_copy(update={"encoders": (EncoderConfig(weights="none.pth"),)})
    with pytest.raises(FileNotFoundError, match=r"generator\.encoders\.0\.weights: none\.pth"):
        find_networks("--generator", missing)


def test_encoders_are_listed_side_by_side() -> None:
    inside = {"weights": "b", "encoders": [{"weights": "c"}]}
    with pytest.raises(ValueError, match="list them side by side"):
        EncoderConfig.model_validate({"weights": "a", "encoders": [inside]})
