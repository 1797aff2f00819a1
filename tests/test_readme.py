"""The commands of the README's walk-through as written there, at a smaller scale."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.demo.render import render_folder

README = (Path(__file__).parents[1] / "README.md").read_text()
# If an option is given twice, the last one counts.
SHORTER = {
    "render-demo": "--n 4",
    "train-generator": "--steps 2 --batch-size 2",
    "train-labeler": "--fast --set labeler.training.steps=10 --set labeler.members=2",
    "generate": "--n 10 --set generator.steps=1 --executor local",
    "label": "--executor local",
    "train-deeplab": "--steps 2 --set batch_size=2",
}
IMAGES, LABELED = ("--images", "--real"), ("--labeled", "--val")


def blocks(text: str) -> list[str]:
    """Contents of the fenced bash blocks that begin with `factory`."""
    return re.findall(r"^```bash\n(factory .*?)^```", text, re.MULTILINE | re.DOTALL)


def walk_through() -> list[list[str]]:
    """The arguments of each command in the chapter that trains a generator first of all."""
    chapters = re.split(r"^## ", README, flags=re.MULTILINE)
    chapter = next(c for c in chapters if any("train-generator" in block for block in blocks(c)))
    lines = "\n".join(blocks(chapter)).replace("\\\n", " ").splitlines()
    commands = [part for line in lines for part in line.split(" && ")]
    return [words[1:] for c in commands if (words := shlex.split(c, comments=True))]


def values(command: list[str], options: tuple[str, ...]) -> Iterator[str]:
    """The values that a command gives for any of these options."""
    for option, value in itertools.pairwise(command):
        if option in options:
            yield value


def provide(commands: list[list[str]]) -> None:
    """Write the folders that readers bring along: no command makes them."""
    made = {value for command in commands for value in values(command, ("--out",))}
    given = [c for command in commands for c in values(command, (*LABELED, *IMAGES))]
    labeled = {value for command in commands for value in values(command, LABELED)}
    for start, name in enumerate(dict.fromkeys(given)):
        if name.split("/")[0] in made:
            continue
        where = Path(name) if name in labeled else Path("rendered", name)
        render_folder(where, range(10 * start, 10 * start + 4), size=32)
        if name not in labeled:
            shutil.move(where / "images", name)


@pytest.mark.slow
def test_the_walk_through(
    factory: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = walk_through()
    expected = ["train-generator", "train-labeler", "generate", "train-deeplab", "evaluate"]
    verbs = [command[0] for command in commands]
    assert [verb for verb in verbs if verb in expected] == expected
    assert "predict" in verbs
    provide(commands)
    for command in commands:
        result = factory(*command, *SHORTER.get(command[0], "").split())
        assert result.code == 0, f"{shlex.join(command)}: {result.err}"
        for out in values(command, ("--out",)):
            assert Path(out).exists()
