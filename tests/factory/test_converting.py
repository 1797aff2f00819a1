"""The `convert` command on the golden checkpoint, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

GOLDEN_FILE = Path(__file__).parents[1] / "golden" / "guided_diffusion" / "tiny_lsun_style.pt"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names() -> list[str]:
    """Everything that lies in the working directory, hidden or not."""
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


def test_convert_prints_what_it_found(factory: Callable) -> None:
    options = ("--channels-per-head", 8, "--image-size", 64, "--attention-order", "new")
    rows = {}
    for line in factory("convert", GOLDEN_FILE, "out", *options).out.splitlines():
        if len(cells := [cell.strip() for cell in line.split("│")]) == 4:
            rows[cells[1]] = cells[2]
    assert rows == {
        "channels": "32, 32, 64",
        "multipliers": "1, 1, 2",
        "residual blocks a level": "2",
        "attention at": "32 px, 16 px",
        "down and up by": "residual blocks",
        "scale-shift norm": "yes",
        "learned sigma": "yes",
        "classes": "none",
        "parameters": "1.4 M",
        "image size": "64 px",
        "channels a head": "8",
        "attention order": "new",
        "noise schedule": "linear",
    }


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(factory: Callable) -> None:
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

    refused("nowhere.pt", "out", "nowhere.pt: found nothing, expected a guided-diffusion .pt file")
    refused("folder", "out", "folder: found a folder, expected a guided-diffusion .pt file")
    refused("file", "out", "file: damaged, or not a PyTorch file")
    refused(GOLDEN_FILE, "file", "out file: found a file")
    refused(GOLDEN_FILE, "out", "multiples of 64", "channels_per_head")
