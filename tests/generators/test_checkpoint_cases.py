"""Every checkpoint in the documentation's table does what the table says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from generators.ddpm.checkpoints import load_checkpoint, load_unet
from generators.kind import kind_of
from generators.stylegan2.pickles import read_snapshot
from tests.cases.checkpoints import guided_diffusion, rosinality, stylegan2, table
from tests.cases.checkpoints.case import Bench, Case


def read(path: Path, case: Case) -> tuple[torch.nn.Module, str]:
    """The network at `path`, and where it was there."""
    if kind_of(path) == "stylegan2":
        return read_snapshot(path)
    if path.is_dir():
        return load_unet(str(path), **case.given)[0], ""
    checkpoint = load_checkpoint(path, **case.given)
    return checkpoint.unet, checkpoint.weights


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.nn.Module]:
    """The networks that the cases hold, by the module of the case."""
    path, given = guided_diffusion.FILE, guided_diffusion.GIVEN
    return {
        guided_diffusion.__name__: load_checkpoint(path, **given).unet,
        stylegan2.__name__: stylegan2.network(),
        rosinality.__name__: rosinality.network(),
    }


@pytest.mark.parametrize("case", table.CASES, ids=str)
def test_a_checkpoint(
    case: Case, tmp_path: Path, ada_pickle: Callable[..., bytes], expected: dict
) -> None:
    path = case.write(Bench(tmp_path, ada_pickle))
    if not case.loads:
        with pytest.raises(ValueError, match=r".") as caught:
            read(path, case)
        message = str(caught.value)
        assert message.startswith(f"{path}: {case.says}")
        assert message.count("\n") == 0
        assert case.instead
        assert case.instead in message
        return
    network, place = read(path, case)
    assert place == case.says
    for module in (guided_diffusion, stylegan2, rosinality):
        if case in module.CASES:
            wanted = expected[module.__name__].state_dict()
            found = network.state_dict()
            assert list(found) == list(wanted)
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_table_in_the_documentation_is_that_of_the_cases() -> None:
    text = table.DOCUMENT.read_text()
    assert text == table.documented(text), f"run {table.COMMAND}"
