"""Training a tiny diffusion model, and resuming it exactly."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generators.ddpm import training
from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig, FeatureConfig
from generators.ddpm.model import DDPMGenerator
from generators.training.images import TrainingImages

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def config(**settings) -> DDPMTrainingConfig:
    tiny = {
        "image_size": 16,
        "channels": (8, 16),
        "steps": 6,
        "batch_size": 4,
        "checkpoint_every": 3,
        "preview_every": 6,
        "flips": True,
        "quarter_turns": True,
        "precision": "float32",
    }
    return DDPMTrainingConfig(**(tiny | settings))


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


def test_training_writes_what_generators_load(images: TrainingImages, tmp_path: Path) -> None:
    training.train(images, tmp_path, config(), device="cpu")
    assert (tmp_path / "samples" / "step_000006.png").is_file()
    generator = DDPMGenerator.load(
        DDPMConfig(weights=str(tmp_path), steps=2, features=FeatureConfig(blocks=(1,)))
    )
    sampled, _ = generator.sample([0])
    assert sampled.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("stop_at", [4, 5])
def test_an_interrupted_run_resumes_exactly(
    images: TrainingImages, tmp_path: Path, stop_after: Callable, stop_at: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    training.train(images, whole, config(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        training.train(images, broken, config(), device="cpu", progress=[stop_after(stop_at)])
    assert not (broken / "unet").exists()
    training.train(images, broken, config(), device="cpu")
    expected, found = load_file(whole / WEIGHTS), load_file(broken / WEIGHTS)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_table_of_contents_is_written_last(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    atomic_path = training.atomic_path

    def watched(path: Path):
        written.append(path.relative_to(tmp_path).as_posix())
        return atomic_path(path)

    monkeypatch.setattr(training, "atomic_path", watched)
    training.train(images, tmp_path, config(steps=1), device="cpu")
    assert (written[0], written[-1]) == (WEIGHTS, "model_index.json")
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_killed_run_leaves_no_temporary_checkpoint(
    images: TrainingImages, tmp_path: Path
) -> None:
    stale = tmp_path / "checkpoints" / ".tmp-last.ckpt-0123"
    stale.parent.mkdir()
    stale.write_bytes(b"half")
    training.train(images, tmp_path, config(steps=1), device="cpu")
    assert not stale.exists()


def test_resuming_with_different_settings_is_refused(
    images: TrainingImages, tmp_path: Path
) -> None:
    training.train(images, tmp_path, config(), device="cpu")
    with pytest.raises(ValueError, match=r"lr 0\.0005, not 0\.1"):
        training.train(images, tmp_path, config(lr=0.1), device="cpu")


def test_a_damaged_checkpoint_is_named(
    images: TrainingImages, tmp_path: Path, stop_after: Callable
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training.train(images, tmp_path, config(), device="cpu", progress=[stop_after(4)])
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged: delete it"):
        training.train(images, tmp_path, config(), device="cpu")


def test_a_diverged_training_fails(images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged"):
        training.train(images, tmp_path, config(lr=1e30, warmup_steps=0), device="cpu")
    assert not (tmp_path / "model_index.json").exists()


def test_training_can_start_from_another_generator(images: TrainingImages, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    training.train(images, first, config(), device="cpu")
    training.train(images, second, config(steps=1, lr=1e-9), init=str(first), device="cpu")
    before, after = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    with pytest.raises(ValueError, match="predicts v_prediction, expected epsilon"):
        training.start_network(config(prediction="epsilon"), init=str(first))
    with pytest.raises(ValueError, match=r"channels \[8, 16\].*expected \[8, 8\]"):
        training.start_network(config(channels=(8, 8)), init=str(first))
    larger = training.start_network(config(image_size=32), init=str(first))
    assert larger.config.sample_size == 32


def test_a_finished_training_is_left_unchanged(images: TrainingImages, tmp_path: Path) -> None:
    training.train(images, tmp_path, config(), device="cpu")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    training.train(images, tmp_path, config(), device="cpu")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    (tmp_path / "training.json").write_text('{"steps": "many"}')
    with pytest.raises(ValueError, match=r"training\.json is damaged \('steps'.*: delete "):
        training.train(images, tmp_path, config(), device="cpu")


def test_epsilon_can_be_trained_too(images: TrainingImages, tmp_path: Path) -> None:
    training.train(images, tmp_path, config(prediction="epsilon", steps=2), device="cpu")
    generator = DDPMGenerator.load(
        DDPMConfig(weights=str(tmp_path), steps=2, features=FeatureConfig(blocks=(1,)))
    )
    assert generator.schedule.config.prediction_type == "epsilon"
    assert float(generator.schedule.alphas_cumprod[-1]) > 0


def test_loss_weights_in_terms_of_x0() -> None:
    abar = torch.tensor([0.999, 0.5, 1e-6])
    snr = abar / (1 - abar)
    # The squared error of epsilon is SNR times that of x0, of v it is SNR + 1 times.
    epsilon = training.loss_weight(abar, "epsilon", 5.0) * snr
    v = training.loss_weight(abar, "v_prediction", 5.0) * (snr + 1)
    torch.testing.assert_close(epsilon, torch.tensor([5.0, 1.0, 1e-6]), rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(v, torch.tensor([5.0, 2.0, 1.0]), rtol=1e-3, atol=1e-8)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of 2"):
        config(image_size=17)
    for channels in ((8, 20), (0, 0), ()):
        with pytest.raises(ValueError, match="multiples of 8"):
            config(channels=channels)
