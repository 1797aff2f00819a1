"""Corruptions: all of them run, are reproducible, and enter the right score."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from train_seg.evaluation.evaluate import evaluate
from train_seg.evaluation.robustness import (
    SEVERITIES,
    Robustness,
    corrupt,
    corruption_names,
    robustness,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def test_names_of_groups_and_lists():
    assert len(corruption_names("all")) == 19
    assert len(corruption_names("common")) == 15
    assert "fog" in corruption_names("weather")
    assert corruption_names("fog, snow") == ["snow", "fog"]
    with pytest.raises(ValueError, match=r"unknown corruption 'snwo': did you mean 'snow'\?"):
        corruption_names("fog,snwo")
    with pytest.raises(ValueError, match=r"unknown corruption '': expected one of all, common"):
        corruption_names("")


@pytest.mark.parametrize("name", corruption_names("all"))
def test_each_corruption_is_reproducible_and_keeps_the_random_state(name, make_labeled, capsys):
    image = make_labeled(1, size=40).images[0]
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first, second = (corrupt(image, name, 3, seed=5) for _ in range(2))
    assert (np.random.get_state()[1] == before).all()
    assert first.shape == image.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, second)
    assert not torch.equal(first, image)
    assert capsys.readouterr().out == ""


def test_severity_and_seed_matter(make_labeled):
    image = make_labeled(1).images[0].float()
    errors = [
        (corrupt(image.to(torch.uint8), "gaussian_noise", s, 0).float() - image).abs().mean()
        for s in SEVERITIES
    ]
    assert errors == sorted(errors)
    noisy = [corrupt(image.to(torch.uint8), "gaussian_noise", 1, seed) for seed in (0, 1)]
    assert not torch.equal(*noisy)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cell_is_the_score_of_the_corrupted_images(make_labeled, by_colour, workers):
    data = make_labeled(3)
    names, clean = ["contrast", "pixelate"], [1.0]
    (result,) = robustness(
        [by_colour],
        data.images,
        data.masks,
        data.classes,
        clean,
        names,
        severities=[1, 5],
        batch_size=2,
        workers=workers,
    )
    worse = torch.stack([corrupt(image, "contrast", 5, i) for i, image in enumerate(data.images)])
    expected = evaluate(by_colour, worse, data.masks, data.classes).scores.miou
    assert result.miou[0][1] == expected < 1
    assert np.shape(result.miou) == (2, 2)
    assert result.names == names


def test_several_models_see_the_same_images(make_labeled, by_colour):
    data, seen = make_labeled(2), ([], [])

    def watching(images: torch.Tensor, which: int) -> torch.Tensor:
        seen[which].append(images.clone())
        return by_colour(images)

    functions = [lambda x: watching(x, 0), lambda x: watching(x, 1)]
    results = robustness(
        functions, data.images, data.masks, data.classes, [1.0, 0.5], ["shot_noise"], [2]
    )
    assert torch.equal(seen[0][0], seen[1][0])
    assert results[0].miou == results[1].miou
    assert (results[0].clean, results[1].clean) == (1.0, 0.5)


def test_means_leave_out_extra_corruptions():
    result = Robustness(["fog", "spatter"], [1, 2], [[0.4, 0.2], [0.9, 0.9]], 0.6, ["fog"])
    assert result.mpc == pytest.approx(0.3)
    assert result.rpc == pytest.approx(0.5)
    other = Robustness(["fog", "spatter"], [1, 2], [[0.2, 0.2], [0.7, 0.9]], 0.4, ["fog"])
    mean = Robustness.average([result, other])
    assert mean.miou == [pytest.approx([0.3, 0.2]), pytest.approx([0.8, 0.9])]
    assert mean.clean == pytest.approx(0.5)
    assert mean.to_dict()["miou"]["fog"] == mean.miou[0]


def test_small_images_are_refused(make_labeled, by_colour):
    data = make_labeled(1, size=24)
    with pytest.raises(ValueError, match="at least 32 pixels per side, found 24x24"):
        robustness([by_colour], data.images, data.masks, data.classes, [1.0], ["fog"])


def test_the_error_without_the_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[robustness\]'"):
        corruption_names("all")
