"""The plain job is a fair baseline: it labels as we do, and writes a whole dataset."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks import plain_job
from benchmarks.plain_labeler import predict
from factory.recipe import load_recipe, resolve
from factory_core.device import pick_device
from generators import load
from labelers.labeler import Labeler


@pytest.mark.slow
def test_its_members_label_as_the_ensemble_does() -> None:
    recipe = resolve(load_recipe("demo"))
    config = recipe.generator.model_copy(update={"steps": 2, "precision": "float32"})
    images, features = load(config, "cpu").sample([0])
    labeler = Labeler.load(str(recipe.labeler.weights), pick_device("cpu"))
    ensemble = labeler.ensemble
    assert ensemble is not None
    ours = labeler.predict(images, features)
    maps = plain_job.in_order(list(features.values()), ensemble)
    mask, js = predict(plain_job.members_of(ensemble), maps, labeler.info.image_size)
    assert (mask == ours.mask[0]).float().mean() > 0.999
    torch.testing.assert_close(js, ours.pixel_uncertainty[0], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_it_writes_nine_of_ten_samples(tmp_path: Path) -> None:
    plain_job.run(10, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = tar.getnames()
    assert len({name.split(".")[0] for name in names}) == 9
    assert len(names) == 27
