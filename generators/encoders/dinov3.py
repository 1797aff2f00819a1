"""DINOv3 (Siméoni et al. 2025), its transformers, through timm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from timm.models.eva import Eva
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.vit import NORM, VisionTransformer, count_heads, read_shape

WHAT = "a DINOv3"
LAST = 4  # blocks of the linear protocol
ROPE_BASE = 100
NORM_EPS = 1e-5
UNUSED = ("mask_token", "local_cls_norm.")  # in training only
PERIODS = "rope_embed.periods"


def build(checkpoint: Checkpoint, config: EncoderConfig) -> VisionTransformer:
    """A DINOv3; by default, its last four blocks after the final norm."""
    tensors = convert(checkpoint.tensors)
    is_gated = "blocks.0.mlp.fc1_g.weight" in tensors
    shape = read_shape({n.replace(".fc1_g.", ".fc1."): t for n, t in tensors.items()}, WHAT)
    periods = checkpoint.tensors.get(PERIODS)
    if config.heads is None and periods is not None and periods.ndim == 1 and len(periods):
        heads = shape["embed_dim"] // (4 * len(periods))  # sine and cosine, in two directions
        config = config.model_copy(update={"heads": heads or None})
    registers = tensors.get("reg_token")
    transformer = Eva(
        patch_size=shape["patch_size"],
        embed_dim=shape["embed_dim"],
        depth=shape["depth"],
        num_heads=count_heads(shape["embed_dim"], config),
        qkv_bias="blocks.0.attn.q_bias" in tensors,
        mlp_ratio=(shape["hidden"] + 0.5) / shape["embed_dim"],  # rounded down again
        swiglu_mlp=is_gated,
        swiglu_align_to=1 if is_gated else 0,
        num_classes=0,
        global_pool="",
        init_values=1e-5,
        rope_type="dinov3",
        rope_temperature=ROPE_BASE,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=0 if registers is None or registers.ndim != 3 else registers.shape[1],
        use_fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
        dynamic_img_size=True,
    )
    load_strictly(transformer, tensors, f"{WHAT} of width {shape['embed_dim']}")
    return VisionTransformer(transformer, config, NORM, LAST, native_size=None)


RENAMED = {
    "storage_tokens": "reg_token",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.w3.": ".mlp.fc2.",
    ".ls1.gamma": ".gamma_1",
    ".ls2.gamma": ".gamma_2",
}


def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by timm's names, the biases of q and v apart: that of k is masked to zero."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED) or name == PERIODS or name.endswith(".bias_mask"):
            continue
        if name.endswith(".attn.qkv.bias") and len(parts := tensor.chunk(3)) == 3:
            base = name.removesuffix("qkv.bias")
            found |= {f"{base}q_bias": parts[0], f"{base}v_bias": parts[2]}
            continue
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        found[name] = tensor
    return found
