"""Files that are not supported: what they are, and the way out. Nothing in them is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from generators.files.survey import ZIP_HEAD, Survey, survey

HEAD_BYTES = 4096
GET_PYTORCH = "give a PyTorch checkpoint of StyleGAN2 or guided-diffusion"
UNPACK = "unpack it and give the checkpoint in it"
DOWNLOAD = "download the file itself (on GitHub and Hugging Face: the link named download or raw)"
PIXELS = "give a network that works on pixels: StyleGAN2, guided-diffusion or a diffusers DDPM"
LATENT = f"its U-Net works on latents of an autoencoder: {PIXELS}"


class Signature(NamedTuple):
    """How a file begins, what it is and the way out."""

    pattern: str  # of the first bytes, as Latin-1
    what: str
    way_out: str


# fmt: off
SIGNATURES = (
    Signature(r"\s*(<!doctype html|<html|<head|<!--)", "a web page", DOWNLOAD),
    Signature(r"\s*<\?xml", "an XML page, such as a server's error message", DOWNLOAD),
    Signature(r"version https://git-lfs\.github\.com/spec", "a Git LFS pointer",
              "run `git lfs pull` in its repository, or download the file itself"),
    Signature(r"(/annex/objects/|\.\./\.git/annex)", "a git-annex pointer",
              "run `git annex get` in its repository"),
    Signature(r"\x1f\x8b", "a gzip archive", UNPACK),
    Signature(r"BZh[1-9]", "a bzip2 archive", UNPACK),
    Signature(r"\xfd7zXZ\x00", "an xz archive", UNPACK),
    Signature(r"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    Signature(r"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Signature(r"Rar!\x1a\x07", "a rar archive", UNPACK),
    Signature(r"(?s).{257}ustar", "a tar archive", UNPACK),
    Signature(r"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write it", GET_PYTORCH),
    Signature(r"(?s).{4}TFL3", "a TensorFlow Lite model", GET_PYTORCH),
    Signature(r"GGUF", "a GGUF model", GET_PYTORCH),
    Signature(r"\x93NUMPY", "a NumPy array", GET_PYTORCH),
    Signature(r"\x89PNG\r\n\x1a\n", "a PNG image", GET_PYTORCH),
    Signature(r"\xff\xd8\xff", "a JPEG image", GET_PYTORCH),
    Signature(r"GIF8[79]a", "a GIF image", GET_PYTORCH),
    Signature(r"(?s)BM.{4}\x00\x00\x00\x00", "a BMP image", GET_PYTORCH),
    Signature(r"(II[*+]\x00|MM\x00[*+])", "a TIFF image", GET_PYTORCH),
    Signature(r"(?s)RIFF.{4}WEBP", "a WebP image", GET_PYTORCH),
    Signature(r"(?s).{4}ftyp(avif|heic|heix|mif1)", "an AVIF or HEIC image", GET_PYTORCH),
    Signature(r"%PDF-", "a PDF document", GET_PYTORCH),
    Signature(r"\x08\x01\x12[\x80-\xff]", "a TensorFlow SavedModel", GET_PYTORCH),
    # A protobuf whose first fields are the version and the program that wrote it.
    Signature(r"(?s)\x08[\x01-\x20](\x12.[ -~]+|:)", "an ONNX graph",
              "give the PyTorch checkpoint that it was exported from"),
)
# fmt: on
# Members that distinguish zip archives.
ZIPS = (
    (
        r"(^|/)code/|(^|/)constants\.pkl$",
        "a TorchScript program",
        "give the state_dict() that it was made from: programs are never run",
    ),
    (r"\.weights\.h5$|^config\.json$", "a Keras model", GET_PYTORCH),
    (r"\.npy$", "an archive of NumPy arrays (.npz)", GET_PYTORCH),
    (r"^\[Content_Types\]\.xml$", "an office document", GET_PYTORCH),
    (r"", "a zip archive", UNPACK),
)


class Mark(NamedTuple):
    """Names or keys that distinguish a kind of checkpoint. Both patterns must be found."""

    names: str  # a pattern of the program's names in it, a line each; "" is found everywhere
    words: tuple[str, ...]  # patterns of its keys, a line each
    what: str
    way_out: str


STYLEGAN2 = "give a StyleGAN2 snapshot"
OTHER_LAYERS = f"its layers differ from StyleGAN2's: {STYLEGAN2}"
# The first that fits is taken. In keys, `@` is the start of a name or of one of its parts.
# fmt: off
# These may hold a U-Net with the names of guided-diffusion's, which is of no use without the rest.
PARTS = (
    Mark("", (r"@(control_model\.|input_hint_block\.)",), "a ControlNet", LATENT),
    Mark("", (r"@(cond_stage_model|conditioner\.embedders|text_encoders?)\.",),
         "a Stable Diffusion checkpoint", LATENT),
    Mark("", (r"@transformer_blocks\.\d+\.attn2\.to_k",),
         "a U-Net of Stable Diffusion", LATENT),
    Mark("", (r"@first_stage_model\.",), "a latent diffusion checkpoint", LATENT),
    Mark("", (r"@(xf_proj|transformer\.resblocks)\b", r"@input_blocks\."), "a GLIDE network",
         "text-conditional networks are not supported: give guided-diffusion's"),
    Mark("", (r"@input_blocks\.\d", r"@out\.\d+\.(positional_embedding|qkv_proj|c_proj)|"
              r"@out\.0\.weight$(?![\s\S]*output_blocks)"),
         "a classifier of guided-diffusion",
         "give the diffusion model: 256x256_diffusion_uncond.pt or lsun_*.pt"),
)
MARKS = (
    Mark(r"^(dnnlib\.tflib|tfutil)\.", (), "a TensorFlow pickle of StyleGAN",
         "convert it with legacy.py of stylegan2-ada-pytorch: "
         "python legacy.py --source=IN.pkl --dest=OUT.pkl"),
    Mark("", (r"^(SuperresGenerator|head_layers|rand_embedding|embed_proj|path_stem|"
              r"ProjectedDiscriminator)$",),
         "a StyleGAN-XL or Projected GAN network", OTHER_LAYERS),
    Mark("", (r"^SynthesisInput$|@synthesis\.input\.|@synthesis\.L\d+_\d+_\d+\.",),
         "a StyleGAN3 network (-t or -r)", OTHER_LAYERS),
    Mark("", (r"^(EDMPrecond|VPPrecond|VEPrecond|iDDPMPrecond)$|@model\.(enc|dec)\.\d+x\d+_",),
         "an EDM network (Karras et al. 2022)", PIXELS),
    Mark("", (r"^Precond$", r"^logvar_channels$|logvar_fourier"),
         "an EDM2 network (Karras et al. 2024)", PIXELS),
    Mark("", (r"^TriPlaneGenerator$",), "an EG3D network", STYLEGAN2),
    Mark("", (r"@(synthesis\.b4\.const|mapping\.w_avg)$",),
         "the tensors of a StyleGAN2 without its settings",
         "give the snapshot (.pkl), or the folder that holds generator.json"),
    Mark("", (r"@conv1?\.modulation\.weight$|@(convs|to_rgbs)\.\d+\.conv\.modulation",),
         "a StyleGAN2 of rosinality/stylegan2-pytorch",
         "give NVIDIA's snapshot (.pkl) that it was converted from, or train one with "
         "`factory train-generator --kind stylegan2`"),
    Mark("", (r"lora_(up|down|A|B)\b",), "LoRA weights", LATENT),
    Mark("", (r"@(encoder\.down\.\d|decoder\.up\.\d|encoder\.down_blocks|decoder\.up_blocks|"
              r"quantize\.embedding|post_quant_conv)",),
         "an autoencoder (VQModel, VAE)", f"it generates nothing by itself: {PIXELS}"),
    Mark("", (r"@(double_blocks|joint_blocks)\.\d",),
         "a Flux or Stable Diffusion 3 network", LATENT),
    Mark("", (r"@(x_embedder|pos_embed)", r"adaLN_modulation"), "a diffusion transformer (DiT)",
         PIXELS),
    Mark("", (r"@time_mlp\.\d", r"@(downs|ups|mid_block1)\b"),
         "a U-Net of lucidrains' denoising-diffusion-pytorch",
         "train one with `factory train-generator`, or give guided-diffusion's or a diffusers "
         "folder"),
    Mark("", (r"@all_modules\.\d",), "a score_sde network (NCSN++, DDPM++)",
         "give its diffusers conversion, or a guided-diffusion network"),
    Mark("", (r"@temb\.dense\.\d", r"@down\.\d+\.block"), "a U-Net of ermongroup/ddim",
         "give its diffusers conversion, such as google/ddpm-cifar10-32"),
    Mark("", (r"@inner_model\.|@timestep_embed\.weight$",
              r"@(mapping|d_blocks|u_blocks|down_levels|up_levels)\b"),
         "a k-diffusion network", PIXELS),
    Mark("", (r"@(down_blocks|mid_block)\.", r"@(conv_in|time_embedding)\."),
         "the tensors of a diffusers U-Net without its settings",
         "give the folder that holds it and config.json"),
    Mark("", (r"^param_groups$(?![\s\S]*\.(weight|bias)$)",), "the state of an optimizer",
         "give the file of the network, such as ema_0.9999_*.pt or model*.pt beside it"),
    Mark("", (r"@(layer1\.0|features\.0|blocks\.0)\.",), "an image classifier or encoder",
         GET_PYTORCH),
)
# fmt: on


def describe(path: Path) -> str | None:
    """What an unsupported file is and the way out, in one line; None if it is not known."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "the file is empty: download or copy it again"
    found = survey(path)
    named = _by_content(found, PARTS + MARKS) or _by_head(path, head, found)
    return f"this is {named[0]}: {named[1]}" if named else None


def describe_parts(path: Path) -> str | None:
    """`describe` of a file in which there is a U-Net that is of no use without other parts."""
    named = _by_content(survey(path), PARTS)
    return f"this is {named[0]}: {named[1]}" if named else None


def _by_content(found: Survey, marks: tuple[Mark, ...]) -> tuple[str, str] | None:
    names, words = "\n".join(sorted(found.names)), "\n".join(sorted(found.words))
    for mark in marks:
        patterns = (word.replace("@", r"(?:^|[./])") for word in mark.words)
        if _found(mark.names, names) and all(_found(p, words) for p in patterns):
            return mark.what, mark.way_out
    return None


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.MULTILINE) is not None


def _by_head(path: Path, head: bytes, found: Survey) -> tuple[str, str] | None:
    if found.form != "other":
        return None
    if head.startswith(ZIP_HEAD):
        return _of_zip(path)
    text = head.decode("latin1")
    for signature in SIGNATURES:
        if re.match(signature.pattern, text, re.IGNORECASE):
            return signature.what, signature.way_out
    if head.isascii() and all(c.isprintable() or c.isspace() for c in text):
        return "a text file", GET_PYTORCH
    return None


def _of_zip(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = "\n".join(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return None  # cut short
    return next((what, way) for pattern, what, way in ZIPS if _found(pattern, members))
