"""`factory convert` on the golden checkpoint and a StyleGAN2 pickle, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

from factory import demo
from factory.commands.convert import doubt
from generators.ddpm.architecture import Architecture
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.guided_settings import Settings
from generators.stylegan2.config import StyleGAN2Config
from generators.stylegan2.model import StyleGAN2Generator
from generators.stylegan2.storage import load

GOLDEN = Path(__file__).parents[2] / "golden" / "guided_diffusion"
GOLDEN_FILE = GOLDEN / "tiny_lsun_style.pt"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names() -> list[str]:
    """Everything in the working directory, hidden or not."""
    return sorted(path.name for path in Path().iterdir())


def test_convert_writes_a_folder_that_diffusers_reads(factory: Callable) -> None:
    result = factory("convert", GOLDEN_FILE, "nets/tiny", "--channels-per-head", 16)
    assert result.code == 0, result.err
    unet = UNet2DModel.from_pretrained("nets/tiny", low_cpu_mem_usage=False)
    assert unet.config.sample_size == 32
    assert unet.config.attention_head_dim == 16
    state = torch.load(GOLDEN_FILE, weights_only=True)
    assert torch.equal(unet.conv_out.weight, state["out.2.weight"])
    schedule = DDPMScheduler.from_pretrained("nets/tiny", subfolder="scheduler")
    assert schedule.config.variance_type == "learned_range"
    assert [path.name for path in Path("nets").iterdir()] == ["tiny"]


def rows(output: str) -> dict[str, str]:
    """The two columns of the printed table."""
    lines = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    return {cells[1]: cells[2] for cells in lines if len(cells) == 4}


def test_convert_prints_what_it_found(factory: Callable) -> None:
    options = ("--channels-per-head", 8, "--image-size", 64, "--attention-order", "new")
    assert rows(factory("convert", GOLDEN_FILE, "out", *options).out) == {
        "weights": "the whole file",
        "channels": "32, 32, 64",
        "multipliers": "1, 1, 2",
        "residual blocks per level": "2",
        "attention at": "32 px, 16 px",
        "down and up by": "residual blocks",
        "scale-shift norm": "yes",
        "learned sigma": "yes",
        "classes": "none",
        "parameters": "1.4 M",
        "image size": "64 px",
        "channels per head": "8",
        "attention order": "new",
        "noise schedule": "linear (assumed)",
        "training steps": "1000 (assumed)",
        "predicts": "epsilon (assumed)",
    }


def test_what_was_assumed_is_marked(factory: Callable) -> None:
    file = GOLDEN / "default_heads.pt"
    assumed = {
        "image size": "16 px (assumed)",
        "channels per head": "16 (assumed)",
        "attention order": "legacy (assumed)",
        "noise schedule": "linear (assumed)",
        "training steps": "1000 (assumed)",
        "predicts": "epsilon (assumed)",
    }
    result = factory("convert", file, "a", "--no-check")
    found = rows(result.out)
    assert {key: found[key] for key in assumed} == assumed
    assert "warning" not in result.out
    given = ("--image-size", 32, "--heads", 2, "--attention-order", "legacy", "--schedule")
    more = ("cosine", "--train-steps", 4000, "--rescale-timesteps", "--predicts", "x_start")
    result = factory("convert", file, "b", "--no-check", *given, *more)
    assert "assumed" not in result.out
    assert rows(result.out)["channels per head"] == "32"
    assert rows(result.out)["rescaled timesteps"] == "yes"
    schedule = DDPMScheduler.from_pretrained("b", subfolder="scheduler")
    assert schedule.config.num_train_timesteps == 4000
    assert schedule.config.prediction_type == "sample"
    assert schedule.config.beta_schedule == "squaredcos_cap_v2"


def test_a_network_that_does_not_denoise_is_warned_about(factory: Callable) -> None:
    """The golden networks are untrained."""
    result = factory("convert", GOLDEN / "default_heads.pt", "a", "--image-size", 32)
    assert result.code == 0
    [warning] = [line for line in result.out.splitlines() if line.startswith("warning: ")]
    assert "does not denoise its own samples (error 0." in warning
    doubted = "--attention-order, --heads, --predicts, --schedule, --train-steps"
    assert warning.endswith(f"it is untrained, or what was assumed is wrong: {doubted}")


def test_a_trained_network_is_doubted_with_wrong_settings_only() -> None:
    """The embedded generator, whose training was linear and predicted v."""

    def doubt_of(**settings: Any) -> str | None:
        net = Architecture(time_channels=16, channels=(16,), resnets_per_level=1, attends=(True,))
        unet = load_unet(str(Path(demo.__file__).parent / "generator"))[0]
        return doubt(unet, net, Settings(64, **settings))

    assert doubt_of(predicts="v") is None
    found = doubt_of(schedule="cosine", assumed=frozenset({"schedule", "predicts"}))
    assert found is not None
    assert "but with --schedule linear --predicts v it does (0.1" in found
    found = doubt_of(train_steps=4000, predicts="v")
    assert found is not None
    assert found.endswith("it is untrained, or one of the given settings is wrong")


def test_an_empty_folder_is_filled_and_a_full_one_left_unchanged(factory: Callable) -> None:
    Path("out").mkdir()
    command = ("convert", GOLDEN_FILE, "out", "--channels-per-head", 16)
    assert factory(*command).code == 0
    before = (Path("out") / "config.json").stat().st_mtime_ns
    again = factory(*command)
    assert (again.code, again.err) == (1, "error: out is not empty: expected a new folder\n")
    assert (Path("out") / "config.json").stat().st_mtime_ns == before


def test_mistakes_are_one_line_and_leave_nothing(factory: Callable) -> None:
    Path("folder").mkdir()
    Path("file").write_text("no checkpoint")

    def refused(source: object, out: str, *words: str) -> None:
        result = factory("convert", source, out)
        assert result.code == 1
        assert result.err.startswith("error: ")
        assert len(result.err.splitlines()) == 1
        for word in words:
            assert word in result.err
        assert names() == ["file", "folder"]

    expected = "expected a guided-diffusion .pt or StyleGAN2 .pkl file"
    refused("nowhere.pt", "out", f"nowhere.pt: found nothing, {expected}")
    refused("folder", "out", f"folder: found a folder, {expected}")
    refused("file", "out", "file: this is a text file: give a checkpoint of")
    refused(GOLDEN_FILE, "file", "out file: found a file")
    refused(GOLDEN_FILE, "out", "4 heads (assumed) of [8, 16] channels", "use the file itself")


# --- StyleGAN2 -------------------------------------------------------------------------------

SHAPE = {
    "z_dim": 8,
    "w_dim": 8,
    "img_resolution": 16,
    "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {"channel_base": 64, "channel_max": 8},
}


@pytest.fixture
def snapshot(gan: Path, ada_pickle: Callable) -> Path:
    """A StyleGAN2-ADA pickle of the network in `gan`."""
    path = Path("net.pkl")
    path.write_bytes(ada_pickle(load(gan), SHAPE))
    return path


def sample(weights: Path) -> tuple[torch.Tensor, str]:
    generator = StyleGAN2Generator.load(StyleGAN2Config(weights=str(weights)), "cpu")
    return generator.sample([0, 1])[0], generator.digest


def test_a_pickle_becomes_the_same_generator(factory: Callable, snapshot: Path) -> None:
    result = factory("convert", snapshot, "nets/tiny")
    assert result.code == 0, result.err
    written = sorted(path.name for path in Path("nets/tiny").iterdir())
    assert written == ["generator.json", "generator.safetensors"]
    (before, digest), (after, digest_after) = sample(snapshot), sample(Path("nets/tiny"))
    assert torch.equal(before, after)
    assert digest == digest_after
    assert rows(result.out) == {
        "weights": "G_ema (averaged)",
        "resolution": "16 px",
        "architecture": "skip",
        "classes": "none",
        "channels": "8, 8, 4",
        "layers": "5 (b4.conv1 to b16.conv1), 32 channels",
        "latents z, w": "8, 8",
        "mapping layers": "2",
        "parameters": "0.0 M",
        "digest": digest[:12],
    }
    assert names() == ["net.pkl", "nets"]


def test_the_content_of_the_file_decides_not_its_name(factory: Callable, snapshot: Path) -> None:
    snapshot.rename("network.bin")
    assert factory("convert", "network.bin", "out").code == 0
    assert Path("out/generator.json").is_file()


def test_wrong_pickles_are_one_line_and_leave_nothing(
    factory: Callable, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = snapshot.read_bytes()
    hostile = b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR."
    for damage, word in {
        hostile: "system",
        content[: len(content) // 2]: "net.pkl: ",
        b"no pickle at all": "net.pkl: ",
        content.replace(b"b16", b"b32"): "net.pkl: ",
    }.items():
        snapshot.write_bytes(damage)
        result = factory("convert", snapshot, "out")
        assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
        assert word in result.err
        assert names() == ["net.pkl"]
    snapshot.write_bytes(content)
    refused = factory("convert", snapshot, "out", "--image-size", 64)
    assert "--image-size is for diffusion models" in refused.err

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device", "net")

    monkeypatch.setattr("generators.stylegan2.storage.serialise", full)
    assert "disk full" in factory("convert", snapshot, "out").err
    assert names() == ["net.pkl"]


@pytest.mark.parametrize("length", [5, 12, 200, -1])
def test_truncated_safetensors_are_named_so(factory: Callable, length: int) -> None:
    save_file(torch.load(GOLDEN_FILE, weights_only=True), "a.safetensors")
    data = Path("a.safetensors").read_bytes()
    Path("a.safetensors").write_bytes(data[:length])
    result = factory("convert", "a.safetensors", "out")
    assert result.code == 1
    assert "it is a truncated or damaged safetensors file" in result.err
    assert "out" not in names()
