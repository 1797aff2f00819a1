"""Training: round trip, exact resumption, determinism, and the checks before it starts."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from factory_core.segmentation_unet import SegmentationUNet, UNetDescription, small_unet
from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.evaluation.evaluate import evaluate
from train_seg.network.network import build
from train_seg.network.segmenter import Segmenter
from train_seg.training.module import SegmenterModule
from train_seg.training.train import train


class Stop(Exception):
    pass


class StopAt(Callback):
    """Interrupts the training after a step, as a lost machine would."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            raise Stop


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_learns_squares_and_round_trips(dataset, config, tmp_path, make_labeled, capfd):
    val = make_labeled()
    # In float32, as loaded segmenters predict; validation in bfloat16 would differ slightly.
    given = {"max_steps": 30, "validate_every": 15, "lr": 3e-3, "precision": "float32"}
    more = config.model_copy(update=given)
    trained = train([dataset], tmp_path / "out", more, val, device="cpu")
    assert capfd.readouterr() == ("", "")  # no advice from libraries
    loaded = Segmenter.load(tmp_path / "out", device="cpu")
    result = evaluate(loaded.predict, val.images, val.masks, loaded.classes).scores
    assert loaded.classes == ["ground", "red", "blue"]
    assert result.miou > 0.6
    assert result.miou == pytest.approx(loaded.scores["miou"])
    assert torch.equal(trained.predict(val.images), loaded.predict(val.images))
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").open()))
    assert [int(r["step"]) for r in rows] == [15, 30]
    assert max(float(r["miou"]) for r in rows) == pytest.approx(result.miou)
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


@pytest.mark.slow
@pytest.mark.parametrize("validate", [False, True])
def test_resumed_equals_uninterrupted(dataset, config, tmp_path, validate, make_labeled):
    config = config.model_copy(
        update={
            "max_steps": 5,
            "validate_every": 2,
            "ema": 0.9 * validate,
            "schedule": "cosine",
            "augment": AugmentConfig(horizontal_flip=True, brightness=0.2),
        }
    )
    val = make_labeled(4) if validate else None
    train([dataset], tmp_path / "whole", config, val, device="cpu")
    with pytest.raises(Stop):
        train([dataset], tmp_path / "cut", config, val, device="cpu", callbacks=[StopAt(3)])
    assert not (tmp_path / "cut" / "model.json").exists()
    train([dataset], tmp_path / "cut", config, val, device="cpu")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    again = train([dataset], tmp_path / "cut", config, val, device="cpu")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert again.scores == Segmenter.load(tmp_path / "whole", "cpu").scores


def test_equal_seeds_give_equal_weights(dataset, config, tmp_path):
    short = config.model_copy(update={"max_steps": 2})
    before = torch.get_rng_state()
    for name in ("a", "b"):
        train([dataset], tmp_path / name, short, device="cpu")
    assert torch.equal(before, torch.get_rng_state())  # the caller's random state is kept
    other = short.model_copy(update={"seed": 1})
    train([dataset], tmp_path / "c", other, device="cpu")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_joins_datasets_and_annotated_images(
    dataset, config, tmp_path, make_labeled, write_dataset
):
    second = write_dataset(tmp_path / "second", shards=(4,))
    short = config.model_copy(update={"max_steps": 2})
    result = train(
        [dataset, second, make_labeled(3, size=48)], tmp_path / "out", short, device="cpu"
    )
    assert result.image_size == (32, 32)
    assert result.scores == {}


@pytest.mark.slow
def test_every_other_setting_trains(dataset, tmp_path, make_labeled):
    config = SegmenterConfig(
        encoder="resnet18",
        encoder_depth=4,
        output_stride=16,
        atrous_rates=(1, 2, 3),
        image_size=(24, 40),
        input_scale=1.5,
        optimizer="sgd",
        weight_decay=1e-4,
        warmup_steps=1,
        label_smoothing=0.1,
        batch_size=2,
        max_steps=2,
        precision="float32",
        shuffle_buffer=2,
    )
    result = train([dataset], tmp_path / "out", config, device="cpu")
    assert result.network.input_size == (48, 64)
    assert result.predict(make_labeled(1, 50).images).shape == (1, 50, 50)


def test_different_settings_in_the_same_folder_are_refused(dataset, config, tmp_path, make_labeled):
    short = config.model_copy(update={"max_steps": 1})
    train([dataset], tmp_path / "out", short, device="cpu")
    other = short.model_copy(update={"lr": 0.5})
    with pytest.raises(ValueError, match=r"lr \(0.001, now 0.5\); use another --out"):
        train([dataset], tmp_path / "out", other, device="cpu")
    with pytest.raises(ValueError, match="different training: other data, other validation data;"):
        train([make_labeled(4)], tmp_path / "out", short, make_labeled(1), device="cpu")


def test_a_record_of_an_earlier_version_is_of_the_same_training(config, tmp_path, make_labeled):
    short = config.model_copy(update={"max_steps": 1})
    train([make_labeled(4)], tmp_path, short, device="cpu")
    record = json.loads((tmp_path / "training.json").read_text())
    for key in ("width", "unet", "init"):
        del record[key]
    del record["augment"]["noise"]
    (tmp_path / "training.json").write_text(json.dumps(record))
    expected = weights(tmp_path)
    train([make_labeled(4)], tmp_path, short, device="cpu")
    assert weights(tmp_path) == expected


def test_starts_from_a_generator_and_from_a_segmenter(tmp_path, make_labeled):
    data, out = [make_labeled(4)], tmp_path / "out"
    config = SegmenterConfig(architecture="UNetGN", width=8, max_steps=1, batch_size=2)
    shape = small_unet(16, 8).config
    torch.manual_seed(0)
    start = UNetDescription(shape, SegmentationUNet(UNetDescription(shape), 3).unet.state_dict())
    first = train(data, out, config, device="cpu", init=start)
    assert first.config.unet is not None
    assert first.image_size == (16, 16)  # of the generator
    with pytest.raises(ValueError, match="different training: another start; use another --out"):
        train(data, out, config, device="cpu", init=first)
    still = config.model_copy(update={"lr": 1e-12})
    second = train(data, tmp_path / "second", still, device="cpu", init=first)
    assert second.image_size == (16, 16)
    given = still.model_copy(update={"image_size": (24, 24)})
    third = train(data, tmp_path / "third", given, device="cpu", init=first)
    assert third.image_size == (24, 24)
    for name, tensor in second.network.state_dict().items():
        torch.testing.assert_close(tensor, first.network.state_dict()[name])


def test_a_failed_start_does_not_bind_the_folder(dataset, config, tmp_path, make_labeled):
    short = config.model_copy(update={"max_steps": 1})
    with pytest.raises(Stop):
        train([dataset], tmp_path / "out", config, device="cpu", callbacks=[StopAt(1)])
    stale = tmp_path / "out" / "checkpoints" / ".tmp-last.ckpt"
    stale.touch()
    train([make_labeled(4)], tmp_path / "out", short, device="cpu")
    assert not stale.exists()


def test_damaged_checkpoint(config, tmp_path, make_labeled):
    data, out = [make_labeled(4)], tmp_path / "out"
    short = config.model_copy(update={"max_steps": 1})
    train(data, out, short, device="cpu")
    last = out / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    for damaged in (content[:half], flipped, b""):
        last.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last.ckpt is damaged: delete it to start over$"):
            train(data, out, short, device="cpu")
    last.unlink()
    stale = last.with_name(".tmp-last.ckpt")
    stale.touch()
    expected = weights(out)
    train(data, out, short, device="cpu")
    assert weights(out) == expected
    assert not stale.exists()


def test_damaged_record_and_best_weights(config, tmp_path, make_labeled):
    data, out = [make_labeled(4)], tmp_path / "out"
    short = config.model_copy(update={"max_steps": 1})
    train(data, out, short, make_labeled(1), device="cpu")
    os.truncate(out / "checkpoints" / "best.safetensors", 1000)
    with pytest.raises(ValueError, match=r"best.safetensors is missing or damaged: delete .*nts"):
        train(data, out, short, make_labeled(1), device="cpu")
    for content in ("{", "[1]"):
        (out / "training.json").write_text(content)
        with pytest.raises(ValueError, match=r"training.json is damaged .*: delete it to start"):
            train(data, out, short, make_labeled(1), device="cpu")


class Poison(Callback):
    """Fills a weight tensor with NaN before a step."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        if trainer.global_step == 2:
            next(pl_module.network.parameters()).data.fill_(torch.nan)


@pytest.mark.parametrize("validate", [False, True])
def test_diverged_training_is_not_saved(config, tmp_path, make_labeled, validate):
    val = make_labeled(2) if validate else None
    wild = config.model_copy(update={"lr": 1e38, "max_steps": 3})
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"training diverged, .* step 3 of 3: lower lr \(now 1e"):
        train([make_labeled(4)], out, wild, val, device="cpu")
    assert not list(out.glob("model*"))
    assert not list((out / "checkpoints").iterdir())
    train([make_labeled(4)], out, config.model_copy(update={"max_steps": 1}), val, device="cpu")


def test_diverged_training_stops_within_a_round(config, tmp_path, make_labeled):
    long = config.model_copy(update={"max_steps": 100, "validate_every": 100})
    with pytest.raises(ValueError, match=r"diverged, the loss is nan after step 10 of 100: lower"):
        train([make_labeled(4)], tmp_path, long, device="cpu", callbacks=[Poison()])


def test_different_classes_in_validation_are_refused(dataset, config, tmp_path, make_labeled):
    val = make_labeled(1)
    wrong = LabeledImages(val.images, val.masks, ["ground", "red", "green"], name="my/val")
    with pytest.raises(ValueError, match="my/val has the classes ground, red, green, the train"):
        train([dataset], tmp_path / "out", config, wrong)
    assert not (tmp_path / "out").exists()


def test_unknown_encoder_is_one_line(dataset, config, tmp_path):
    wrong = config.model_copy(update={"encoder": "resnet17"})
    with pytest.raises(ValueError, match=r"'resnet17': .* did you mean 'resnet1\d'") as error:
        train([dataset], tmp_path / "out", wrong)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 150
    with pytest.raises(ValueError, match=r"unknown encoder, expected e.g. resnet18"):
        train([dataset], tmp_path / "out", config.model_copy(update={"encoder": "?"}))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_stops_early_and_stays_stopped(config, tmp_path, make_labeled):
    given = {"max_steps": 20, "validate_every": 1, "patience": 2, "optimizer": "sgd", "lr": 1e-12}
    data, out = [make_labeled(4)], tmp_path / "out"
    frozen = config.model_copy(update={**given, "precision": "float32"})
    trained = train(data, out, frozen, make_labeled(2), device="cpu")
    rows = list(csv.DictReader((out / "curves.csv").open()))
    assert len(rows) == int(trained.scores["step"]) + 2 < 20
    before = weights(out)
    (out / "model.safetensors").unlink()
    train(data, out, frozen, make_labeled(2), device="cpu")
    assert len(list(csv.DictReader((out / "curves.csv").open()))) == len(rows)
    assert weights(out) == before


def test_patience_without_validation_is_refused(config, tmp_path, make_labeled):
    impatient = config.model_copy(update={"patience": 2})
    with pytest.raises(ValueError, match="patience counts validations: also give --val"):
        train([make_labeled(4)], tmp_path / "out", impatient, device="cpu")
    assert not (tmp_path / "out").exists()


def test_norms_and_biases_do_not_decay(config, tmp_path):
    decaying = config.model_copy(update={"optimizer": "adamw", "weight_decay": 0.1})
    module = SegmenterModule(build(decaying, 2, (32, 32)), decaying, ["a", "b"], 100, tmp_path)
    matrices, vectors = module.configure_optimizers()["optimizer"].param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0)
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(module.parameters()))


def test_warmup_takes_at_most_a_tenth_of_the_run(config, tmp_path):
    warm = config.model_copy(update={"warmup_steps": 500})
    module = SegmenterModule(build(warm, 2, (32, 32)), warm, ["a", "b"], 100, tmp_path)
    factor = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in (0, 9, 10, 99)] == pytest.approx([1 / 11, 10 / 11, 1, 1])


@pytest.mark.slow
def test_weights_and_biases_offline(config, tmp_path, make_labeled, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    short = config.model_copy(update={"max_steps": 1})
    train([make_labeled(4)], tmp_path / "out", short, device="cpu", wandb=True)
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_weights_and_biases_without_the_package(config, tmp_path, make_labeled, monkeypatch):
    monkeypatch.setattr("train_seg.training.train.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[wandb\]'"):
        train([make_labeled(4)], tmp_path / "out", config, device="cpu", wandb=True)
    assert not (tmp_path / "out").exists()
