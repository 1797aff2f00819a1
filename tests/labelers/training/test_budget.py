"""The budget computed before training matches what training takes."""

from __future__ import annotations

import pytest
import torch

from generators.base import FeatureMaps
from labelers.config import FastTraining, LabelerConfig
from labelers.ensemble.classifiers import Ensemble
from labelers.labeler import GeneratorInfo
from labelers.training.budget import budget
from labelers.training.feature_store import FeatureStore
from labelers.training.fit import fit

CONFIG = LabelerConfig(
    members=3, hidden=(64, 32), training=FastTraining(steps=50), min_class_pixels=0
)


def test_disk(tmp_path, monkeypatch):
    features = FeatureMaps({"a": torch.randn(4, 40, 8, 8), "b": torch.randn(4, 10, 16, 16)})
    found = budget(features.spec, 4, (16, 16), 3, CONFIG)
    store = FeatureStore(tmp_path / "features", features.spec, 4, CONFIG.feature_dtype)
    store.append(features)
    files = (tmp_path / "features").glob("*.features")
    assert found.features_bytes == sum(file.stat().st_size for file in files)

    monkeypatch.setattr("labelers.training.trainer.CHECKPOINT_SEC", 0)
    masks = torch.randint(3, (4, 16, 16), dtype=torch.uint8)
    info = GeneratorInfo(digest="")
    checkpoint = tmp_path / "checkpoint"
    fit(
        *(store, masks, CONFIG),
        classes=list("abc"),
        generator=info,
        data_digest="",
        checkpoint=checkpoint,
    )
    assert found.checkpoint_bytes == pytest.approx(checkpoint.stat().st_size, rel=0.1)


def test_weights():
    features = FeatureMaps({"a": torch.randn(1, 40, 8, 8)})
    ensemble = Ensemble(features.spec, 3, (64, 32), 3)
    found = budget(features.spec, 1, (16, 16), 3, CONFIG)
    assert found.weights == pytest.approx(sum(p.numel() for p in ensemble.parameters()), rel=0.01)


def test_memory_grows_with_the_training():
    spec = FeatureMaps({"a": torch.empty(1, 400, 8, 8)}).spec
    least = budget(spec, 10, (16, 16), 3, CONFIG).working_bytes
    for changed in (
        budget(spec, 20, (16, 16), 3, CONFIG),
        budget(spec, 10, (32, 32), 3, CONFIG),
        budget(spec, 10, (16, 16), 3, CONFIG.model_copy(update={"members": 4})),
        budget(spec, 10, (16, 16), 3, CONFIG.model_copy(update={"hidden": (128, 32)})),
        budget(
            *(spec, 10, (16, 16), 3),
            CONFIG.model_copy(update={"training": FastTraining(batch_pixels=1024)}),
        ),
    ):
        assert changed.working_bytes > least
