"""The embedded prior as a `Prior`: a thin adapter over ``backend.toybox.model``.

A pixel-space, multi-view model of 32x32 pictures with alpha. It is told the background, the camera and a caption of the
closed vocabulary; a prompt outside of it is refused with the words that it knows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backend.errors import InputError
from backend.priors.images import resize
from backend.priors.prior import Conditioning, RenderedViews, ViewGroup, epsilon_from_v
from backend.toybox.captions import parse, words
from backend.toybox.model import VIEWS, TextStates, ToyboxModel, camera_features, over_background
from backend.toybox.unet import CHANNELS, IMAGE_SIZE

TOYBOX_FOLDER = Path(__file__).resolve().parent.parent / "toybox" / "weights"


class ToyboxPrior:
    """Four views, 90 degrees apart and at one elevation, at the standard camera (fov 40, distance 3)."""

    image_size = IMAGE_SIZE
    latent_shape = (CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
    latent_range = (-1.0, 1.0)
    views_per_group = VIEWS
    knows_background = True
    recipe_family = "toybox"

    def __init__(self, model: ToyboxModel, name: str = "toybox") -> None:
        self.name, self.model = name, model
        self.alphas_cumprod = model.alphas_cumprod.to(next(model.unet.parameters()).device)

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
    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        """Raises InputError for a prompt, or a negative prompt, that toybox does not understand whole."""
        parse(prompt)
        if negative.strip():
            parse(negative)
        text = self.model.encode([" ".join(words(prompt)), " ".join(words(negative)) if negative.strip() else ""])
        density, parts, colors = self.model.template.volume(text.tokens, text.mask, text.pooled)
        tensors = {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        return Conditioning(prompt, negative, tensors | {"density": density, "parts": parts, "colors": colors})

    def encode_images(self, rendered: RenderedViews, background: Tensor) -> Tensor:
        rgba = torch.cat([rendered.rgb, rendered.alpha], -1).permute(0, 3, 1, 2)
        return over_background(resize(rgba, IMAGE_SIZE), background)

    @torch.no_grad()
    def predict_noise(
        self, noisy: Tensor, t: Tensor, conditioning: Conditioning, cameras: ViewGroup, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        views = len(cameras)
        guess = self.render_template(conditioning, cameras, samples=20)
        guess = over_background(guess, background.repeat(2, 1))
        text = TextStates(*(conditioning.tensors[k].repeat_interleave(views, 0) for k in ("tokens", "mask", "pooled")))
        both = noisy.repeat(2, 1, 1, 1)
        camera = camera_features(cameras.azimuth, cameras.elevation).repeat(2, 1)
        v, _, _ = self.model.predict_v(both, t.expand(2 * views), guess, text, camera, background.repeat(2, 1))
        epsilon = epsilon_from_v(both, v, self.alphas_cumprod[t])
        return epsilon[:views], epsilon[views:]

    def render_template(self, conditioning: Conditioning, cameras: ViewGroup, samples: int) -> Tensor:
        """The prior's own 3D guess for prompt and negative, premultiplied RGBA [2 N, 4, 32, 32]."""
        origins, directions = (x.reshape(1, -1, 3).expand(2, -1, -1) for x in cameras.rays(IMAGE_SIZE, IMAGE_SIZE))
        volume = tuple(conditioning.tensors[key] for key in ("density", "parts", "colors"))
        rgba = self.model.template.march(volume, origins, directions, samples)
        return rgba.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, CHANNELS).permute(0, 3, 1, 2)
