"""Names of files that are not supported. The common ones are in `tests/cases/checkpoints`."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generators.ddpm.state import read_state
from generators.files.unsupported import describe


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def zipped(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, "")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"  \n<HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML page"),
        (b"/annex/objects/SHA256E-s3--4d7a.pt\n", "a git-annex pointer"),
        (b"BZh91AY&SY\0\0", "a bzip2 archive"),
        (b"\xfd7zXZ\0\0\4", "an xz archive"),
        (b"\x28\xb5\x2f\xfd\0\1", "a zstd archive"),
        (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\0", "a rar archive"),
        (b"\x1c\0\0\0TFL3\0\0", "a TensorFlow Lite model"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"\x08\x01\x12\xa6\x8c\x01\n", "a TensorFlow SavedModel"),
        (b"\x08\x08:\x90\x01\n", "an ONNX graph"),
        (b"%PDF-1.7\n", "a PDF document"),
        (array(), "a NumPy array"),
        (image("gif"), "a GIF image"),
        (image("bmp"), "a BMP image"),
        (image("tiff"), "a TIFF image"),
        (image("webp"), "a WebP image"),
        (zipped("model.weights.h5"), "a Keras model"),
        (zipped("[Content_Types].xml"), "an office document"),
        (b'{"_class_name": "UNet2DModel"}', "a text file"),
    ],
)
def test_files_of_other_programs(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "x").write_bytes(content)
    assert (describe(tmp_path / "x") or "").startswith(f"this is {what}")


def test_a_torchscript_program_as_torch_writes_it(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)).save(str(tmp_path / "x"))
    assert (describe(tmp_path / "x") or "").startswith("this is a TorchScript program")


@pytest.mark.parametrize("content", [b"\0\1\2\3", b"PK\x03\x04", b"PK\x03", b"\x80\x04N.", b"\xff"])
def test_unknown_files_have_no_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert describe(tmp_path / "x") is None


UNET = {
    "time_embed.0.weight": torch.zeros(4, 4),
    "output_blocks.0.0.in_layers.0.bias": torch.ones(1),
}


@pytest.mark.parametrize(
    "name",
    ["loss.layer1.0.conv1.weight", "vgg.features.0.weight", "encoder.down.0.block.0.norm1.weight"],
)
def test_a_network_beside_other_ones_keeps_its_name(tmp_path: Path, name: str) -> None:
    content = {"net": UNET, "extra": {name: torch.zeros(1)}, "opt": {"param_groups": []}}
    torch.save(content, tmp_path / "x.pt")
    assert read_state(tmp_path / "x.pt").place == "net"


@pytest.mark.parametrize("part", ["first_stage_model.", "cond_stage_model.", "control_model."])
def test_a_network_that_needs_others_is_refused(tmp_path: Path, part: str) -> None:
    torch.save({"net": UNET, "extra": {f"{part}weight": torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"this is a .*, which works on latents"):
        read_state(tmp_path / "x.pt")
