"""Distilling a tiny diffusion model, and resuming it exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from generators.ddpm import distillation, samplers, training
from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig, DistillationConfig, FeatureConfig
from generators.ddpm.distillation import Distillation, load_teacher
from generators.ddpm.model import DDPMGenerator, to_unit_range
from generators.training.images import TrainingImages, read_training_images

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
TINY = {
    "image_size": 16,
    "batch_size": 4,
    "checkpoint_every": 3,
    "preview_every": 6,
    "precision": "float32",
}


def config(**settings: Any) -> DistillationConfig:
    return DistillationConfig(
        **(TINY | {"steps": 6, "sampling_steps": 4, "flips": True} | settings)
    )


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


def teacher_in(folder: Path, images: TrainingImages, **settings: Any) -> str:
    shape = {"channels": (8, 16), "steps": 3}
    training.train(images, folder, DDPMTrainingConfig(**(TINY | shape | settings)), device="cpu")
    return str(folder)


@pytest.fixture(scope="module")
def teacher(images: TrainingImages, tmp_path_factory: pytest.TempPathFactory) -> str:
    return teacher_in(tmp_path_factory.mktemp("teacher"), images)


@pytest.fixture(scope="module")
def student(images: TrainingImages, teacher: str, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("student")
    distillation.train(images, out, config(), init=teacher, device="cpu")
    return out


def test_the_student_is_an_ordinary_generator(student: Path, teacher: str) -> None:
    settings = {"sampler": "ddim", "steps": 4, "features": FeatureConfig(blocks=(1,))}
    generator = DDPMGenerator.load(DDPMConfig(weights=str(student), **settings), "cpu")
    images, maps = generator.sample([0])
    assert images.shape == (1, 3, 16, 16)
    assert len(maps) == 3
    theirs = DDPMGenerator.load(DDPMConfig(weights=teacher), "cpu")
    assert generator.digest != theirs.digest
    assert generator.schedule.config.prediction_type == theirs.schedule.config.prediction_type
    assert (student / "samples" / "step_000006.png").is_file()


@pytest.mark.parametrize("stop_at", [3, 4])  # where the second stage begins, and later
def test_resumes_exactly(
    student: Path,
    images: TrainingImages,
    teacher: str,
    tmp_path: Path,
    stop_after: Callable,
    stop_at: int,
) -> None:
    progress = [stop_after(stop_at)]
    with pytest.raises(KeyboardInterrupt):
        distillation.train(images, tmp_path, config(), teacher, device="cpu", progress=progress)
    assert not (tmp_path / "unet").exists()
    distillation.train(images, tmp_path, config(), teacher, device="cpu")
    whole, resumed = load_file(student / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def module_of(images: TrainingImages, teacher: str, **settings: Any) -> Distillation:
    chosen = config(**settings)
    return Distillation(chosen, images, *load_teacher(chosen, teacher))


@pytest.mark.parametrize("sampling_steps", [1, 2])
def test_the_student_learns_to_do_in_one_step_what_its_teacher_does_in_two(
    images: TrainingImages, teacher: str, sampling_steps: int
) -> None:
    module = module_of(
        images, teacher, teacher_steps=2 * sampling_steps, sampling_steps=sampling_steps
    )
    noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))

    def made(net: torch.nn.Module, steps: int) -> torch.Tensor:
        def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
            return module.pass_through(net, x, torch.full((len(x),), int(t)), None)

        with torch.no_grad():
            about = DDPMConfig(weights="", sampler="ddim", steps=steps)
            return samplers.sample(denoise, module.noise_schedule, about, lambda: noise)

    def distance() -> float:
        end = made(module.teacher, 2 * sampling_steps)
        return float((made(module.unet, sampling_steps) - end).square().mean())

    before, rng = distance(), torch.Generator().manual_seed(3)
    x_0 = to_unit_range(torch.stack([images.image(i) for i in range(8)]))
    optimizer = torch.optim.Adam(module.unet.parameters(), lr=1e-3)
    for _ in range(120):
        loss = module.loss(x_0, 2 * sampling_steps, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distance() < 0.7 * before


def test_a_perfect_student_has_no_loss(images: TrainingImages, teacher: str) -> None:
    """If x̂_0 does not depend on t, one step is as good as two."""
    module = module_of(images, teacher)
    clean = torch.rand(4, 3, 16, 16) * 2 - 1

    class Oracle(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            a = module.noise_schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
            return ((a.sqrt() * x - clean) / (1 - a).sqrt(),)

    module.teacher = module.unet = Oracle()
    rng = torch.Generator().manual_seed(0)
    assert module.loss(clean, 16, rng).item() < 1e-6


def test_stages() -> None:
    settings = config(steps=7, teacher_steps=32)
    assert (settings.stages, settings.stage_steps) == (3, 3)
    for teacher_steps in (4, 12, 6):
        with pytest.raises(ValueError, match="expected sampling_steps 4 times 2, 4, 8"):
            config(teacher_steps=teacher_steps)
    with pytest.raises(ValueError, match="one or more for each halving"):
        config(steps=1)


def test_teachers_that_do_not_fit(teacher: str, images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of 16 pixels, not 32: set image_size=16"):
        load_teacher(config(image_size=32), teacher)
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "generator.json").write_text("{}")
    with pytest.raises(ValueError, match="is of kind stylegan2: only diffusion models"):
        load_teacher(config(), str(tmp_path / "gan"))
    with pytest.raises(ValueError, match="predicts epsilon"):
        load_teacher(config(), teacher_in(tmp_path, images, prediction="epsilon"))


def test_a_conditional_teacher_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(folder / name / "a.png")
    images = read_training_images(folder, 16, tmp_path, lambda *_: None, labels="folders")
    teacher = teacher_in(tmp_path / "teacher", images, steps=1, labels="folders")
    with pytest.raises(ValueError, match="has classes"):
        load_teacher(config(), teacher)
