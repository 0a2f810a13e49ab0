"""The embedded prior as one model: text encoder, 3D template and denoiser, saved as a diffusers-style folder.

The denoiser is preconditioned on the template. With mu the template's picture, A = sqrt(abar), S = sqrt(1 - abar) and
r^2 the variance of a picture around mu, the best linear estimate of the clean picture is

    x0_lin = mu + A r^2 / (A^2 r^2 + S^2) (x - A mu)

and the network predicts what is missing, scaled to unit variance (in the manner of Karras et al. 2022, section 5):

    v = (A x - x0_lin) / S + sqrt(r^2 / (A^2 r^2 + S^2)) net(...)

with v-prediction as in Salimans and Ho 2022.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from backend.toybox.template import VolumeTemplate
from backend.toybox.text import build_text_encoder, build_tokenizer
from backend.toybox.unet import IMAGE_SIZE, UNSHUFFLE, attend_across_views, build_unet

VIEWS = 4
RESIDUAL_VARIANCE = 0.06
MODEL_INDEX = {
    "_class_name": "ToyboxModel",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "template": ["backend.toybox.template", "VolumeTemplate"],
}


@dataclass(frozen=True)
class TextStates:
    """Encoded captions: tokens [B, L, E], mask [B, L], pooled [B, E]."""

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


class ToyboxModel:
    """The four networks' worth of one prior, with the arithmetic that joins them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder: CLIPTextModel,
        template: VolumeTemplate,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
    ) -> None:
        self.tokenizer, self.text_encoder, self.template = tokenizer, text_encoder, template
        self.unet, self.scheduler = unet, scheduler
        attend_across_views(unet, VIEWS)
        axis = (torch.arange(IMAGE_SIZE // UNSHUFFLE) + 0.5) / (IMAGE_SIZE // UNSHUFFLE) * 2 - 1
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self._coordinates = torch.stack([x, y, (x * x + y * y).sqrt()])[None]

    @staticmethod
    def new(vocabulary: list[str]) -> ToyboxModel:
        """An untrained model over `vocabulary`, its weights drawn from torch's global generator."""
        return ToyboxModel(
            build_tokenizer(vocabulary),
            build_text_encoder(len(vocabulary)),
            VolumeTemplate(),
            build_unet(),
            DDIMScheduler(
                beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=True
            ),
        )

    @staticmethod
    def load(folder: Path) -> ToyboxModel:
        """Read a model that `save` wrote. Raises OSError where a part is missing."""
        transformers_logging.disable_progress_bar()  # it loads in a blink, and the bar would break ours
        model = ToyboxModel(
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True),
            CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, local_files_only=True),
            VolumeTemplate.from_pretrained(folder / "template", torch_dtype=torch.float32, local_files_only=True),
            UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, local_files_only=True),
            DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        )
        for network in model.networks():
            network.eval().requires_grad_(False)
        return model

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the folder with weights as safetensors in `dtype`; the model itself is left as it is."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        for name, network in (("text_encoder", self.text_encoder), ("template", self.template), ("unet", self.unet)):
            state = {k: v.detach().to(dtype) for k, v in network.state_dict().items() if v.is_floating_point()}
            if name == "text_encoder":
                network.save_pretrained(folder / name, state_dict=state)
            else:
                _save_diffusers(network, folder / name, state)

    def networks(self) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
        """Text encoder, template, UNet."""
        return self.text_encoder, self.template, self.unet

    def to(self, device: torch.device | str) -> ToyboxModel:
        for network in self.networks():
            network.to(device)
        self._coordinates = self._coordinates.to(device)
        return self

    @property
    def alphas_cumprod(self) -> Float[Tensor, "T"]:
        return self.scheduler.alphas_cumprod

    def encode(self, captions: list[str]) -> TextStates:
        """Captions of vocabulary words, separated by blanks; "" is the unconditional caption."""
        device = self._coordinates.device
        batch = self.tokenizer(captions, padding="longest", truncation=True, return_tensors="pt").to(device)
        out = self.text_encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        return TextStates(out.last_hidden_state, batch.attention_mask.float(), out.pooler_output)

    def predict_v(
        self,
        noisy: Float[Tensor, "N 4 H W"],
        timesteps: Float[Tensor, "N"],
        guess: Float[Tensor, "N 4 H W"],
        text: TextStates,
        camera: Float[Tensor, "N 4"],
        background: Float[Tensor, "N 3"],
    ) -> tuple[Float[Tensor, "N 4 H W"], Float[Tensor, "N 4 H W"], Float[Tensor, "N 1 1 1"]]:
        """v, and the network's own share of it with its scale; all N images in whole groups of `VIEWS`.

        `text` has one row an image; `guess` is the template over the background, in [-1, 1] like `noisy`.
        """
        abar = self.alphas_cumprod.to(noisy)[timesteps.long()].view(-1, 1, 1, 1)
        a, s = abar.sqrt(), (1 - abar).sqrt()
        spread = abar * RESIDUAL_VARIANCE + s * s
        linear = guess + a * RESIDUAL_VARIANCE / spread * (noisy - a * guess)
        inputs = torch.cat(
            [
                F.pixel_unshuffle(noisy, UNSHUFFLE),
                F.pixel_unshuffle(guess, UNSHUFFLE),
                self._coordinates.expand(len(noisy), -1, -1, -1),
            ],
            1,
        )
        net = self.unet(
            inputs,
            timesteps,
            encoder_hidden_states=text.tokens,
            encoder_attention_mask=text.mask,
            class_labels=torch.cat([text.pooled, camera, background * 2 - 1], -1),
        ).sample
        net = F.pixel_shuffle(net, UNSHUFFLE)
        scale = (RESIDUAL_VARIANCE / spread).sqrt()
        return (a * noisy - linear) / s + scale * net, net, scale


def camera_features(azimuth: Float[Tensor, "N"], elevation: Float[Tensor, "N"]) -> Float[Tensor, "N 4"]:
    """Sine and cosine of azimuth and elevation (degrees), as the denoiser is told them."""
    az, el = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    return torch.stack([az.sin(), az.cos(), el.sin(), el.cos()], -1)


def over_background(rgba: Float[Tensor, "N 4 H W"], background: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4 H W"]:
    """Premultiplied RGBA in [0, 1] -> the prior's picture: color over the background, and alpha, in [-1, 1]."""
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    return torch.cat([rgb + (1 - alpha) * background[..., None, None], alpha], 1) * 2 - 1


def _save_diffusers(network: torch.nn.Module, folder: Path, state: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    network.save_config(folder)
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
