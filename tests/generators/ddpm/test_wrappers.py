"""The network is found in any wrapper, the averaged one first, and nothing else is taken for it.

What trainers really write is in `tests/cases/checkpoints`.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from generators.ddpm.wrappers import Found, find_state

NAMES = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.bias")


def state(value: float, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.full((n + 1,), value) for n, name in enumerate(NAMES)}


RAW, AVERAGED = state(1), state(2)


def found(content: Any) -> tuple[float, str, bool]:
    """The value of the tensors found, where they were, and whether they are averaged."""
    result = find_state(content)
    assert tuple(result.state) == NAMES
    assert result.recognised
    values = {float(value) for tensor in result.state.values() for value in tensor}
    assert len(values) == 1
    return values.pop(), result.place, result.averaged


@pytest.mark.parametrize(
    "key",
    [
        *("ema", "EMA", "ema_model", "model_ema", "ema_0.9999", "params_ema", "swa_model"),
        *("averaged", "modelEMA", "netEma", "emaModel", "model_avg", "avg_model", "polyak"),
    ],
)
def test_names_of_averages(key: str) -> None:
    assert found({"model": RAW, key: AVERAGED}) == (2, key, True)
    assert found({key: AVERAGED, "model": RAW}) == (2, key, True)


@pytest.mark.parametrize("key", ["schema", "demand", "cinema", "swamp", "net", "non_ema"])
def test_other_names(key: str) -> None:
    assert found({key: RAW}) == (1, key, False)


@pytest.mark.parametrize("empty", [None, {}, 0.999, False, [], {"decay": 0.999}])
def test_an_average_that_is_not_there(empty: Any) -> None:
    assert found({"model": RAW, "ema": empty}) == (1, "model", False)


def test_the_longest_of_several_averages_is_taken() -> None:
    for first, second in (("0.999", "0.9999"), ("ema_rate_0.9", "ema_rate_0.9999")):
        averages = {first: state(3), second: AVERAGED}
        assert found({"model": RAW, "ema": averages})[0] == 2
    assert found({"ema": {"online_model": RAW, "ema_model": AVERAGED}})[0] == 2


def test_lists() -> None:
    assert found([RAW, {"state": {}}, 3]) == (1, "[0]", False)
    assert found({"models": [RAW]}) == (1, "models[0]", False)
    assert found({"model": RAW, "ema": [AVERAGED]}) == (2, "ema[0]", True)
    # As ermongroup/ddim writes them: network, optimizer, epoch, step, average.
    assert found([RAW, {"state": {}}, 3, 1000, AVERAGED]) == (2, "[4]", False)


def test_averages_of_an_optimizer_are_no_network() -> None:
    assert found({"optimizer": {"ema": state(3)}, "model": RAW}) == (1, "model", False)


def test_a_counter_marks_the_weights_beside_it() -> None:
    counted = state(2, "other.module.") | {"other.n_averaged": torch.tensor(3)}
    assert found(state(1, "net.") | counted) == (2, "other.module.", True)


def test_prefixes() -> None:
    assert found(state(1, "module.model.")) == (1, "module.model.", False)
    assert found(state(1, "module._orig_mod.")) == (1, "module.", False)
    assert found(state(1, "net.") | state(2, "ema_net.")) == (2, "ema_net.", True)
    split = {name.replace(".0.", ".0._orig_mod."): tensor for name, tensor in RAW.items()}
    assert found(split) == (1, "", False)


def test_averages_without_names_need_the_same_shapes() -> None:
    shadow = list(AVERAGED.values())
    content = {"model": RAW, "ema": {"shadow_params": shadow}}
    assert found(content) == (2, "ema: shadow_params", True)
    for wrong in (shadow[:-1], shadow[::-1], [*shadow, torch.zeros(1)], [1, 2, 3]):
        assert found({"model": RAW, "ema": {"shadow_params": wrong}}) == (1, "model", False)


def test_averages_without_dots_need_every_tensor() -> None:
    flat = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in AVERAGED.items()}
    assert found(state(1, "model.") | flat) == (2, "model_ema.", True)
    flat.popitem()
    assert found(state(1, "model.") | flat) == (1, "model.", False)


def test_counters_and_schedules_are_not_part_of_the_network() -> None:
    extra = {"betas": torch.zeros(1000), "step": torch.tensor(3), "positions": torch.zeros(2, 2)}
    result = find_state(RAW | extra | {"epoch": 3})
    assert set(result.state) == {*NAMES, "positions"}
    assert len(result.schedules) == 1


@pytest.mark.parametrize("name", ["betas", "diffusion.betas", "diffusion.alphas_cumprod"])
def test_noise_schedules_are_found_anywhere(name: str) -> None:
    betas = torch.linspace(1e-4, 0.02, 1000)
    alphas_cumprod = (1 - betas.double()).cumprod(dim=0)
    stored = betas if name.endswith("betas") else alphas_cumprod
    for content in (state(1, "model.") | {name: stored}, {"model": RAW, "other": {name: stored}}):
        result = find_state(content)
        assert not result.contradicts(alphas_cumprod)
        assert result.contradicts(alphas_cumprod**2)
        assert result.contradicts(alphas_cumprod[:-1])


def test_a_file_inside_itself_ends() -> None:
    content: dict[str, Any] = {"model": RAW}
    content["self"] = content
    assert found(content) == (1, "model", False)


def test_other_state_dicts_are_not_recognised() -> None:
    others = {"small": {"a": torch.zeros(1)}, "large": {"b": torch.zeros(1), "c": torch.zeros(1)}}
    assert find_state(others) == Found(others["large"], "large", False, recognised=False)
    for content in ({}, [], [3], 3, {"step": 3}, torch.zeros(3)):
        with pytest.raises(ValueError, match="found no tensors by name"):
            find_state(content)
