"""The prior's denoiser: diffusers' UNet at toy size, with self-attention that runs across the views of a group.

Attention over all views of a group is MVDream's (Shi et al. 2023, section 3.1): tokens of the V views of one object are
laid side by side, ``(b v) n c -> b (v n) c``, in self-attention only.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

IMAGE_SIZE = 32
CHANNELS = 4
UNSHUFFLE = 2
COORDINATES = 3
CAMERA_WIDTH = 4
BACKGROUND_WIDTH = 3


def build_unet(text_width: int = 64, channels: tuple[int, int, int] = (48, 80, 112)) -> UNet2DConditionModel:
    """A UNet on 16x16 (32x32 after pixel-unshuffle) whose class embedding carries caption, camera and background."""
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // UNSHUFFLE,
        in_channels=2 * CHANNELS * UNSHUFFLE**2 + COORDINATES,
        out_channels=CHANNELS * UNSHUFFLE**2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=text_width + CAMERA_WIDTH + BACKGROUND_WIDTH,
        resnet_time_scale_shift="scale_shift",
    )
    # Residual over the preconditioned guess: nothing is added to it before training.
    unet.conv_out.weight.data.zero_()
    unet.conv_out.bias.data.zero_()
    return unet


def attend_across_views(unet: UNet2DConditionModel, views: int) -> None:
    """Let self-attention run over groups of `views` consecutive images; cross-attention stays per image.

    A call of the UNet may ask for groups of another size by `cross_attention_kwargs={"views": ...}`.
    """
    processors = {
        name: CrossViewAttention(views) if ".attn1." in name else PerImageAttention() for name in unet.attn_processors
    }
    unet.set_attn_processor(processors)


class CrossViewAttention:
    """Self-attention over all tokens of a group of images, `views` of them unless the call says otherwise."""

    def __init__(self, views: int) -> None:
        self.views = views

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: int | None = None,
    ) -> Tensor:
        images, tokens, width = hidden_states.shape
        views = views or self.views
        if images % views:
            raise ValueError(f"{images} images do not make whole groups of {views} views")
        joined = hidden_states.reshape(images // views, views * tokens, width)
        q, k, v = attention.to_q(joined), attention.to_k(joined), attention.to_v(joined)
        heads = [x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return attention.to_out[0](mixed).reshape(images, tokens, width)


class PerImageAttention(AttnProcessor2_0):
    """diffusers' own attention, beside which a call may name the size of groups: that is no concern of cross-attention."""

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: int | None = None,
    ) -> Tensor:
        return super().__call__(attention, hidden_states, encoder_hidden_states, attention_mask, temb)
