"""Published files: networks that equal the original program's, and files that are refused."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from generators.ddpm.checkpoints import load_checkpoint, load_unet
from generators.ddpm.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import DDPMGenerator
from generators.ddpm.unet import embed, walk

GOLDEN = Path(__file__).parents[2] / "golden" / "guided_diffusion"
GOLDEN_FILE = GOLDEN / "tiny_lsun_style.pt"
CHANNELS_PER_HEAD = 16  # the one flag of the golden network that is not in its file
TOLERANCE = 1e-4  # relative, in float32


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    """Outputs of the original program."""
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return torch.load(GOLDEN_FILE, weights_only=True)


def close(found: Tensor, expected: Tensor) -> None:
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < TOLERANCE


def test_flags_are_read_from_the_file() -> None:
    _, net, settings, _ = load_checkpoint(GOLDEN_FILE, channels_per_head=CHANNELS_PER_HEAD)
    flags = json.loads((GOLDEN / "flags.json").read_text())["flags"]
    assert settings.image_size == flags["image_size"]
    assert net.time_channels == flags["num_channels"]
    multipliers = [int(m) for m in flags["channel_mult"].split(",")]
    assert list(net.channels) == [m * flags["num_channels"] for m in multipliers]
    assert net.resnets_per_level == flags["num_res_blocks"]
    sides = [settings.image_size >> level for level, attends in enumerate(net.attends) if attends]
    assert sides == [int(side) for side in flags["attention_resolutions"].split(",")]
    assert net.learns_sigma is flags["learn_sigma"]
    assert net.scale_shift is flags["use_scale_shift_norm"]
    assert net.resnet_resampling is flags["resblock_updown"]
    assert net.num_classes is None


@pytest.mark.parametrize("t", [50, 150, 250])
@torch.inference_mode()
def test_network_equals_the_original(expected: dict[str, Tensor], t: int) -> None:
    unet, _, _ = load_unet(str(GOLDEN_FILE), channels_per_head=CHANNELS_PER_HEAD)
    x_t = expected[f"x_t.{t}"]
    timesteps = torch.tensor([t, t])
    close(unet(x_t, timesteps).sample, expected[f"unet_out.{t}"])
    names = [name.split(".") for name in expected if name.startswith("output_blocks")]
    blocks = sorted(int(block) for _, block, at in names if int(at) == t)
    assert len(blocks) == (9 if t == 150 else 3)
    output, recorded = walk(unet, x_t, embed(unet, timesteps), blocks)
    close(output, expected[f"unet_out.{t}"])
    assert list(recorded) == blocks
    for block, h in recorded.items():
        close(h, expected[f"output_blocks.{block}.{t}"])


def test_schedule_equals_the_original(expected: dict[str, Tensor]) -> None:
    _, schedule, noise = load_unet(str(GOLDEN_FILE), channels_per_head=CHANNELS_PER_HEAD)
    close(schedule.alphas_cumprod.double(), expected["alphas_cumprod"])
    assert schedule.config.prediction_type == "epsilon"
    assert schedule.config.variance_type == "learned_range"
    assert noise.offset_std == 0


def test_a_converted_folder_is_the_same_generator(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(GOLDEN_FILE, channels_per_head=CHANNELS_PER_HEAD)
    checkpoint.save(tmp_path / "folder")
    again = UNet2DModel.from_pretrained(tmp_path / "folder", low_cpu_mem_usage=False)
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([9])
    with torch.inference_mode():
        assert torch.equal(again(x, t).sample, checkpoint.unet(x, t).sample)

    def load(weights: Path, **given: int) -> DDPMGenerator:
        features = FeatureConfig(blocks=(1, 5), timesteps=(50,))
        config = DDPMConfig(weights=str(weights), steps=2, features=features, **given)
        return DDPMGenerator.load(config, device="cpu")

    ours = load(GOLDEN_FILE, channels_per_head=CHANNELS_PER_HEAD)
    theirs = load(tmp_path / "folder")
    assert ours.digest == theirs.digest
    assert ours.feature_spec == theirs.feature_spec
    images, maps = ours.sample([3])
    assert images.shape == (1, 3, 32, 32)
    assert torch.equal(images, theirs.sample([3])[0])
    assert [spec.name for spec in maps.spec] == ["t50.b1", "t50.b5"]


@pytest.mark.parametrize("name", ["betas", "alphas_cumprod"])
def test_a_noise_schedule_beside_the_network_must_be_the_one_it_is_used_with(
    state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    def read(**settings: Any) -> None:
        schedule = DDPMScheduler(**settings)
        buffers = {name: getattr(schedule, name).double(), "step": torch.tensor(3)}
        torch.save({"state_dict": buffers | state}, tmp_path / "x.pt")
        load_checkpoint(tmp_path / "x.pt", channels_per_head=CHANNELS_PER_HEAD)

    read()
    for other in ({"beta_schedule": "squaredcos_cap_v2"}, {"num_train_timesteps": 4000}):
        with pytest.raises(ValueError, match=r"x\.pt: it holds a noise schedule.*train_steps"):
            read(**other)


def test_half_precision_becomes_single(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pt")
    unet = load_checkpoint(tmp_path / "half.pt", channels_per_head=CHANNELS_PER_HEAD).unet
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}


def test_tensors_are_mapped_not_copied(tmp_path: Path) -> None:
    unet = load_checkpoint(GOLDEN_FILE, channels_per_head=CHANNELS_PER_HEAD).unet
    maps = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(GOLDEN_FILE.name)
    ]
    at = unet.conv_in.weight.data_ptr()
    assert any(start <= at < end for start, end in maps)


class Program:
    """The content of a hostile file: unpickling it would create a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def refused(path: Path, *words: str) -> None:
    """Reading `path` fails in one line that starts with it and contains all of `words`."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_unet(str(path), channels_per_head=CHANNELS_PER_HEAD)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize("as_zip", [True, False])
def test_programs_are_refused_and_not_run(tmp_path: Path, as_zip: bool) -> None:
    content = {"weight": torch.zeros(1), "extra": Program(tmp_path / "made")}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=as_zip)
    refused(tmp_path / "evil.pt", "refused, and nothing was run", "a call of 'posix.mkdir'")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content["extra"], protocol=2))
    refused(tmp_path / "evil.pkl", "refused, and nothing was run", "a call of 'posix.mkdir'")
    assert not (tmp_path / "made").exists()


def test_other_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    refused(tmp_path / "module.pt", "not a guided-diffusion U-Net: found weight, bias, but no")


@pytest.mark.parametrize("length", [3, 1000, -10])
def test_truncated_files_are_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "cut.pt").write_bytes(GOLDEN_FILE.read_bytes()[:length])
    refused(tmp_path / "cut.pt", "damaged")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(torch.zeros(3), path)
    refused(path, "found no tensors by name")
    torch.save({"step": 3}, path)
    refused(path, "found no tensors by name")
    torch.save({"a.weight": torch.zeros(3), "b.weight": torch.zeros(3)}, path)
    refused(path, "found a.weight, b.weight, but no time_embed.0.weight")


def test_settings_for_pt_files_are_refused_for_folders(tiny_weights: Path) -> None:
    with pytest.raises(ValueError, match=r"found generator.image_size with .*=null"):
        load_unet(str(tiny_weights), image_size=16, attention_order=None)
