"""Score distillation sampling (DreamFusion, Poole et al. 2023), for one view or for a group of views that agree.

Multi-view SDS (MVDream, Shi et al. 2023) is the same function: the prior looks at its views together, all of them
noised to the same t with independent noise. It is a pure function: draws are made by the caller, nothing is kept.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from backend.distillation.gradient import Gradient
from backend.distillation.guidance import Guidance, guide, rescale
from backend.errors import InputError
from backend.priors.prior import Conditioning, Prior, ViewGroup, add_noise, epsilon_from_x0, x0_from_epsilon


def noise_weight(weighting: Literal["dreamfusion", "uniform", "fantasia3d"], alpha_bar: Tensor) -> Tensor:
    """w(t) of the gradient `w(t) (epsilon_hat - epsilon)`, as [].

    - "dreamfusion": `1 - abar` = sigma^2 (Poole et al. 2023, section 3.2 and published code).
    - "uniform": 1.
    - "fantasia3d": `sqrt(abar) (1 - abar)` (Chen et al. 2023, section 3.3), which also quiets the high-noise steps.
    """
    if weighting == "dreamfusion":
        return 1 - alpha_bar
    if weighting == "uniform":
        return torch.ones_like(alpha_bar)
    return alpha_bar.sqrt() * (1 - alpha_bar)


@torch.no_grad()
def sds(
    latents: Tensor,
    prior: Prior,
    t: Tensor,
    noise: Tensor,
    conditioning: Conditioning,
    cameras: ViewGroup,
    background: Tensor,
    guidance: Guidance,
) -> Gradient:
    """The gradient of score distillation on `latents` [N, c, h, w] at timestep `t` ([] int64) with `noise` [N, c, h, w].

    `w(t) (epsilon_hat - epsilon)` with epsilon_hat guided and rescaled; with weighting "x0" it is `x - x0_hat` (MVDream,
    section 3.3), which equals `w(t) = sigma / alpha`, except that x0_hat is clamped to the range that latents can have
    (pixel-space priors only). N is a multiple of the prior's `views_per_group`. No gradient flows through the prior: DreamFusion drops its Jacobian (section 3.2).

    Numbers: `gradient_rms` of the value; `x0_error`, the RMS of `x - x0_hat`; `noise_error`, the RMS of
    `epsilon_text - epsilon`; `guidance_ratio`, the RMS of `epsilon_text - epsilon_unconditional` over `noise_error`;
    `contrast`, std(x0_hat) over std(x0_hat of the text alone); `saturation`, the share of x0_hat outside the latent
    range before it is clamped (pixel-space priors only); `non_finite`, the share of elements that are not finite.

    Raises:
        InputError: the number of views is not a multiple of what the prior looks at together.
    """
    if len(latents) % prior.views_per_group:
        raise InputError(
            f"The prior {prior.name!r} looks at {prior.views_per_group} views at a time, but a step renders "
            f"{len(latents)}. Set the stage's cameras.views to a multiple of {prior.views_per_group}."
        )
    latents = latents.detach()
    alpha_bar = prior.alphas_cumprod[t]
    noisy = add_noise(latents, noise, alpha_bar)
    text, unconditional = prior.predict_noise(noisy, t, conditioning, cameras, background)

    text_x0 = x0_from_epsilon(noisy, text, alpha_bar)
    guided_x0 = x0_from_epsilon(noisy, guide(text, unconditional, guidance.scale), alpha_bar)
    x0 = rescale(text_x0, guided_x0, guidance.rescale, prior.views_per_group)

    if guidance.weighting == "x0":
        value = latents - (x0 if prior.latent_range is None else x0.clamp(*prior.latent_range))
    else:
        value = noise_weight(guidance.weighting, alpha_bar) * (epsilon_from_x0(noisy, x0, alpha_bar) - noise)

    noise_error = _rms(text - noise)
    numbers = {
        "gradient_rms": _rms(value),
        "x0_error": _rms(latents - x0),
        "noise_error": noise_error,
        "guidance_ratio": _rms(text - unconditional) / noise_error.clamp_min(1e-8),
        "contrast": x0.std() / text_x0.std().clamp_min(1e-8),
        "non_finite": 1 - value.isfinite().float().mean(),
    }
    if prior.latent_range is not None:
        low, high = prior.latent_range
        numbers["saturation"] = ((x0 < low) | (x0 > high)).float().mean()
    # One transfer for all of them: on a GPU each .item() would wait for the queue of its own.
    values = torch.stack(list(numbers.values())).tolist()
    return Gradient(value, dict(zip(numbers, values, strict=True)))


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()
