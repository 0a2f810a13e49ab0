"""ImageDream (Wang and Shi 2023) as a prior: MVDream that is also shown a picture of the object from its front.

The picture comes in twice. Tokens that a resampler makes of CLIP's image features are attended to beside the text; and in
"pixel" mode, the one published for this, the picture's latents stand as a fifth view in each group, free of noise, with a
camera of zeros. What the network answers for that view is dropped. The other end of guidance gets the negative text, features
of zeros and latents of zeros. Its authors guide with scale 5 and rescale by .2.

The network has one frame for all objects: azimuth 0 is what the picture shows. A picture that was taken from elsewhere than the
front therefore turns the cameras that the network is told, about the up axis.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from backend.clip_input import clip_input
from backend.priors.multiview import QUESTIONS, MVDreamPrior, text_of
from backend.priors.multiview_unet import MultiViewUNet, camera_vectors
from backend.priors.placement import Placement
from backend.priors.prior import Conditioning, Question, ReferenceView, Views, check_questions
from backend.priors.reference import needs_reference, only_reference, picture_latents_input, reference_picture

WITH_PICTURE = ("text", "plain")
"""The questions that are asked with the picture; the others with zeros in its place."""


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """What the network gets of the picture, and of zeros: tokens [1, K, d] and latents [1, 4, h, w] each; and the azimuth (degrees)
    from which the picture was taken."""

    tokens: Tensor
    latents: Tensor
    no_tokens: Tensor
    no_latents: Tensor
    azimuth: float


class ImageDreamPrior(MVDreamPrior):
    """Groups of four views, as in MVDream; `with_references` first."""

    recipe_family = "image_conditioned"

    def __init__(
        self,
        name: str,
        placement: Placement,
        unet: MultiViewUNet,
        vae: torch.nn.Module,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModel,
        alphas_cumprod: Tensor,
        predicts_v: bool,
    ) -> None:
        super().__init__(name, placement, unet, vae, text_encoder, tokenizer, alphas_cumprod, predicts_v)
        self._image_encoder = placement.text_encoder(image_encoder)
        self._shown: ShownPicture | None = None

    @torch.no_grad()
    def with_references(self, references: Sequence[ReferenceView]) -> ImageDreamPrior:
        """This prior, bound to the one picture in `references`, composited on white; all weights are shared with the prior that
        was asked.

        The elevation from which it was taken is not told to the network: it was trained to find out.

        Raises:
            InputError: there is not exactly one picture, or it cannot be used.
        """
        reference = only_reference(self.name, references)
        return self._bound(reference_picture(reference.image).to(self._placement.device), reference.azimuth)

    @torch.no_grad()
    def for_estimate(self) -> ImageDreamPrior:
        return self._bound(torch.empty(1, 3, self.image_size, self.image_size, device=self._placement.device), 0.0)

    def predict_noise(
        self,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        views: Views,
        questions: Sequence[Question] = ("text", "negative"),
    ) -> tuple[Tensor, ...]:
        """All predictions in one batch of groups of five; `noisy` [N, 4, h, w] holds whole groups of four.

        Raises:
            InputError: there is no picture yet, a question that needs words for the view, or views not in groups of four.
        """
        if self._shown is None:
            raise needs_reference(self.name)
        check_questions(self, questions, QUESTIONS)
        self._check_groups(views)
        shown, network, groups = self._shown, self._unet, len(views) // self.views_per_group
        five = groups * (self.views_per_group + 1)
        cameras = camera_vectors(turned(views.cameras.camera_to_world(), -shown.azimuth)).to(noisy.device)
        asked = []
        for question in questions:
            with_picture = question in WITH_PICTURE
            reference = shown.latents if with_picture else shown.no_latents
            tokens = shown.tokens if with_picture else shown.no_tokens
            asked.append(
                (
                    self._append(noisy, reference.to(noisy.dtype)),
                    text_of(conditioning, question).expand(five, -1, -1),
                    self._append(cameras, torch.zeros_like(cameras[:1])),
                    tokens.expand(five, -1, -1),
                )
            )
        batches = [torch.cat(parts) for parts in zip(*asked, strict=True)]
        predicted = self._placement.run(
            network,
            lambda noisy, text, camera, tokens: network(
                noisy, t.to(noisy.device), text, class_labels=camera, added_cond_kwargs={"image_tokens": tokens}
            ).sample,
            *(batch.to(network.dtype) for batch in batches),
            slices=len(questions),
        )
        epsilon = self._epsilon(predicted.float(), batches[0], t)
        views_alone = epsilon.unflatten(0, (-1, self.views_per_group + 1))[:, :-1].flatten(0, 1)
        return views_alone.chunk(len(questions))

    def _bound(self, picture: Tensor, azimuth: float) -> ImageDreamPrior:
        encoder, network = self._image_encoder, self._unet
        pixels = clip_input(picture, encoder.config.image_size).to(encoder.dtype)
        features = self._placement.run(
            encoder, lambda pixels: encoder(pixels, output_hidden_states=True).hidden_states[-2], pixels
        ).to(network.dtype)
        both = torch.cat([features, torch.zeros_like(features)])
        tokens, no_tokens = self._placement.run(network, network.image_embedding, both).chunk(2)
        latents = self._latents.encode_images(picture_latents_input(picture, self.image_size))
        bound = copy.copy(self)
        bound._shown = ShownPicture(tokens, latents, no_tokens, torch.zeros_like(latents), azimuth)
        return bound

    def _append(self, rows: Tensor, last: Tensor) -> Tensor:
        """[G * 4, ...] -> [G * 5, ...] with `last` [1, ...] at the end of each group."""
        groups = rows.unflatten(0, (-1, self.views_per_group))
        return torch.cat([groups, last[None].expand(len(groups), *last.shape)], dim=1).flatten(0, 1)


def turned(camera_to_world: Tensor, azimuth: float) -> Tensor:
    """Cameras [N, 4, 4] that orbited the up axis by `azimuth` degrees."""
    c, s = cos(radians(azimuth)), sin(radians(azimuth))
    rotation = [[c, 0.0, s, 0.0], [0.0, 1.0, 0.0, 0.0], [-s, 0.0, c, 0.0], [0.0, 0.0, 0.0, 1.0]]
    return camera_to_world.new_tensor(rotation) @ camera_to_world
