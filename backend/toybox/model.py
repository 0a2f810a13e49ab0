"""The embedded prior as one model: text encoder, 3D template, picture encoder and denoiser, saved as a diffusers-style folder.

The denoiser is preconditioned on the template. With mu the template's picture, A = sqrt(abar), S = sqrt(1 - abar) and
r^2 the variance of a picture around mu, the best linear estimate of the clean picture is

    x0_lin = mu + A r^2 / (A^2 r^2 + S^2) (x - A mu)

and the network predicts what is missing, scaled to unit variance (in the manner of Karras et al. 2022, section 5):

    v = (A x - x0_lin) / S + sqrt(r^2 / (A^2 r^2 + S^2)) net(...)

with v-prediction as in Salimans and Ho 2022.

Pictures of the object come in twice: the picture encoder corrects the 3D guess, and they stand beside the noisy views as
further views of the group, free of noise and with their own cameras (in the manner of ImageDream, Wang and Shi 2023).
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

from backend.cameras import Cameras
from backend.toybox.picture_encoder import PictureEncoder, fit_part_colors
from backend.toybox.template import Volume, VolumeTemplate
from backend.toybox.text import build_text_encoder, build_tokenizer
from backend.toybox.unet import CHANNELS, IMAGE_SIZE, UNSHUFFLE, attend_across_views, build_unet

VIEWS = 4
RESIDUAL_VARIANCE = 0.06
MODEL_INDEX = {
    "_class_name": "ToyboxModel",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "template": ["backend.toybox.template", "VolumeTemplate"],
    "picture_encoder": ["backend.toybox.picture_encoder", "PictureEncoder"],
}


NETWORKS = ("text_encoder", "template", "picture_encoder", "unet")
"""Their folders, in the order of `ToyboxModel.networks`."""


@dataclass(frozen=True)
class TextStates:
    """Encoded captions: tokens [B, L, E], mask [B, L], pooled [B, E]."""

    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    def repeat_each(self, times: int) -> TextStates:
        """One row a caption -> one row a view."""
        return TextStates(*(x.repeat_interleave(times, 0) for x in (self.tokens, self.mask, self.pooled)))


@dataclass(frozen=True)
class References:
    """R pictures of each of G objects by the standard camera (fov 40, distance 3): premultiplied RGBA in [0, 1] [G, R, 4, 32, 32],
    azimuth and elevation [G, R] in degrees."""

    pictures: Tensor
    azimuth: Tensor
    elevation: Tensor


@dataclass(frozen=True)
class CleanViews:
    """Reference pictures as the denoiser is shown them, and the guess at their cameras: premultiplied RGBA [G, R, 4, H, W], with
    camera features [G, R, 4]."""

    pictures: Tensor
    guess: Tensor
    camera: Tensor


class ToyboxModel:
    """The four networks' worth of one prior, with the arithmetic that joins them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder: CLIPTextModel,
        template: VolumeTemplate,
        picture_encoder: PictureEncoder,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
    ) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.template, self.picture_encoder = template, picture_encoder
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
            PictureEncoder(),
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
            PictureEncoder.from_pretrained(folder / "picture_encoder", torch_dtype=torch.float32, local_files_only=True),
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
        for name, network in zip(NETWORKS, self.networks()):
            state = {k: v.detach().to(dtype) for k, v in network.state_dict().items() if v.is_floating_point()}
            if name == "text_encoder":
                network.save_pretrained(folder / name, state_dict=state)
            else:
                _save_diffusers(network, folder / name, state)

    def networks(self) -> tuple[torch.nn.Module, ...]:
        """Text encoder, template, picture encoder, UNet."""
        return self.text_encoder, self.template, self.picture_encoder, self.unet

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

    def guess(self, text: TextStates) -> Volume:
        """The template's volume for each caption."""
        return self.template.volume(text.tokens, text.mask, text.pooled)

    def correct(self, text: TextStates, references: References) -> tuple[Volume, Float[Tensor, "G L"]]:
        """The template's volumes for captions of G objects as the picture encoder changes them, and what it has to tell of them."""
        cameras = Cameras.orbit(references.azimuth.flatten(), references.elevation.flatten())
        return self.picture_encoder(references.pictures, cameras, self.template, self.guess(text), text.pooled)

    def look(self, text: TextStates, references: References) -> tuple[TextStates, Volume, CleanViews]:
        """Captions of G objects and pictures of them -> what the denoiser is to be told in place of `text`, volumes that show the
        pictured objects, and the pictures as views of the denoiser's groups.

        The volumes' part colors are fitted to the pictures; no gradient goes through that.
        """
        (density, parts, colors), latent = self.correct(text, references)
        told = TextStates(text.tokens, text.mask, text.pooled + self.picture_encoder.tell(latent))
        cameras = Cameras.orbit(references.azimuth.flatten(), references.elevation.flatten())
        with torch.no_grad():
            # Pictures are linear in the part colors, so one rendering with unit colors serves the fit and the guess.
            unit = torch.eye(colors.shape[1], device=colors.device).expand(len(colors), -1, -1)
            seen = self.render((density, parts, unit), cameras).unflatten(0, references.azimuth.shape)
            colors = fit_part_colors(seen[:, :, :3], references.pictures, colors)
            guess = torch.cat([torch.einsum("grphw,gpc->grchw", seen[:, :, :3], colors), seen[:, :, 3:]], 2)
        camera = camera_features(cameras.azimuth, cameras.elevation).unflatten(0, references.azimuth.shape)
        return told, (density, parts, colors), CleanViews(references.pictures, guess, camera)

    def render(self, volume: Volume, cameras: Cameras, samples: int = 20) -> Float[Tensor, "N 4 H W"]:
        """Premultiplied RGBA of B volumes at N = B * V cameras."""
        origins, directions = cameras.rays(IMAGE_SIZE, IMAGE_SIZE)
        shape = (len(volume[0]), -1, 3)
        rgba = self.template.march(volume, origins.reshape(shape), directions.reshape(shape), samples)
        return rgba.view(-1, IMAGE_SIZE, IMAGE_SIZE, CHANNELS).permute(0, 3, 1, 2)

    def predict_v(
        self,
        noisy: Float[Tensor, "N 4 H W"],
        timesteps: Float[Tensor, "N"],
        guess: Float[Tensor, "N 4 H W"],
        text: TextStates,
        camera: Float[Tensor, "N 4"],
        background: Float[Tensor, "N 3"],
        references: CleanViews | None = None,
    ) -> tuple[Float[Tensor, "N 4 H W"], Float[Tensor, "N 4 H W"], Float[Tensor, "N 1 1 1"]]:
        """v, and the network's own share of it with its scale; all N images in whole groups of `VIEWS`.

        `text` has one row an image; `guess` is the template over the background, in [-1, 1] like `noisy`. With `references` each
        group has further views without noise, at timestep 0 and over the background of its first view, to which the others attend.
        """
        abar = self.alphas_cumprod.to(noisy)[timesteps.long()].view(-1, 1, 1, 1)
        a, s = abar.sqrt(), (1 - abar).sqrt()
        spread = abar * RESIDUAL_VARIANCE + s * s
        linear = guess + a * RESIDUAL_VARIANCE / spread * (noisy - a * guess)
        if references is None:
            net = self._ask(noisy, timesteps, guess, text, camera, background, VIEWS)
        else:
            net = self._ask_beside(references, noisy, timesteps, guess, text, camera, background)
        scale = (RESIDUAL_VARIANCE / spread).sqrt()
        return (a * noisy - linear) / s + scale * net, net, scale

    def _ask_beside(self, references: CleanViews, noisy, timesteps, guess, text, camera, background) -> Tensor:
        """The network's answer for the noisy views, which see the reference pictures of their group."""
        groups, count = references.pictures.shape[:2]

        def join(views: Tensor, clean: Tensor) -> Tensor:
            return torch.cat([views.unflatten(0, (groups, VIEWS)), clean], 1).flatten(0, 1)

        def again(views: Tensor) -> Tensor:
            first = views.unflatten(0, (groups, VIEWS))[:, :1]
            return join(views, first.expand(-1, count, *first.shape[2:]))

        def over(rgba: Tensor) -> Tensor:
            shown = over_background(rgba.flatten(0, 1), background[::VIEWS].repeat_interleave(count, 0))
            return shown.unflatten(0, (groups, count))

        net = self._ask(
            join(noisy, over(references.pictures)),
            join(timesteps, timesteps.new_zeros(groups, count)),
            join(guess, over(references.guess)),
            TextStates(again(text.tokens), again(text.mask), again(text.pooled)),
            join(camera, references.camera),
            again(background),
            VIEWS + count,
        )
        return net.unflatten(0, (groups, VIEWS + count))[:, :VIEWS].flatten(0, 1)

    def _ask(self, noisy, timesteps, guess, text, camera, background, views: int) -> Tensor:
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
            cross_attention_kwargs=None if views == VIEWS else {"views": views},
        ).sample
        return F.pixel_shuffle(net, UNSHUFFLE)


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
