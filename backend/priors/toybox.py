"""The embedded prior as a `Prior`: a thin adapter over ``backend.toybox.model``.

A pixel-space, multi-view model of 32x32 pictures with alpha. It is told the background, the camera and a caption of the
closed vocabulary; a prompt outside of it is refused with the words that it knows. Bound to pictures of the object it needs no
words. Then the conditioning holds the pictures, and only the prompt's own questions are asked with them: the other end of
guidance has neither words nor pictures, as in ImageDream (Wang and Shi 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backend.errors import InputError
from backend.priors.images import resize
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
from backend.priors.reference import cut_out_picture
from backend.toybox.captions import parse, words
from backend.toybox.model import VIEWS, CleanViews, References, TextStates, ToyboxModel, camera_features, over_background
from backend.toybox.unet import CHANNELS, IMAGE_SIZE

TOYBOX_FOLDER = Path(__file__).resolve().parent.parent / "toybox" / "weights"

ROWS = {"text": 0, "plain": 0, "negative": 1, "empty": 2}
"""Where the conditioning holds the text of each question."""

PROMPT = 0
MOST_PICTURES = 4


class ToyboxPrior:
    """Four views, 90 degrees apart and at one elevation, at the standard camera (fov 40, distance 3)."""

    image_size = IMAGE_SIZE
    latent_shape = (CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
    latent_range = (-1.0, 1.0)
    views_per_group = VIEWS
    knows_background = True
    recipe_family = "toybox"
    has_view_prompts = False
    control = "none"

    def __init__(self, model: ToyboxModel, name: str = "toybox") -> None:
        self.name, self.model = name, model
        self.network, self.time_embedding = model.unet, model.unet.time_embedding
        self.alphas_cumprod = model.alphas_cumprod.to(next(model.unet.parameters()).device)
        self._references: References | None = None

    @staticmethod
    def load(folder: Path, device: torch.device | str = "cpu") -> ToyboxPrior:
        """Raises InputError where the folder lacks a part of the model."""
        try:
            model = ToyboxModel.load(folder)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The toybox prior in {folder} cannot be read ({error}). Restore the folder from the project, or train it "
                "anew with: python3 galatea.py train-toybox"
            ) from error
        return ToyboxPrior(model.to(device), "toybox" if folder == TOYBOX_FOLDER else folder.name)

    @torch.no_grad()
    def with_references(self, references: Sequence[ReferenceView]) -> ToyboxPrior:
        """This prior, bound to 1 to 4 pictures of the object; all weights are shared with the prior that was asked.

        The pictures are taken as framed for the standard camera (fov 40, distance 3, the object inside the unit sphere).

        Raises:
            InputError: there are none or too many, one cannot be used, or its angles are no numbers.
        """
        if not 1 <= len(references) <= MOST_PICTURES:
            raise InputError(
                f"The prior {self.name!r} looks at 1 to {MOST_PICTURES} reference pictures and was given {len(references)}. "
                "Choose those that show most of the object."
            )
        for view in references:
            if not (math.isfinite(view.azimuth) and math.isfinite(view.elevation)):
                raise InputError(
                    f"A reference picture's angles are azimuth {view.azimuth} and elevation {view.elevation}; both must be "
                    "finite numbers of degrees. Use 0 and 0 for a picture from the front."
                )
        device = self.alphas_cumprod.device
        pictures = [resize(cut_out_picture(view.image), IMAGE_SIZE).clamp(0, 1) for view in references]
        azimuth, elevation = torch.tensor([[(view.azimuth, view.elevation) for view in references]], device=device).unbind(-1)
        bound = copy.copy(self)
        bound._references = References(torch.stack(pictures, 1).to(device), azimuth, elevation)
        return bound

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        """Rows: the prompt, the negative prompt (empty if there is none), the empty caption.

        Raises InputError for a prompt, or a negative prompt, that toybox does not understand whole; bound to pictures it
        understands the empty prompt too.
        """
        if prompt.strip() or self._references is None:
            parse(prompt)
        if negative.strip():
            parse(negative)
        text = self.model.encode([" ".join(words(said)) if said.strip() else "" for said in (prompt, negative, "")])
        volume, pictures = self.model.guess(text), {}
        if self._references is not None:
            first = TextStates(text.tokens[:1], text.mask[:1], text.pooled[:1])
            told, shown, clean = self.model.look(first, self._references)
            volume = tuple(torch.cat([new, old[1:]]) for new, old in zip(shown, volume))
            text = TextStates(text.tokens, text.mask, torch.cat([told.pooled, text.pooled[1:]]))
            pictures = {"pictures": clean.pictures, "picture_guess": clean.guess, "picture_camera": clean.camera}
        density, parts, colors = volume
        tensors = {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        return Conditioning(prompt, negative, tensors | {"density": density, "parts": parts, "colors": colors} | pictures)

    def encode_images(self, rendered: RenderedViews, background: Tensor) -> Tensor:
        rgba = torch.cat([rendered.rgb, rendered.alpha], -1).permute(0, 3, 1, 2)
        return over_background(resize(rgba, IMAGE_SIZE), background)

    def decode_latents(self, latents: Tensor, background: Tensor) -> Tensor:
        """The colors alone: they stand over the background already."""
        return (latents[:, :3] + 1) / 2

    def predict_noise(
        self,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        views: Views,
        questions: Sequence[Question] = ("text", "negative"),
    ) -> tuple[Tensor, ...]:
        """Raises InputError for Perp-Neg's questions: this prior is told the camera."""
        check_questions(self, questions, tuple(ROWS))
        rows = [ROWS[question] for question in questions]
        if "pictures" not in conditioning.tensors:
            return self._answers(noisy, t, conditioning, views, rows, with_pictures=False)
        # Two calls, for groups of two sizes.
        apart = {
            shown: iter(self._answers(noisy, t, conditioning, views, some, shown))
            for shown in (True, False)
            if (some := [row for row in rows if (row == PROMPT) == shown])
        }
        return tuple(next(apart[row == PROMPT]) for row in rows)

    def _answers(
        self, noisy: Tensor, t: Tensor, conditioning: Conditioning, views: Views, rows: list[int], with_pictures: bool
    ) -> tuple[Tensor, ...]:
        """Epsilon for each of some rows of the conditioning, by one call of the network."""
        count = len(rows)
        background = views.background.repeat(count, 1)
        guess = over_background(self.render_template(conditioning, views.cameras, 20, rows), background)
        text = TextStates(*(conditioning.tensors[k][rows].repeat_interleave(len(views), 0) for k in ("tokens", "mask", "pooled")))
        batch = noisy.repeat(count, 1, 1, 1)
        camera = camera_features(views.cameras.azimuth, views.cameras.elevation).repeat(count, 1)
        clean = None
        if with_pictures:
            clean = (conditioning.tensors[key] for key in ("pictures", "picture_guess", "picture_camera"))
            clean = CleanViews(*(x.expand(len(batch) // VIEWS, *x.shape[1:]) for x in clean))
        v, _, _ = self.model.predict_v(batch, t.expand(len(batch)), guess, text, camera, background, clean)
        return epsilon_from_v(batch, v, alpha_bar_at(self.alphas_cumprod, t)).chunk(count)

    @torch.no_grad()
    def render_template(self, conditioning: Conditioning, cameras: ViewGroup, samples: int, rows: Sequence[int] = (0, 1)) -> Tensor:
        """The prior's own 3D guess for some rows of the conditioning, premultiplied RGBA [rows N, 4, 32, 32]."""
        rows = list(rows)
        origins, directions = (x.reshape(1, -1, 3).expand(len(rows), -1, -1) for x in cameras.rays(IMAGE_SIZE, IMAGE_SIZE))
        volume = tuple(conditioning.tensors[key][rows] for key in ("density", "parts", "colors"))
        rgba = self.model.template.march(volume, origins, directions, samples)
        return rgba.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, CHANNELS).permute(0, 3, 1, 2)
