"""What every diffusion prior offers to score distillation, and the arithmetic of noise that all of them share.

A prior lives in its own latent space (for pixel-space models the latents are the images) and speaks one language to
the outside whatever it predicts inside: the noise epsilon of a variance-preserving process,

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) epsilon        (Ho et al. 2020, eq. 4),

with `alpha = sqrt(abar_t)` and `sigma = sqrt(1 - abar_t)`. The adapters below turn the other parametrizations into it.
`t` is a single integer tensor of shape [] wherever it appears: one timestep for the whole group of views, as MVDream
(Shi et al. 2023) needs; the noise is independent for each view.

This room imports neither cameras nor rendering: it says here which of their attributes it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from backend.errors import InputError

Question = Literal["text", "plain", "negative", "empty", "between", "front", "side"]
"""What a prior can be asked with; each names a text that its conditioning holds.

- "text": the prompt, with the words for the view where the prior is not told the camera in another way.
- "plain": the prompt without words for the view (VSD's adapter is told the camera instead).
- "negative": the negative prompt, or the empty text where there is none: the other end of classifier-free guidance.
- "empty": the empty text.
- "between": the prompt between the two view prompts on both sides of the camera's azimuth, for Perp-Neg (Armandpour et al. 2023).
- "front", "side": the prompt with the words for the front and for the side, whatever the camera: what Perp-Neg turns away from.
  These three are known only to priors with `has_view_prompts`.
"""


class ViewGroup(Protocol):
    """The part of `backend.cameras.Cameras` that priors read: N views, angles in degrees, all tensors [N]."""

    azimuth: Tensor
    elevation: Tensor
    distance: Tensor
    fov: Tensor

    def __len__(self) -> int: ...

    def camera_to_world(self) -> Tensor:
        """[N, 4, 4], OpenGL cameras."""
        ...


class RenderedViews(Protocol):
    """The part of `backend.rendering`'s `Rendered` that priors read: premultiplied color and coverage in [0, 1]."""

    rgb: Tensor  # [N, H, W, 3]
    alpha: Tensor  # [N, H, W, 1]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """A prompt and its negative as one prior understands them; opaque to everybody else.

    `tensors` are named by the prior that made them. They are never written to, so one conditioning serves a whole job.
    """

    prompt: str
    negative: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Views:
    """What was rendered, beside the pictures themselves: cameras, `background` [N, 3] in [0, 1], and for a ControlNet
    the `control` picture [N, 3, H, W] in [0, 1]."""

    cameras: ViewGroup
    background: Tensor
    control: Tensor | None = None

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True, eq=False)
class ReferenceView:
    """A picture of the object: `image` [H, W, 4], straight RGBA in [0, 1], and from where it was taken (degrees)."""

    image: Tensor
    azimuth: float = 0.0
    elevation: float = 0.0


@runtime_checkable
class PictureConditioned(Protocol):
    """A prior that can be shown pictures of the object beside the text."""

    def with_references(self, references: Sequence[ReferenceView]) -> Prior:
        """This prior, bound to `references` (at least one); all weights are shared with the prior that was asked.

        Raises:
            InputError: a picture cannot be used, or there are more of them than the model can look at.
        """
        ...


class Prior(Protocol):
    """A pretrained diffusion model that tells how plausible noisy views of an object are.

    Attributes:
        name: for people and reports.
        image_size: side in pixels of the square images that `encode_images` wants to be given.
        latent_shape: (c, h, w) of one view's latents.
        latent_range: (lowest, highest) value a latent can have in a pixel-space prior, None where it is unbounded.
        alphas_cumprod: [T] abar of each timestep, decreasing, strictly between 0 and 1, on the prior's device.
        views_per_group: how many views one prediction must hold; 1 if views are independent of one another, 4 for a
            prior that lets four views, 90 degrees apart, attend to one another.
        knows_background: True if the prior is told the background color; False if it only sees it in the image.
        recipe_family: which family of presets suits this prior where the user names no recipe.
        has_view_prompts: True if it is told the view in words, so that Perp-Neg can be asked.
        control: what `Views.control` must show, "none" for priors without a ControlNet.
        network: the module that predicts, for VSD's low-rank adapter; None if there is none.
        time_embedding: the module in `network` whose output [B, d] the adapter adds its camera to; None like it.
    """

    name: str
    image_size: int
    latent_shape: tuple[int, int, int]
    latent_range: tuple[float, float] | None
    alphas_cumprod: Tensor
    views_per_group: int
    knows_background: bool
    recipe_family: str
    has_view_prompts: bool
    control: Literal["none", "depth", "normal"]
    network: torch.nn.Module | None
    time_embedding: torch.nn.Module | None

    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        """The conditioning of `prompt` against `negative` (empty: the plain unconditional prediction).

        Raises:
            InputError: the prior does not know a word, and says which and what it does know.
        """
        ...

    def encode_images(self, rendered: RenderedViews, background: Tensor) -> Tensor:
        """Latents [N, c, h, w] of `rendered` over `background` ([N, 3] in [0, 1]); differentiable in `rendered`."""
        ...

    def decode_latents(self, latents: Tensor, background: Tensor) -> Tensor:
        """The pictures [N, 3, S, S], in about [0, 1], that `latents` stand for; S is `image_size`. Differentiable."""
        ...

    def predict_noise(
        self,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        views: Views,
        questions: Sequence[Question] = ("text", "negative"),
    ) -> tuple[Tensor, ...]:
        """Epsilon for each of `questions`, float32, each of the shape of `noisy` [N, c, h, w]; `t` is [] int64.

        The predictions are plain, computed in one batch: guidance is applied by the caller. Autograd follows unless the
        caller switches it off.

        Raises:
            InputError: a question that this prior cannot be asked.
        """
        ...


def check_questions(prior: Prior, questions: Sequence[Question], known: Sequence[Question]) -> None:
    """Raises InputError if one of `questions` is not among the `known` ones of `prior`."""
    for question in questions:
        if question not in known:
            raise InputError(
                f"The prior {prior.name!r} cannot be asked {question!r}; it knows {', '.join(known)}. Perp-Neg needs a prior that "
                "is told the view in words: switch guidance.perp_neg off."
            )


def alpha_bar_at(alphas_cumprod: Tensor, t: Tensor) -> Tensor:
    """abar of timestep `t` ([] int64), []; a plain index would fetch t from a GPU and wait for all that is under way there."""
    return alphas_cumprod.index_select(0, t.reshape(1).to(alphas_cumprod.device)).squeeze(0)


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(abar) x + sqrt(1 - abar) epsilon (Ho et al. 2020, eq. 4)."""
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def x0_from_epsilon(noisy: Tensor, epsilon: Tensor, alpha_bar: Tensor) -> Tensor:
    """x0_hat = (x_t - sigma epsilon) / alpha (Ho et al. 2020, eq. 15)."""
    return (noisy - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()


def epsilon_from_x0(noisy: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """epsilon = (x_t - alpha x0) / sigma, the inverse of `x0_from_epsilon`."""
    return (noisy - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def epsilon_from_v(noisy: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """epsilon = alpha v + sigma x_t, since v = alpha epsilon - sigma x (Salimans and Ho 2022, appendix D)."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * noisy


def flow_time(alpha_bar: Tensor) -> Tensor:
    """s = sigma / (alpha + sigma): the time of the straight path y_s = (1 - s) x + s epsilon at equal noise.

    x_t and y_s differ by a factor alone, y_s = x_t / (alpha + sigma), so a flow model serves a variance-preserving
    process exactly: ask it at (x_t / (alpha + sigma), s) and hand the answer to `epsilon_from_flow`.
    """
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return sigma / (alpha + sigma)


def epsilon_from_flow(noisy: Tensor, velocity: Tensor, alpha_bar: Tensor) -> Tensor:
    """epsilon = (x_t + alpha u) / (alpha + sigma) for a velocity u = epsilon - x (Lipman et al. 2023; Esser et al. 2024).

    `noisy` is the variance-preserving x_t, not the rescaled y_s of `flow_time` that the model was asked at.
    """
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return (noisy + alpha * velocity) / (alpha + sigma)
