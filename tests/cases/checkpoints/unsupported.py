"""Files that are not supported: each is named for what it is, with the way out."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from generators.files.marks import GIVE
from tests.cases.checkpoints.case import Bench, Case
from tests.cases.checkpoints.guided_diffusion import FILE


def text(value: str) -> bytes:
    """The opcode that pushes a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def persistent(name: str, *keys: str) -> bytes:
    """The pickle of an object of class `name` of NVIDIA's programs, with attributes `keys`."""
    state = b"}(" + b"".join(text(key) + b"N" for key in keys) + b"u"
    entries = {"type": text("class"), "version": b"K\x06", "module_src": text("")}
    entries |= {"class_name": text(name), "state": state}
    meta = b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"\x85R"


def pickle(**entries: bytes) -> bytes:
    """The pickle of a dictionary with pickled values."""
    body = b"".join(text(name) + value for name, value in entries.items())
    return b"\x80\x04}(" + body + b"u."


def tensors(*names: str) -> Callable[[Bench], Path]:
    """A state dict with tensors of these names."""
    return torch_saved({name: torch.zeros(4, 4) for name in names})


def torch_saved(content: Any) -> Callable[[Bench], Path]:
    def write(bench: Bench) -> Path:
        torch.save(content, bench.folder / "checkpoint.pt")
        return bench.folder / "checkpoint.pt"

    return write


def changed(**replaced: torch.Tensor | None) -> Callable[[Bench], Path]:
    """A guided-diffusion file with other tensors (None: without them); `__` stands for a dot."""

    def write(bench: Bench) -> Path:
        state = torch.load(FILE, weights_only=True)
        for name, tensor in replaced.items():
            name = name.replace("__", ".")
            if tensor is None:
                state = {key: t for key, t in state.items() if not key.startswith(name)}
            else:
                state[name] = tensor
        return torch_saved(state)(bench)

    return write


def content(name: str, data: bytes) -> Callable[[Bench], Path]:
    return lambda bench: bench.file(name, data)


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("network.pkl"))
    else:
        member = {"zip": "network.pkl", "npz": "weight.npy", "torchscript": "net/code/net.py"}[kind]
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr(member, b"")
    return buffer.getvalue()


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def case(
    project: str, file: str, says: str, write: Callable[[Bench], Path], instead: str = GIVE
) -> Case:
    return Case(project, file, False, says, write, instead=instead)


def network(
    project: str, says: str, name: str, *keys: str, entry: str = "G_ema", instead: str = GIVE
) -> Case:
    """A case of a network that NVIDIA's programs pickle."""
    data = pickle(**{entry: persistent(name, *keys)})
    return case(project, "`.pkl`", says, content("network.pkl", data), instead)


TENSORFLOW = b"\x80\x03}cdnnlib.tflib.network\nNetwork\n)\x81h\x00\x87."
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 381673535\n"
STABLE = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv.weight")
MODEL = "model.diffusion_model.time_embed.0.weight"
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}

CASES = (
    case(
        "StyleGAN, StyleGAN2, StyleGAN2-ADA in TensorFlow",
        "`.pkl`",
        "this is a TensorFlow pickle of StyleGAN",
        content("network.pkl", TENSORFLOW),
        instead="python legacy.py --source=IN.pkl --dest=OUT.pkl",
    ),
    network(
        "StyleGAN3-t, StyleGAN3-r",
        "this is a StyleGAN3 network",
        "SynthesisInput",
        "freqs",
        instead="give a StyleGAN2 snapshot",
    ),
    network(
        "StyleGAN-XL",
        "this is a StyleGAN-XL or Projected GAN network",
        "SuperresGenerator",
        "head_layers",
        instead="give a StyleGAN2 snapshot",
    ),
    network("EDM", "this is an EDM network", "EDMPrecond", "sigma_data", entry="ema"),
    network("EDM2", "this is an EDM2 network", "Precond", "logvar_channels", entry="ema"),
    network(
        "EG3D",
        "this is an EG3D network",
        "TriPlaneGenerator",
        "renderer",
        instead="give a StyleGAN2 snapshot",
    ),
    case(
        "StyleGAN2-ADA",
        "state dict",
        "this is the state dict of a StyleGAN2",
        tensors("synthesis.b4.const", "mapping.w_avg"),
        instead="give the snapshot (.pkl), or the folder that holds generator.json",
    ),
    case(
        "lucidrains/denoising-diffusion-pytorch",
        "`.pt`",
        "this is a U-Net of lucidrains' denoising-diffusion-pytorch",
        tensors("model.init_conv.weight", "model.time_mlp.1.weight", "model.downs.0.0.norm.g"),
        instead="train one with `factory train-generator`",
    ),
    case(
        "lucidrains/stylegan2-pytorch",
        "`.pt`",
        "this is a StyleGAN2 of lucidrains/stylegan2-pytorch",
        torch_saved({"GAN": {"S.net.0.weight": torch.zeros(3), "G.blocks.0.x": torch.zeros(3)}}),
        instead="give NVIDIA's snapshot (.pkl)",
    ),
    case(
        "lucidrains/imagen-pytorch, DALLE2-pytorch",
        "`.pt`",
        "this is a cascade of lucidrains'",
        tensors("unets.0.init_conv.weight"),
    ),
    case(
        "BigGAN",
        "`.pth`",
        "this is a BigGAN",
        tensors("blocks.0.0.conv1.weight", "shared.weight", "linear.weight"),
    ),
    case(
        "score_sde",
        "`.pth`",
        "this is a score_sde network",
        torch_saved({"model": {"module.all_modules.0.weight": torch.zeros(3)}}),
        instead="give its diffusers conversion",
    ),
    case(
        "k-diffusion",
        "`.pth`",
        "this is a k-diffusion network",
        tensors("inner_model.timestep_embed.weight", "inner_model.mapping.0.weight"),
    ),
    case(
        "guided-diffusion",
        "classifier",
        "this is a classifier of guided-diffusion",
        tensors("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.positional_embedding"),
        instead="give the diffusion model: 256x256_diffusion_uncond.pt or lsun_*.pt",
    ),
    case(
        "guided-diffusion",
        "classifier that pools over space",
        "this is a classifier of guided-diffusion",
        changed(output_blocks=None),
        instead="give the diffusion model: 256x256_diffusion_uncond.pt or lsun_*.pt",
    ),
    case(
        "guided-diffusion",
        "upsampler",
        "this is an upsampler of guided-diffusion",
        changed(input_blocks__0__0__weight=torch.zeros(32, 6, 3, 3)),
        instead="give the diffusion model that makes the small ones",
    ),
    case(
        "guided-diffusion",
        "optimizer",
        "this is the state of an optimizer",
        torch_saved(OPTIMIZER),
        instead="give the file of the network, such as ema_0.9999_*.pt or model*.pt beside it",
    ),
    case(
        "GLIDE",
        "`.pt`",
        "this is a GLIDE network",
        changed(transformer__resblocks__0__weight=torch.zeros(4)),
    ),
    case(
        "Stable Diffusion",
        "`.ckpt`",
        "this is a Stable Diffusion checkpoint",
        tensors(*STABLE, MODEL, "cond_stage_model.transformer.weight"),
    ),
    case(
        "latent diffusion",
        "`.ckpt`",
        "this is a latent diffusion checkpoint",
        tensors(*STABLE, MODEL),
    ),
    case(
        "latent diffusion",
        "VQModel, VAE",
        "this is an autoencoder",
        tensors("encoder.down.0.block.0.conv1.weight", "quantize.embedding.weight"),
    ),
    case(
        "diffusers",
        "weights of a U-Net without `config.json`",
        "this is the state dict of a diffusers U-Net",
        tensors("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"),
        instead="give the folder that holds it and config.json",
    ),
    case(
        "ermongroup/ddim",
        "`.ckpt`",
        "this is a U-Net of ermongroup/ddim",
        tensors("temb.dense.0.weight", "down.0.block.0.conv1.weight"),
        instead="give its diffusers conversion, such as google/ddpm-cifar10-32",
    ),
    case(
        "DiT",
        "`.pt`",
        "this is a diffusion transformer",
        tensors("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"),
    ),
    case(
        "any",
        "web page",
        "this is a web page",
        content("n.pkl", b"\n<!DOCTYPE html><html>404"),
        instead="download the file itself",
    ),
    case(
        "any",
        "Git LFS pointer",
        "this is a Git LFS pointer",
        content("n.pt", LFS),
        instead="run `git lfs pull` in its repository, or download the file itself",
    ),
    case(
        "any",
        "empty file",
        "the file is empty",
        content("network.pkl", b""),
        instead="download or copy it again",
    ),
    case("any", "text", "this is a text file", content("network.pt", b"404: Not Found")),
    case(
        "any",
        "`.zip`",
        "this is a zip archive",
        content("n.zip", archive("zip")),
        instead="unpack it and give the checkpoint in it",
    ),
    case(
        "any",
        "`.tar`",
        "this is a tar archive",
        content("n.tar", archive("tar")),
        instead="unpack it and give the checkpoint in it",
    ),
    case(
        "any",
        "`.gz`",
        "this is a gzip archive",
        content("n.pkl.gz", gzip.compress(b"x")),
        instead="unpack it and give the checkpoint in it",
    ),
    case("any", "`.npz`", "this is an archive of NumPy arrays", content("n.npz", archive("npz"))),
    case(
        "any",
        "TorchScript",
        "this is a TorchScript program",
        content("n.pt", archive("torchscript")),
        instead="give the state_dict() that it was made from",
    ),
    case(
        "any",
        "`.onnx`",
        "this is an ONNX graph",
        content("n.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x10"),
        instead="give the PyTorch checkpoint that it was exported from",
    ),
    case("any", "`.h5` (Keras)", "this is an HDF5 file", content("n.h5", b"\x89HDF\r\n\x1a\n\0\0")),
    case("any", "PNG", "this is a PNG image", content("n.pt", image("png"))),
    case("any", "JPEG", "this is a JPEG image", content("n.pkl", image("jpeg"))),
)
