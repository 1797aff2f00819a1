"""Settings from content and overrides, whatever their model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from factory.recipe.settings import build_settings


class Slow(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["slow"] = "slow"
    epochs: int = 4
    patience: int = 2


class Fast(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["fast"]
    steps: int = Field(default=9, ge=1)
    zoom: int = 3


class Training(BaseModel):
    model_config = ConfigDict(extra="forbid")
    way: Annotated[Slow | Fast, Field(discriminator="kind")] = Slow()
    colours: dict[str, int] = {}
    size: tuple[int, int] | None = None
    levels: tuple[float, ...] = ()
    blocks: tuple[int, ...] | None = Field(default=None, min_length=1)
    palette: tuple[tuple[int, int, int], ...] | None = None


def build(content: dict[str, Any], *overrides: str) -> Training:
    return build_settings(Training, content, overrides, "training settings")


def test_a_section_with_several_kinds() -> None:
    assert build({}).way == Slow()
    assert build({}, "way.kind=fast", "way.steps=3").way == Fast(kind="fast", steps=3)
    assert build({"way": {"kind": "slow"}}, "way.epochs=5").way == Slow(epochs=5)


def test_a_mapping_of_values_is_not_a_section() -> None:
    assert build({"colours": {"red": 1}}, "colours.blue=2").colours == {"red": 1, "blue": 2}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("way.step=3", "training settings: unknown key 'way.step': did you mean 'way.steps'?"),
        ("steps=3", "unknown key 'steps': did you mean 'way.steps'?"),
        ("zzz=3", "unknown key 'zzz': expected one of way, colours, size"),
        ("way.steps=3", "'way.steps' is not a setting of kind 'slow': did you mean 'way.epochs'?"),
        ("way.patients=3", "unknown key 'way.patients': did you mean 'way.patience'?"),
        ("way.epochs=x", "training settings: 'way.epochs' is 'x': input should be a valid integer"),
        ("way.zoom=3", "of kind 'slow': expected one of way.kind, way.epochs, way.patience"),
        ("size=64", "'size' is 64: expected a list of 2 values, such as [64, 64]"),
        ("size=[64]", "'size' is [64]: expected a list of 2 values"),
        ("size=[1, 2, 3]", "'size' is [1, 2, 3]: expected a list of 2 values"),
        ("size='64,64'", "'size' is '64,64': expected a list of 2 values"),
        ("size={a: 1}", "'size' is {'a': 1}: expected a list of 2 values"),
        ("size=true", "'size' is True: expected a list of 2 values"),
        ("size=[a, 3]", "'size.0' is 'a': input should be a valid integer"),
        ("blocks=[]", "training settings: 'blocks' is []: expected at least one value"),
        ("levels=0.5", "'levels' is 0.5: expected a list, such as [0.5]"),
        ("palette=[[1, 2]]", "'palette.0' is [1, 2]: expected a list of 3 values"),
        ("palette=[7]", "'palette.0' is 7: expected a list of 3 values, such as [7, 7, 7]"),
        ("way={kind: slow, epochs: 1, epochs: 2}", "'epochs' is given twice, in lines 1 and 1"),
        ("way.kind=lazy", "training settings: 'way.kind' is 'lazy': expected 'slow', 'fast'"),
    ],
)
def test_a_mistake_is_one_line(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        build({"way": {"kind": "slow"}}, override)
    assert "\n" not in str(caught.value)


class Job(BaseModel):
    kind: Literal["short", "long"] = "short"  # a setting, which chooses no section
    training: Training = Training()


class Jobs(BaseModel):
    job: Job = Job()


def test_keys_are_suggested_below_a_section_that_has_a_kind_of_its_own() -> None:
    with pytest.raises(
        ValueError, match=r"of kind 'slow': did you mean 'job\.training\.way\.epochs'"
    ):
        build_settings(Jobs, {"job": {}}, ["job.training.way={kind: slow, steps: 3}"], "settings")
