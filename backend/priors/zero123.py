"""Zero123 (Liu et al. 2023) and Stable Zero123 as priors: views of the object in a picture, from a camera told relative to it.

Stable Diffusion 1.x with two changes. In place of a text it attends to one token, made by a linear layer from CLIP's embedding
of the picture and four numbers of the camera; and the picture's latents, not scaled, are given as four more channels. There is
no text, so the prompt plays no part. The other end of guidance gets zeros for both. Views are independent of one another.

Distillation with them guides near 3, and renders with a camera that frames the object as the picture does, so that the change of
distance is zero.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import radians, tan

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from backend.clip_input import clip_input
from backend.priors.autoencoder import LatentSpace
from backend.priors.placement import Placement
from backend.priors.prior import (
    Conditioning,
    Question,
    ReferenceView,
    RenderedViews,
    ViewGroup,
    Views,
    alpha_bar_at,
    check_questions,
    epsilon_from_v,
)
from backend.priors.reference import needs_reference, only_reference, picture_latents_input, reference_picture

QUESTIONS: tuple[Question, ...] = ("text", "plain", "negative", "empty")

STANDARD_DISTANCE, STANDARD_FOV = 3.0, 40.0
"""The camera (scene units, degrees) that frames a finished object exactly, as a reference picture should."""


@dataclass(frozen=True)
class PictureCamera:
    """From where the picture was taken, in degrees; at the standard distance with the standard lens."""

    azimuth: float = 0.0
    elevation: float = 0.0


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """CLIP's embedding [1, d] and latents [1, 4, h, w] of the picture, and the camera that took it."""

    embedding: Tensor
    latents: Tensor
    camera: PictureCamera


class Zero123Prior:
    """`with_references` first. `stable` says which four numbers the model knows."""

    latent_range = None
    views_per_group = 1
    knows_background = False
    recipe_family = "image_conditioned"
    has_view_prompts = False
    control = "none"

    def __init__(
        self,
        name: str,
        placement: Placement,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        camera_projection: torch.nn.Linear,
        alphas_cumprod: Tensor,
        predicts_v: bool,
        stable: bool,
    ) -> None:
        """The parts are taken in by `placement`; `camera_projection` maps [.., d + 4] to [.., d]."""
        self.name, self.stable = name, stable
        self._placement = placement
        self._unet, self._latents = placement.network(unet), LatentSpace(vae, placement)
        self._latent_scale = vae.config.scaling_factor
        self._image_encoder = placement.text_encoder(image_encoder)
        self._camera_projection = placement.text_encoder(camera_projection)
        self._predicts_v = predicts_v
        self._shown: ShownPicture | None = None
        self.alphas_cumprod = alphas_cumprod.to(placement.device)
        self.network, self.time_embedding = unet, unet.time_embedding
        side = unet.config.sample_size
        self.latent_shape = (unet.config.out_channels, side, side)
        self.image_size = side * self._latents.pixels_per_latent

    @torch.no_grad()
    def with_references(self, references: Sequence[ReferenceView]) -> Zero123Prior:
        """This prior, bound to the one picture in `references`, composited on white; all weights are shared with the prior that
        was asked.

        Raises:
            InputError: there is not exactly one picture, or it cannot be used.
        """
        reference = only_reference(self.name, references)
        camera = PictureCamera(reference.azimuth, reference.elevation)
        return self._bound(reference_picture(reference.image).to(self._placement.device), camera)

    @torch.no_grad()
    def for_estimate(self) -> Zero123Prior:
        """A prior that can be asked, for one whose parts are sketched on the meta device."""
        picture = torch.empty(1, 3, self.image_size, self.image_size, device=self._placement.device)
        return self._bound(picture, PictureCamera())

    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        """Holds nothing: the picture says it all."""
        return Conditioning(prompt, negative)

    def encode_images(self, rendered: RenderedViews, background: Tensor) -> Tensor:
        """The mean of the autoencoder's posterior, scaled: [N, 4, h, w] float32."""
        return self._latents.encode(rendered, background, self.image_size)

    def decode_latents(self, latents: Tensor, background: Tensor) -> Tensor:
        return self._latents.decode(latents)

    def predict_noise(
        self,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        views: Views,
        questions: Sequence[Question] = ("text", "negative"),
    ) -> tuple[Tensor, ...]:
        """All predictions in one batch.

        Raises:
            InputError: there is no picture yet, or a question that needs words for the view.
        """
        if self._shown is None:
            raise needs_reference(self.name)
        check_questions(self, questions, QUESTIONS)
        token, latents = self._token(views.cameras), self._shown.latents.to(noisy.dtype).expand_as(noisy)
        shown = [question in ("text", "plain") for question in questions]
        tokens = torch.cat([token if with_picture else torch.zeros_like(token) for with_picture in shown])
        pictures = torch.cat([latents if with_picture else torch.zeros_like(latents) for with_picture in shown])
        batch, network = noisy.repeat(len(questions), 1, 1, 1), self._unet
        predicted = self._placement.run(
            network,
            lambda noisy, token: network(noisy, t.to(noisy.device), encoder_hidden_states=token).sample,
            torch.cat([batch, pictures], dim=1).to(network.dtype),
            tokens.to(network.dtype),
            slices=len(questions),
        ).float()
        if self._predicts_v:
            predicted = epsilon_from_v(batch.float(), predicted, alpha_bar_at(self.alphas_cumprod, t))
        return predicted.chunk(len(questions))

    def _bound(self, picture: Tensor, camera: PictureCamera) -> Zero123Prior:
        pixels = picture_latents_input(picture, self.image_size)
        encoder = self._image_encoder
        seen = clip_input((pixels + 1) / 2, encoder.config.image_size, corners=True).to(encoder.dtype)
        bound = copy.copy(self)
        bound._shown = ShownPicture(
            embedding=self._placement.run(encoder, lambda pixels: encoder(pixels).image_embeds, seen),
            latents=self._latents.encode_images(pixels) / self._latent_scale,
            camera=camera,
        )
        return bound

    def _token(self, cameras: ViewGroup) -> Tensor:
        """What is attended to in place of a text, for each camera: [N, 1, d]."""
        shown, projection = self._shown, self._camera_projection
        assert shown is not None
        pose = relative_pose(cameras, shown.camera, self.stable).to(shown.embedding)
        both = torch.cat([shown.embedding.expand(len(pose), -1), pose], dim=1)[:, None]
        return self._placement.run(projection, projection, both.to(projection.weight.dtype))


def relative_pose(cameras: ViewGroup, picture: PictureCamera, stable: bool) -> Tensor:
    """The four numbers of each camera [N, 4]: change of polar angle (radians, measured from above), sine and cosine of the change
    of azimuth, and the change of distance; Stable Zero123 has the polar angle of the picture itself as the fourth.

    Zero123 knows no field of view. A camera with another one than the standard camera's counts as being where the standard camera
    would frame the object alike.
    """
    polar = torch.deg2rad(picture.elevation - cameras.elevation)
    azimuth = torch.deg2rad(cameras.azimuth - picture.azimuth)
    if stable:
        fourth = torch.full_like(polar, radians(90 - picture.elevation))
    else:
        widths = torch.deg2rad(cameras.fov / 2).tan() / tan(radians(STANDARD_FOV / 2))
        fourth = cameras.distance * widths - STANDARD_DISTANCE
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), fourth], dim=1)
