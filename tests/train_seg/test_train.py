"""Training: round trip, exact resumption, determinism, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data import LabeledImages
from train_seg.evaluate import evaluate
from train_seg.model import Segmenter
from train_seg.module import pixel_loss
from train_seg.train import pick_precision, round_steps, total_steps, train


class Stop(Exception):
    pass


class StopAt(Callback):
    """Breaks off the training at a step, as a lost machine would."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            raise Stop


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_learns_squares_and_round_trips(dataset, config, tmp_path, make_labeled, capfd):
    val = make_labeled()
    more = config.model_copy(update={"max_steps": 40, "validate_every": 20, "lr": 3e-3})
    trained = train([dataset], tmp_path / "out", more, val, device="cpu")
    assert capfd.readouterr() == ("", "")  # no library's advice
    loaded = Segmenter.load(tmp_path / "out", device="cpu")
    result = evaluate(loaded.predict, val.images, val.masks, loaded.classes)
    assert loaded.classes == ["ground", "red", "blue"]
    assert result.miou > 0.6
    assert result.miou == pytest.approx(loaded.scores["miou"])
    assert torch.equal(trained.predict(val.images), loaded.predict(val.images))
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").open()))
    assert [int(r["step"]) for r in rows] == [20, 40]
    assert max(float(r["miou"]) for r in rows) == pytest.approx(result.miou)
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("validate", [False, True])
def test_resumed_equals_undisturbed(dataset, config, tmp_path, validate, make_labeled):
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


def test_same_seed_same_weights(dataset, config, tmp_path):
    short = config.model_copy(update={"max_steps": 2})
    before = torch.get_rng_state()
    for name in ("a", "b"):
        train([dataset], tmp_path / name, short, device="cpu")
    assert torch.equal(before, torch.get_rng_state())  # the caller's own draws are not disturbed
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


def test_every_other_key_trains(dataset, tmp_path, make_labeled):
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
        num_workers=1,
        shuffle_buffer=2,
    )
    result = train([dataset], tmp_path / "out", config, device="cpu")
    assert result.network.input_size == (48, 64)
    assert result.predict(make_labeled(1, 50).images).shape == (1, 50, 50)


def test_refuses_other_settings_in_the_same_folder(dataset, config, tmp_path):
    short = config.model_copy(update={"max_steps": 1})
    train([dataset], tmp_path / "out", short, device="cpu")
    other = short.model_copy(update={"lr": 0.5})
    with pytest.raises(ValueError, match=r"lr \(0.001, now 0.5\); use another --out"):
        train([dataset], tmp_path / "out", other, device="cpu")
    train([dataset], tmp_path / "out", other, device="cpu", resume=False)
    assert Segmenter.load(tmp_path / "out", "cpu").config.lr == 0.5


def test_refuses_other_classes_in_validation(dataset, config, tmp_path, make_labeled):
    val = make_labeled(1)
    wrong = LabeledImages(val.images, val.masks, ["ground", "red", "green"], name="my/val")
    with pytest.raises(ValueError, match="my/val has the classes ground, red, green, the train"):
        train([dataset], tmp_path / "out", config, wrong)
    assert not (tmp_path / "out").exists()


def test_unknown_encoder_is_one_line(dataset, config, tmp_path):
    wrong = config.model_copy(update={"encoder": "resnet17"})
    with pytest.raises(ValueError, match="cannot build DeepLabV3 on encoder 'resnet17'") as error:
        train([dataset], tmp_path / "out", wrong)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_length_of_a_run():
    config = SegmenterConfig(batch_size=8, epochs=3)
    assert total_steps(config, 100) == 38
    assert total_steps(config.model_copy(update={"max_steps": 7}), 100) == 7
    assert (round_steps(config, 24), round_steps(config, 8000)) == (50, 1000)


def test_auto_precision_asks_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    for supported, expected in ((True, "bf16-mixed"), (False, "32-true")):
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda s=supported: s, raising=False)
        assert pick_precision(SegmenterConfig(), cpu) == expected
    assert pick_precision(SegmenterConfig(precision="bfloat16"), cpu) == "bf16-mixed"


def test_loss_ignores_255():
    logits = torch.randn(1, 3, 2, 2)
    masks = torch.tensor([[[0, 255], [2, 255]]], dtype=torch.uint8)
    labelled = pixel_loss(logits[..., :1], masks[..., :1])
    assert pixel_loss(logits, masks) == pytest.approx(labelled.item())
    assert pixel_loss(logits, torch.full_like(masks, 255)) == 0
