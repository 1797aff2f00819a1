"""The printed commands train what was compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from factory.commands.train_deeplab.settings import segmenter_config
from factory.recipe import load_recipe
from factory.recipe.picture_settings import as_overrides, picture_settings
from factory.verdict.commands import Inputs, commands
from factory.verdict.inputs import Given
from factory.verdict.round_job import Rules
from factory.verdict.rounds import Variant
from factory.verdict.settings import CompareConfig, compare_config
from factory.verdict.students import deeplab_settings, finishing, unet_settings
from factory_core.pictures import Pictures
from labelers.config import FastTraining, ReferenceTraining
from train_seg.config import SegmenterConfig

INPUTS = Inputs("labels", "photos", "gen")
CHANGED = ["batch_size=4", "lr=0.002", "upright=true", "label_steps=77", "finish_lr=0.0005"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unet", ["train-deeplab --data labels --out model --preset unet --steps 200"]),
        ("deeplab", ["--preset modern --encoder resnet18"]),
        ("deeplab-imagenet", ["--set encoder_weights=imagenet"]),
        ("labeler-network", ["train-labeler --generator gen --labeled labels"]),
        ("photographs", ["train-labeler", "label --labeler", "--data photographs --out model"]),
        ("photographs-none", ["train-labeler", "--set selection.policy=none", "--out model"]),
        ("photographs-per_class", ["train-labeler", "selection.policy=per_class", "--out model"]),
        ("synthetic-labels", ["train-labeler", "generate", "--out taught", "--init taught"]),
        ("mixture", ["train-labeler", "generate", "label", "--mix 0.4,0.4,0.2"]),
        ("generator-unet", ["--init gen --out model"]),
        ("generator-unet-strong", ["--set 'augment.scale=[0.5,1.0]'"]),
        (
            "labels-mean",
            ["--out model_0 --preset unet", "--out model_1 --preset modern", "average model_0"],
        ),
        (
            "generator-mean",
            ["--init gen --out model_0", "--seed 1000", "average model_0 model_1 --out model"],
        ),
        ("round-2", ["--generator gen --augmentation strong --rounds 2 --out model"]),
    ],
)
def test_what_is_printed(name: str, parts: list[str]) -> None:
    lines = commands(name, INPUTS, CompareConfig())
    assert len(lines) == len(parts)
    for line, part in zip(lines, parts, strict=True):
        assert line.startswith("factory ")
        assert part in line


def options(line: str) -> tuple[dict[str, str], list[str]]:
    """The options of a printed command, and what it sets."""
    words = shlex.split(line)[2:]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return dict(pairs), [value for key, value in pairs if key == "--set"]


def settings_of(line: str) -> SegmenterConfig:
    """What `train-deeplab` makes of a printed command."""
    given, overrides = options(line)
    named: dict[str, Any] = {
        key: int(value) if value.isdigit() else value
        for key, option in (("max_steps", "--steps"), ("seed", "--seed"), ("encoder", "--encoder"))
        if (value := given.get(option))
    }
    return segmenter_config([], None, given["--preset"], named, overrides)


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
@pytest.mark.parametrize("changes", [[], CHANGED])
def test_students_are_trained_as_they_were_compared(
    size: tuple[int, int], changes: list[str]
) -> None:
    config, inputs = compare_config(changes), Inputs("labels", "photos", "gen", size)
    steps, taught = config.label_steps, config.pretrain_steps
    first = unet_settings(config, size, 0, taught)
    expected = {
        "unet": [unet_settings(config, size, 0, steps)],
        "unet-strong": [unet_settings(config, size, 0, steps, is_strong=True)],
        "generator-unet": [unet_settings(config, size, 0, steps)],
        "deeplab": [deeplab_settings(config, size, 0, steps)],
        "deeplab-strong": [deeplab_settings(config, size, 0, steps, is_strong=True)],
        "generator-mean": [
            unet_settings(config, size, seed, steps, is_strong=True) for seed in (0, 1000)
        ],
        "photographs": [first],
        "synthetic-labels": [first, finishing(config, first)],
    }
    for name, wanted in expected.items():
        lines = [x for x in commands(name, inputs, config) if " train-deeplab " in x]
        found = [settings_of(line) for line in lines]
        as_printed = {"image_size": size, "validate_every": None}
        assert found == [settings.model_copy(update=as_printed) for settings in wanted], name


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["upright=true", "labeler.members=4", "labeler.network.steps=9", "labeler.training.lr=0.1"],
        ["labeler.training={kind: reference, min_epochs: 2}"],
    ],
)
def test_labelers_are_trained_as_they_were_compared(changes: list[str]) -> None:
    config = compare_config(changes)
    line, *_ = commands("photographs", INPUTS, config)
    assert " --fast" in line or not isinstance(config.labeler.training, FastTraining)
    given, overrides = options(line.replace(" --fast", " --set 'labeler.training={kind: fast}'"))
    assert given["--kind"] == "both"
    found = load_recipe("demo", overrides).labeler
    wanted = config.labeler
    if config.upright:
        network = wanted.network.model_copy(update={"flips": False, "quarter_turns": False})
        wanted = wanted.model_copy(update={"network": network})
    assert found.model_dump(exclude={"kind", "weights"}) == wanted.model_dump(
        exclude={"kind", "weights"}
    )


@pytest.mark.parametrize("name", ["mixture", "round-1", "labels-mean"])
def test_pictures_are_read_as_they_were_compared(name: str) -> None:
    pictures, _ = picture_settings(["pictures.range=[0,4095]", "pictures.page=2"])
    inputs = Inputs("labels", "photos", "gen", pictures=as_overrides(pictures))
    for line in commands(name, inputs, compare_config([])):
        command = line.split()[1]
        given = [] if command == "average" else options(line.replace(" --fast", ""))[1]
        reads = command not in ("generate", "average")
        assert picture_settings(given)[0] == (pictures if reads else Pictures()), line


def test_pools_are_selected_as_they_were_compared() -> None:
    _, synthetic, photographs, _ = commands(
        "mixture", Inputs("labels", "my photos", "gen"), compare_config(["drop_fraction=0.3"])
    )
    for line in (synthetic, photographs):
        assert options(line)[1] == ["dataset.drop_fraction=0.3"]
    assert "--images 'my photos'" in photographs


@pytest.mark.parametrize(
    "asked",
    [
        ["photographs=1024", "upright=true", "labeler.network.members=3", "rounds=3"],
        ["labeler.training={kind: reference, min_epochs: 2}"],
    ],
)
def test_rounds_are_played_as_they_were_compared(asked: list[str]) -> None:
    config = compare_config(asked)
    (line,) = commands("round-1", INPUTS, config)
    found = compare_config(options(line)[1])
    assert found.model_dump(exclude={"rounds"}) == config.model_dump(exclude={"rounds"})
    assert isinstance(found.labeler.training, FastTraining | ReferenceTraining)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(),
        Variant(is_strong=False),
        Variant("synthetic"),
        Variant("synthetic", is_strong=False),
        Variant("both"),
        Variant("both", is_strong=False),
    ],
)
def test_rounds_learn_from_what_they_were_compared_with(variant: Variant) -> None:
    (line,) = commands(variant.name(2), Inputs("labels", "photos", "gen"), compare_config([]))
    words, _ = options(line)
    given = Given(Path("labels"), Path("model"), words.get("--images") and Path("photos"), "gen")
    source: Any = words.get("--learn-from")
    rules = Rules(source, words["--augmentation"] == "strong")
    assert rules.variants(given) == [variant]
    assert words["--rounds"] == "2"
