"""The settings and options of `factory train-deeplab`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from factory.commands.train_deeplab.job import SegmenterJob, is_dataset
from factory.commands.train_deeplab.settings import segmenter_config
from factory.demo.render import render_folder
from factory_core.storage import Store
from train_seg.config import PRESETS, SegmenterConfig
from train_seg.data.training_data import open_training_data

SMALL = ("--encoder", "resnet18", "--set", "encoder_depth=3", "--set", "batch_size=2")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_papers_settings_are_the_default() -> None:
    assert SegmenterConfig(**PRESETS["paper"]) == SegmenterConfig()


def test_flags_before_preset_before_defaults() -> None:
    given = {"encoder": "resnet18", "seed": None}
    config = segmenter_config([], None, "modern", given, ["lr=0.5", "augment.hue=0.1"])
    assert (config.optimizer, config.encoder, config.lr) == ("adamw", "resnet18", 0.5)
    assert (config.augment.hue, config.batch_size) == (0.1, 8)
    again = segmenter_config([], None, "modern", given, [])
    assert again.augment.hue == PRESETS["modern"]["augment"].get("hue", 0)  # unchanged


def test_invalid_presets() -> None:
    with pytest.raises(ValueError, match="--preset best: expected paper, modern, unet"):
        segmenter_config([], None, "best", {}, [])
    with pytest.raises(ValueError, match="found --preset and --recipe, expected one"):
        segmenter_config([], "demo", "paper", {}, [])


def test_a_mixture_from_the_command_line(factory: Callable) -> None:
    render_folder(Path("many"), range(4), size=32)
    render_folder(Path("few"), range(4, 6), size=32)
    command = ("train-deeplab", "--data", "many", "--data", "few", "--out", "model", "--steps", 1)
    small = ("--encoder", "resnet18", "--set", "batch_size=2")
    settings = ("--preset", "modern", *small, "--device", "cpu")
    trained = factory(*command, "--mix", "0.9,0.1", *settings)
    assert trained.code == 0, trained.err
    record = json.loads(Path("model/training.json").read_text())
    assert record["mix"] == [0.9, 0.1]
    assert record["optimizer"] == "adamw"
    chosen = json.loads(Path("model/model.json").read_text())["config"]  # for images of 32x32
    assert (chosen["input_scale"], chosen["encoder_depth"]) == (4.0, 4)
    other = factory(*command, "--mix", "0.5,0.5", *settings)
    assert "other data, mix ([0.9, 0.1], now [0.5, 0.5]); use another --out" in other.err
    assert factory(*command, *settings, "--mix", "0.9").err.startswith("error: --mix 0.9: found 1")
    refused = factory(*command, *settings, "--mix", "most,few").err
    assert refused == "error: --mix most,few: expected numbers such as 0.9,0.1\n"


def test_starts_from_a_generator_then_from_its_result(factory: Callable) -> None:
    render_folder(Path("few"), range(2), size=32)
    command = ("train-deeplab", "--data", "few", "--steps", 1, "--device", "cpu")
    batch = ("--set", "batch_size=2")
    first = factory(*command, "--init", "package:factory.demo/generator", "--out", "a", *batch)
    assert first.code == 0, first.err
    config = json.loads(Path("a/model.json").read_text())["config"]
    assert (config["architecture"], config["ema"]) == ("UNetGN", PRESETS["unet"]["ema"])
    assert config["unet"]["block_out_channels"] == [16, 32, 64, 128]
    second = factory(*command, "--init", "a", "--out", "b", *batch)
    assert second.code == 0, second.err
    about = json.loads(Path("b/model.json").read_text())
    assert about["config"]["unet"] == config["unet"]
    assert about["config"]["ema"] == 0  # only the network is taken over
    refused = factory(*command, "--init", "a", "--out", "c", "--encoder", "resnet18")
    assert refused.err == "error: --encoder resnet18: UNetGN has no encoder; leave it out\n"
    wrong = factory(*command, "--init", "package:factory.demo/stylegan2/generator", "--out", "c")
    assert "stylegan2 generator has no U-Net to start from: give a diffusion mod" in wrong.err
    assert (
        "--init: nothing does not exist" in factory(*command, "--init", "nothing", "--out", "c").err
    )
    assert not Path("c").exists()


def test_a_second_stage_from_the_command_line(factory: Callable) -> None:
    render_folder(Path("many"), range(4), size=32)
    render_folder(Path("few"), range(4, 6), size=32)
    command = ("train-deeplab", "--data", "many", "--out", "model", "--steps", 1, "--device", "cpu")
    settings = (*SMALL, "--set", "then.max_steps=1", "--set", "then.lr=1e-4")
    refused = factory(*command, *settings)
    assert refused.err.startswith("error: found --set then.*, the settings of a second stage: give")
    trained = factory(*command, "--then", "few", *settings)
    assert trained.code == 0, trained.err
    record = json.loads(Path("model/training.json").read_text())
    assert (record["then.max_steps"], record["then.lr"]) == (1, 1e-4)
    assert Path("model/checkpoints-then/last.ckpt").is_file()


def test_a_dataset_in_a_bucket(tiny, memory_out: Store) -> None:
    assert not is_dataset(memory_out)
    tiny.make(memory_out)
    assert is_dataset(memory_out)
    config = segmenter_config([memory_out], None, None, {"encoder": "resnet18"}, [])
    data, then, val = SegmenterJob([memory_out], Path("out"), None, config, "cpu").read()
    assert (data, then, val) == ([str(memory_out)], [], None)
    assert open_training_data(data, lambda size: None).classes == ["dark", "bright"]


def test_options_for_workers_need_workers(
    factory: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_folder(Path("few"), range(2), size=32)
    command = ("train-deeplab", "--data", "few", "--out", "model")
    for option in (("--address", "auto"), ("--cpus-per-worker", 2)):
        assert "without --workers" in factory(*command, *option).err
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # as in every job that Ray starts
    assert "--mix 1,2" in factory(*command, "--mix", "1,2").err
    assert not Path("model").exists()


def test_damaged_samples_are_counted(factory: Callable, tiny) -> None:
    shards = tiny.make(Path("data")).shards
    path = Path("data/shards") / shards[0].name
    path.write_bytes(path.read_bytes()[: shards[0].bytes // 2])
    command = ("train-deeplab", "--data", "data", "--out", "model", "--steps", 14, *SMALL)
    assert "it is damaged" in factory(*command, "--device", "cpu").err
    trained = factory(*command, "--device", "cpu", "--set", "skip_damaged=true")
    assert trained.code == 0, trained.err
    skipped = json.loads(Path("model/model.json").read_text())["skipped"]
    assert list(skipped) == ["shard cannot be read"]
    assert 0 < skipped["shard cannot be read"] < shards[0].samples
    again = factory(*command, "--device", "cpu", "--set", "skip_damaged=true")
    assert again.code == 0, again.err
    assert json.loads(Path("model/model.json").read_text())["skipped"] == skipped  # recorded
    line = f"skipped {skipped['shard cannot be read']} damaged samples (shard cannot be read: "
    assert line in trained.out


def test_an_encoder_from_a_file_is_named_in_the_result(factory: Callable) -> None:
    torch.save(smp.encoders.get_encoder("resnet18", weights=None).state_dict(), "resnet18.pth")
    digest = hashlib.sha256(Path("resnet18.pth").read_bytes()).hexdigest()
    render_folder(Path("few"), range(2), size=32)
    command = ("train-deeplab", "--data", "few", "--out", "a", "--steps", 1, "--device", "cpu")
    trained = factory(*command, *SMALL, "--set", "encoder_weights=resnet18.pth")
    assert trained.code == 0, trained.err
    assert f"the encoder started from resnet18.pth (sha256:{digest}) weights" in " ".join(
        trained.out.split()
    )
    assert json.loads(Path("a/training.json").read_text())["encoder_weights"] == f"sha256:{digest}"
    start = json.loads(Path("a/model.json").read_text())["encoder_start"]
    assert start == f"resnet18.pth (sha256:{digest})"
    missing = factory(*command, *SMALL, "--set", "encoder_weights=none.pth")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert "encoder_weights: none.pth is not a file" in missing.err
