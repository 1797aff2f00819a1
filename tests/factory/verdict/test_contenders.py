"""Which contenders take part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from factory.verdict.bench import Materials
from factory.verdict.comparison import choose
from factory.verdict.pools import Pool
from factory.verdict.settings import CompareConfig


def test_rounds_learn_from_samples_if_there_are_no_photographs(tmp_path: Path) -> None:
    pool = Pool(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), tmp_path, None)
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    materials = Materials(CompareConfig(), tmp_path, pool, masks, ["a", "b"], photographs=pool)
    materials = replace(materials, encoder=cast(Any, "a generator"))

    def rounds_of(materials: Materials, *names: str) -> list[str]:
        runnable, _ = choose(materials, names)
        return [c.name for c in runnable if c.name.startswith("round-")]

    assert rounds_of(materials) == ["round-1", "round-2", "round-1-light"]
    assert rounds_of(materials, "round-1-both", "unet") == ["round-1-both"]
    alone = replace(materials, photographs=None)
    samples = ["round-1-synthetic", "round-2-synthetic", "round-1-synthetic-light"]
    assert rounds_of(alone) == samples
    assert rounds_of(alone, "round-2-synthetic", "round-1") == ["round-2-synthetic"]
