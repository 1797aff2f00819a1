"""Labelers trained on annotated samples: features from the sampling itself, of the right image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import generators
from factory.annotation.samples import find_samples
from factory.recipe.weights import find_weights
from factory_core.dataset import read_samples
from generators.base import FeatureMaps
from generators.ddpm.config import DDPMConfig
from generators.stylegan2.config import StyleGAN2Config
from labelers.labeler import Labeler
from labelers.training.feature_store import FeatureStore

DEMO = "package:factory.demo/generator"
FAST = (
    *("--fast", "--set", "labeler.training.steps=30", "--device", "cpu"),
    *("--set", "labeler.members=2", "--set", "labeler.hidden=[16, 8]"),
)
SHORT_SEARCH = (
    *("--set", "generator.projection.steps=2"),
    *("--set", "generator.projection.shared_steps=1"),
)
INDICES = (1, 2, 5)  # of six samples, those that are annotated


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def image_file(index: int) -> Path:
    return Path(f"annotated/images/{index:09d}.png")


def annotate(factory: Callable, *options: object) -> None:
    """Six samples in `annotated`, and masks of three: pixels brighter than the average."""
    result = factory("sample", "--n", 6, "--out", "annotated", "--device", "cpu", *options)
    assert result.code == 0, result.err
    Path("annotated/masks").mkdir()
    for index in INDICES:
        with Image.open(image_file(index)) as image:
            grey = np.array(image.convert("L"))
        mask = Image.fromarray((grey > grey.mean()).astype(np.uint8))
        mask.save(f"annotated/masks/{index:09d}.png")


@pytest.fixture
def annotated(factory: Callable, gan: Path) -> None:
    annotate(factory, "--generator", gan)


def train(factory: Callable, *arguments: object) -> Any:
    return factory("train-labeler", "--labeled", "annotated", "--out", "out", *FAST, *arguments)


def refused(result: Any, *words: str) -> None:
    assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
    for word in words:
        assert word in result.err
    assert not Path("out").exists()


def assert_stored(expected: FeatureMaps) -> None:
    """The features in out/features are these, to the bit."""
    index = json.loads(Path("out/features/features.index").read_text())
    store = FeatureStore(
        Path("out/features"), expected.spec, len(INDICES), "float32", index["source"]
    )
    assert store.written == len(INDICES)
    for row in range(len(INDICES)):
        found = store.features(row)
        for name in expected:
            assert torch.equal(found[name][0], expected[name][row].float()), name


KEEP = ("--set", "labeler.keep_features=true", "--set", "labeler.feature_dtype=float32")


def test_the_folder_records_its_generator(factory: Callable, gan: Path) -> None:
    settings = StyleGAN2Config(weights=str(gan), truncation=0.5, seed=3, noise="random")
    given = ("generator.truncation=0.5", "generator.seed=3", "generator.noise=random")
    options = [option for setting in given for option in ("--set", setting)]
    annotate(factory, "--generator", gan, *options)
    result = train(factory, *KEEP)
    assert result.code == 0, result.err
    assert "3 annotated images of 6 samples, 2 classes: class_0, class_1" in result.out
    _, features = generators.load(settings, "cpu").sample(INDICES)
    assert_stored(features)
    assert Labeler.load("out").info.generator.config["truncation"] == 0.5


def test_diffusion_noise_depends_on_the_sample(factory: Callable) -> None:
    settings = ("generator.steps=2", "generator.features.noise=fresh", "generator.batch_size=3")
    options = [option for setting in settings for option in ("--set", setting)]
    annotate(factory, "--generator", DEMO, *options)
    assert train(factory, *KEEP).code == 0
    weights = str(find_weights("weights", DEMO))
    config = DDPMConfig(weights=weights, steps=2, batch_size=3, features={"noise": "fresh"})
    _, features = generators.load(config, "cpu").sample(INDICES)
    assert_stored(features)


@pytest.mark.usefixtures("annotated")
def test_a_renamed_image(factory: Callable) -> None:
    image_file(1).rename("kept.png")
    shutil.copy(image_file(5), image_file(1))
    result = train(factory)
    refused(result, "000000001.png is sample 5, not 1 (mean difference ", "renamed or swapped")
    levels = float(result.err.split("difference ")[1].split()[0])
    assert levels > 10  # of other samples; of the same one, in other formats, under 1


@pytest.mark.usefixtures("annotated")
@pytest.mark.parametrize("quality", [75, 95])
def test_a_re_saved_image(factory: Callable, gan: Path, quality: int) -> None:
    with Image.open(image_file(2)) as image:
        image.save(image_file(2).with_suffix(".jpg"), quality=quality)
    image_file(2).unlink()
    refused(train(factory), "000000002.jpg is not sample 2 as it was written", "re-saved")
    image_file(2).with_suffix(".jpg").unlink()
    assert factory("sample", "--generator", gan, "--n", 6, "--out", "annotated").code == 0
    assert train(factory).code == 0


@pytest.mark.usefixtures("annotated")
def test_images_that_are_not_samples(factory: Callable) -> None:
    for folder in ("images", "masks"):
        Path(f"annotated/{folder}/000000001.png").rename(f"annotated/{folder}/cell.png")
    refused(train(factory), "cell.png is sample 1: rename it and its mask to 000000001")
    Image.new("RGB", (16, 16)).save("annotated/images/cell.png")
    refused(train(factory), "cell.png is none of the 6 samples in samples.json")


@pytest.mark.usefixtures("annotated")
def test_another_size_or_lossless_format(factory: Callable) -> None:
    with Image.open(image_file(1)) as image:
        image.save(image_file(1).with_suffix(".tif"))
    image_file(1).unlink()
    assert train(factory).code == 0
    shutil.rmtree("out")
    with Image.open(image_file(2)) as image, Image.open("annotated/masks/000000002.png") as mask:
        image.resize((32, 32)).save(image_file(2))
        mask.resize((32, 32)).save("annotated/masks/000000002.png")
    refused(train(factory), "000000002.png is not sample 2 as it was written")


@pytest.mark.usefixtures("annotated")
def test_another_generator_or_other_settings(factory: Callable, gan: Path, make_gan) -> None:
    other = make_gan(Path("other"), seed=1)
    refused(train(factory, "--generator", other), "its images are from generator", str(gan))
    changed = train(factory, "--set", "generator.truncation_cutoff=3")
    refused(changed, "generator.truncation_cutoff=null, found 3: give --set generator.trunc")
    refused(train(factory, "--seed", "0", "--set", "generator.seed=1"), "generator.seed=0, found 1")
    moved = Path("moved")
    shutil.copytree(gan, moved)
    layers = ("--set", "generator.features.layers=[b8.conv1]")  # of the same images
    assert train(factory, "--generator", moved, *layers).code == 0
    assert [m.name for m in Labeler.load("out").info.features] == ["b8.conv1"]


@pytest.mark.usefixtures("annotated")
def test_the_generator_must_reproduce_the_image(factory: Callable) -> None:
    file = Path("annotated/samples.json")
    content = json.loads(file.read_text())
    images = content["images"]
    images["000000001"] = images["000000005"]  # an edited record does not help
    file.write_text(json.dumps(content))
    shutil.copy(image_file(5), image_file(1))
    result = train(factory)
    assert result.code == 1
    assert "000000001.png: regenerated, sample 1 has a mean difference of " in result.err
    assert not Path("out/labeler.json").exists()


@pytest.mark.usefixtures("annotated")
def test_other_precision_is_the_same_sample(factory: Callable) -> None:
    for precision in ("float32", "bfloat16"):
        result = train(factory, "--set", f"generator.precision={precision}")
        assert result.code == 0, result.err
        shutil.rmtree("out")


@pytest.mark.usefixtures("annotated")
def test_images_without_a_record_are_photographs(factory: Callable, gan: Path) -> None:
    _, samples = find_samples(Path("annotated"))
    assert samples is not None
    Path("annotated/samples.json").unlink()
    assert "found no generator" in train(factory).err
    result = train(factory, "--generator", gan)
    assert "has no mask" in result.err  # every photograph must have one
    for index in set(range(6)) - set(INDICES):
        image_file(index).unlink()
    result = train(factory, "--generator", gan, *SHORT_SEARCH)
    assert result.code == 0, result.err
    assert "the generator matches the images with a PSNR of " in result.out


@pytest.mark.usefixtures("annotated")
def test_parts_of_the_samples_and_random_splits(factory: Callable) -> None:
    some = ("train-labeler", "--labeled", "annotated[:2]", "--out", "some", *FAST)
    assert "2 annotated images of 6 samples" in factory(*some).out
    result = train(factory, "--folds", 2)
    assert result.code == 0, result.err
    assert "2 random splits of 3 annotated images" in result.out


@pytest.mark.usefixtures("annotated")
def test_a_dry_run_before_any_masks(factory: Callable) -> None:
    result = train(factory, "--dry-run")
    assert result.code == 0, result.err
    assert "2 members, 32 channels" in result.out
    for mask in Path("annotated/masks").iterdir():
        mask.unlink()
    refused(train(factory), "no masks in annotated/masks: expected masks of some of the images")


@pytest.mark.usefixtures("annotated")
def test_a_dataset_from_annotated_samples(factory: Callable, gan: Path) -> None:
    assert train(factory, *SHORT_SEARCH).code == 0
    here = ("--executor", "local", "--device", "cpu")
    dry = factory("generate", "--labeler", "out", "--n", 12, "--out", "data", *here, "--dry-run")
    assert dry.code == 0, dry.err
    assert "kind: stylegan2" in dry.out
    made = factory("generate", "--labeler", "out", "--n", 12, "--out", "data", *here)
    assert made.code == 0, made.err
    assert "12 candidates, 1 most uncertain dropped, 11 kept" in made.out
    assert Path("data/preview.png").is_file()
    assert "finished" in factory("status", "data").out
    assert factory("verify", "data").code == 0
    # The labeler sees the same features of a sample in labelling as in training.
    labeler, generator = Labeler.load("out"), generators.load(StyleGAN2Config(weights=str(gan)))
    images, features = generator.sample(range(8))
    masks = labeler.predict(None, features).mask
    for sample in read_samples(Path("data")):
        if (index := int(sample.key)) < 8:
            assert np.array_equal(sample.image, images[index].numpy())
            assert (sample.mask != masks[index].numpy()).mean() < 0.01
    scored = factory("evaluate", "--labeler", "out", "--labeled", "annotated", "--device", "cpu")
    assert scored.code == 0, scored.err
    assert "mIoU" in scored.out


@pytest.mark.usefixtures("annotated")
def test_a_labeler_is_bound_to_the_settings_of_its_features(
    factory: Callable, make_gan: Callable
) -> None:
    assert train(factory).code == 0
    other = make_gan(Path("other"), seed=1)

    def generate(*arguments: object) -> Any:
        command = ("generate", "--labeler", "out", "--n", 4, "--out", "data", *arguments)
        return factory(*command, "--executor", "local", "--device", "cpu")

    for setting, words in {
        "generator.truncation=0.5": "features with truncation 0.7, but the generator gives",
        "generator.truncation_cutoff=2": "set generator.truncation_cutoff, or train another",
        "generator.noise=none": "features with noise const, but",
        "generator.features.layers=[b8.conv1]": "set generator.features (blocks and timesteps, or",
        "generator.features.constant=true": "the generator gives b4.const 8x4x4, b4.conv1",
        "generator.steps=10": "'generator.steps' is not a setting of kind 'stylegan2'",
        "generator.class_id=0": "generator.class_id is 0, but the network has no classes",
    }.items():
        result = generate("--set", setting)
        assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
        assert words in result.err
        assert not Path("data").exists()
    assert "the labeler belongs to generator" in generate("--generator", other).err
    assert generate("--set", "generator.seed=7").code == 0  # other samples of the same generator
