"""What distinguishes files that are not supported: what they are, and the way out."""

from __future__ import annotations

from typing import NamedTuple

GIVE = "give a checkpoint of StyleGAN2 or guided-diffusion, or a diffusers folder of a DDPM"
SNAPSHOT = "give a StyleGAN2 snapshot"
UNPACK = "unpack it and give the checkpoint in it"
DOWNLOAD = "download the file itself (on GitHub and Hugging Face: the link named download or raw)"


class Signature(NamedTuple):
    """How a file begins, what it is and the way out."""

    pattern: str  # of the first bytes, as Latin-1
    what: str
    way_out: str


# fmt: off
SIGNATURES = (
    Signature(r"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<!--)", "a web page", DOWNLOAD),
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
    Signature(r"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write it", GIVE),
    Signature(r"(?s).{4}TFL3", "a TensorFlow Lite model", GIVE),
    Signature(r"GGUF", "a GGUF model", GIVE),
    Signature(r"\x93NUMPY", "a NumPy array", GIVE),
    Signature(r"\x89PNG\r\n\x1a\n", "a PNG image", GIVE),
    Signature(r"\xff\xd8\xff", "a JPEG image", GIVE),
    Signature(r"GIF8[79]a", "a GIF image", GIVE),
    Signature(r"(?s)BM.{4}\x00\x00\x00\x00", "a BMP image", GIVE),
    Signature(r"(II[*+]\x00|MM\x00[*+])", "a TIFF image", GIVE),
    Signature(r"(?s)RIFF.{4}WEBP", "a WebP image", GIVE),
    Signature(r"(?s).{4}ftyp(avif|heic|heix|mif1)", "an AVIF or HEIC image", GIVE),
    Signature(r"%PDF-", "a PDF document", GIVE),
    Signature(r"\x08\x01\x12[\x80-\xff]", "a TensorFlow SavedModel", GIVE),
    # A protobuf whose first fields are the version and the program that wrote it.
    Signature(r"(?s)\x08[\x01-\x20](\x12.[ -~]+|:)", "an ONNX graph",
              "give the PyTorch checkpoint that it was exported from"),
)
# fmt: on
# Members that distinguish zip archives.
ZIPS = (
    (
        r"(^|/)code/|(^|/)constants\.pkl$",
        "a TorchScript program, which is never run",
        "give the state_dict() that it was made from",
    ),
    (r"\.weights\.h5$|^config\.json$", "a Keras model", GIVE),
    (r"\.npy$", "an archive of NumPy arrays (.npz)", GIVE),
    (r"^\[Content_Types\]\.xml$", "an office document", GIVE),
    (r"", "a zip archive", UNPACK),
)


class Mark(NamedTuple):
    """Names or keys that distinguish a kind of checkpoint. Both patterns must be found."""

    names: str  # a pattern of the program's names in it, a line each; "" is found everywhere
    words: tuple[str, ...]  # patterns of its keys, a line each
    what: str
    way_out: str


# The first that fits is taken. In keys, `@` is the start of a name or of one of its parts.
# fmt: off
# These may hold a U-Net with the names of guided-diffusion's, which is of no use without the rest.
PARTS = (
    Mark("", (r"@(control_model\.|input_hint_block\.)",),
         "a ControlNet, which works on latents instead of pixels", GIVE),
    Mark("", (r"@(cond_stage_model|conditioner\.embedders|text_encoders?)\.",),
         "a Stable Diffusion checkpoint, which works on latents instead of pixels", GIVE),
    Mark("", (r"@transformer_blocks\.\d+\.attn2\.to_k",),
         "a U-Net of Stable Diffusion, which works on latents instead of pixels", GIVE),
    Mark("", (r"@first_stage_model\.",),
         "a latent diffusion checkpoint, which works on latents instead of pixels", GIVE),
    Mark("", (r"@(xf_proj|transformer\.resblocks)\b", r"@input_blocks\."),
         "a GLIDE network, which is conditioned on text", GIVE),
    Mark("", (r"@input_blocks\.\d", r"@out\.\d+\.(positional_embedding|qkv_proj|c_proj)|"
              r"@out\.0\.weight$(?![\s\S]*output_blocks)"),
         "a classifier of guided-diffusion",
         "give the diffusion model: 256x256_diffusion_uncond.pt or lsun_*.pt"),
)
MARKS = (
    Mark(r"^(dnnlib\.tflib|tfutil)\.", (), "a TensorFlow pickle of StyleGAN",
         "convert it with stylegan2-ada-pytorch's "
         "`python legacy.py --source=IN.pkl --dest=OUT.pkl`"),
    Mark("", (r"^(SuperresGenerator|head_layers|rand_embedding|embed_proj|path_stem|"
              r"ProjectedDiscriminator|Fastgan\w*)$",),
         "a StyleGAN-XL or Projected GAN network, whose layers differ from StyleGAN2's", SNAPSHOT),
    Mark("", (r"^(SynthesisInput|magnitude_ema(_beta)?|use_radial_filters)$|"
              r"@synthesis\.(input|L\d+_\d+_\d+)\.",),
         "a StyleGAN3 network (-t or -r), whose layers differ from StyleGAN2's", SNAPSHOT),
    Mark("", (r"^(EDMPrecond|VPPrecond|VEPrecond|iDDPMPrecond)$|@model\.(enc|dec)\.\d+x\d+_",),
         "an EDM network (Karras et al. 2022)", GIVE),
    Mark("", (r"^Precond$|@unet\.enc\.", r"^logvar_channels$|logvar_(fourier|linear)"),
         "an EDM2 network (Karras et al. 2024)", GIVE),
    Mark("", (r"^TriPlaneGenerator$",), "an EG3D network", SNAPSHOT),
    Mark("", (r"@(synthesis\.b4\.const|mapping\.w_avg)$",),
         "the state dict of a StyleGAN2, without its settings",
         "give the snapshot (.pkl), or the folder that holds generator.json"),
    Mark("", (r"@S\.net\.\d|@G\.initial_block$", r"@G\."),
         "a StyleGAN2 of lucidrains/stylegan2-pytorch",
         "give NVIDIA's snapshot (.pkl), or train one with `factory train-generator --kind "
         "stylegan2`"),
    Mark("", (r"@unets\.\d+\.",), "a cascade of lucidrains' imagen-pytorch or DALLE2-pytorch",
         GIVE),
    Mark("", (r"lora_(up|down|A|B)\b",), "a LoRA, which works on latents instead of pixels", GIVE),
    Mark("", (r"@(encoder\.down\.\d|decoder\.up\.\d|encoder\.down_blocks|decoder\.up_blocks|"
              r"quantize\.embedding|post_quant_conv)",),
         "an autoencoder (VQModel, VAE), which generates nothing by itself", GIVE),
    Mark("", (r"@(double_blocks|joint_blocks)\.\d",),
         "a Flux or Stable Diffusion 3 network, which works on latents instead of pixels", GIVE),
    Mark("", (r"@(x_embedder|pos_embed)", r"adaLN_modulation"), "a diffusion transformer (DiT)",
         GIVE),
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
         "a k-diffusion network", GIVE),
    Mark("", (r"@(down_blocks|mid_block)\.", r"@(conv_in|time_embedding)\."),
         "the state dict of a diffusers U-Net, without its settings",
         "give the folder that holds it and config.json"),
    Mark("", (r"^param_groups$(?![\s\S]*\.(weight|bias)$)",), "the state of an optimizer",
         "give the file of the network, such as ema_0.9999_*.pt or model*.pt beside it"),
    Mark("", (r"@blocks\.0\.0\.", r"@(shared|linear)\.weight$"), "a BigGAN", GIVE),
    Mark("", (r"@(layer1\.0|features\.0|blocks\.0|visual)\.",), "an image classifier or encoder",
         "give it as --encoder, or as --generator a checkpoint that makes images"),
)
# fmt: on
