"""The second network of VSD: the prior itself with low-rank changes of its attention, which learn to denoise the renders.

LoRA (Hu et al. 2022) by PEFT in all attention projections, and the camera, through a small network, added to the time
embedding (ProlificDreamer, Wang et al. 2023, section 5). Prior and adapter share one set of weights: the changes are on only
while the adapter is asked, and every prediction of the prior itself is bit for bit what it was without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.distillation.denoiser import Denoiser
from backend.errors import InputError
from backend.priors.prior import Prior, ViewGroup, add_noise

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
"""How the names of attention projections end in diffusers' models; the added ones belong to joint attention with the text."""

CAMERA_NUMBERS = 16


class LowRankAdapter:
    """A `ParticleScore` that learns. Its weights are float32 whatever the prior runs in, and start without any effect.

    Several objects may share one adapter. A prior holds one at a time; `remove` takes it out and leaves the prior as it was.
    """

    def __init__(self, prior: Prior, rank: int, seed: int) -> None:
        """Puts the adapter into `prior.network`. A seed always gives the same weights; torch's global generators are not touched.

        Raises:
            InputError: the prior has no network, nothing in it can be adapted, or it holds an adapter already.
        """
        if prior.network is None or prior.time_embedding is None:
            raise InputError(
                f"VSD trains an adapter inside the prior's network, but the prior {prior.name!r} has no network. Choose another "
                "method or another prior."
            )
        if hasattr(prior.network, "peft_config"):
            raise InputError(f"The prior {prior.name!r} holds an adapter already. Remove that one first, or load the prior anew.")
        self._prior = prior
        self._learned_before = {name: weight.requires_grad for name, weight in prior.network.named_parameters()}
        generator = torch.Generator().manual_seed(seed)
        self._peft, self._layers = _add_low_rank_layers(prior, rank, generator)
        self._camera_network = _camera_network(_width(prior.time_embedding), generator).to(prior.alphas_cumprod.device)
        self._weights = {f"{name}.down": layer.lora_A["default"].weight for name, layer in self._layers.items()}
        self._weights |= {f"{name}.up": layer.lora_B["default"].weight for name, layer in self._layers.items()}
        self._weights |= {f"camera.{name}": weight for name, weight in self._camera_network.named_parameters()}
        self._camera: Tensor | None = None
        self._hook = prior.time_embedding.register_forward_hook(self._add_camera)
        self._switch(False)

    @torch.no_grad()
    def predict(self, denoiser: Denoiser, noisy: Tensor, t: Tensor) -> Tensor:
        """Epsilon [N, c, h, w] for the prompt without words for the view: the adapter is told the camera itself. No guidance."""
        with self._on(denoiser.views.cameras):
            return self._plain(denoiser, noisy, t)

    def loss(self, latents: Tensor, denoiser: Denoiser, t: Tensor, noise: Tensor, drop_camera: bool) -> Tensor:
        """`mean((epsilon_adapter - noise)^2)` on `latents` [N, c, h, w]: the loss that VSD minimizes beside its gradient.

        On epsilon whatever the prior predicts inside; the same error of v would count 1 / abar times as much. To drop the
        camera in some of the steps (as sixteen zeros) lets all views teach what they have in common.

        Its gradient reaches `parameters()` alone. It is computed at once and only handed over by `backward`: by then the
        adapter is off, and a network with gradient checkpointing would run anew without it. Elements that are not finite count
        as zero, as in `as_loss`.
        """
        noisy = add_noise(latents.detach(), noise, denoiser.alpha_bar(t))
        # As in the scaling of losses for half precision (Micikevicius et al. 2018): the gradient of a mean over so many elements
        # would vanish in float16. A power of two changes no bit otherwise.
        scale = 2.0 ** round(math.log2(latents.numel()))
        with torch.enable_grad(), self._on(denoiser.views.cameras, drop_camera):
            value = (self._plain(denoiser, noisy, t) - noise).square().mean()
            scaled = torch.autograd.grad(value * scale, self.parameters(), allow_unused=True, materialize_grads=True)
            gradients = [torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0) / scale for gradient in scaled]
            return _WithGradients.apply(value.detach(), gradients, *self.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """What is to be trained, always in this order."""
        return list(self._weights.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the adapter's own weights; nothing of the prior."""
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises InputError if `state` is that of an adapter of another rank or of another prior."""
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        if shapes != {name: tuple(weight.shape) for name, weight in self._weights.items()}:
            raise InputError(
                f"The saved adapter does not fit the one of {self._prior.name!r}: it is of another rank or of another prior. "
                "Continue the job with the settings and the prior that it began with."
            )
        for name, weight in self._weights.items():
            weight.copy_(state[name])

    def remove(self) -> None:
        """Take the adapter out; the prior is what it was before, and the adapter can no longer be used."""
        self._hook.remove()
        self._peft.unload()
        for name, weight in self._prior.network.named_parameters():
            weight.requires_grad_(self._learned_before[name])

    def _plain(self, denoiser: Denoiser, noisy: Tensor, t: Tensor) -> Tensor:
        # Past the denoiser, which may remember what the prior itself answered to the same question.
        return self._prior.predict_noise(noisy, t, denoiser.conditioning, denoiser.views, ("plain",))[0]

    @contextmanager
    def _on(self, cameras: ViewGroup, drop_camera: bool = False) -> Iterator[None]:
        """The network is the adapted one, and is told `cameras`."""
        features = camera_numbers(cameras).to(self._prior.alphas_cumprod.device)
        self._camera = torch.zeros_like(features) if drop_camera else features
        self._switch(True)
        try:
            yield
        finally:
            self._switch(False)
            self._camera = None

    def _switch(self, on: bool) -> None:
        for layer in self._layers.values():
            layer.enable_adapters(on)
        for weight in self._weights.values():
            weight.requires_grad_(True)  # PEFT freezes what is switched off, and `backward` would then pass it by

    def _add_camera(self, module: nn.Module, inputs: Any, embedding: Tensor) -> Tensor | None:
        """Forward hook of the time embedding: the embedding [B, d] and the camera's, or None where the adapter is off."""
        if self._camera is None:
            return None
        camera = rows_for_batch(self._camera_network(self._camera), len(embedding), self._prior.views_per_group)
        return embedding + camera.to(embedding.dtype)


class _WithGradients(torch.autograd.Function):
    """A value whose gradient on the parameters is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(factor * gradient for gradient in ctx.gradients)


def camera_numbers(cameras: ViewGroup) -> Tensor:
    """[N, 16]: camera-to-world with its translation brought to unit length, flattened (as MVDream is told its cameras)."""
    matrices = cameras.camera_to_world().clone()
    matrices[:, :3, 3] = F.normalize(matrices[:, :3, 3], dim=1)
    return matrices.flatten(1)


def rows_for_batch(camera: Tensor, batch: int, views_per_group: int) -> Tensor:
    """The rows [B, d] for a batch of the network made from `camera` [N, d]; the adapter asks one question at a time.

    A group may hold more images than views, as in ImageDream (Wang and Shi 2023), whose groups end with the reference picture:
    those are no views and get zeros.
    """
    groups = len(camera) // views_per_group
    extra = batch // groups - views_per_group
    return F.pad(camera.unflatten(0, (groups, views_per_group)), (0, 0, 0, extra)).flatten(0, 1)


def _add_low_rank_layers(prior: Prior, rank: int, generator: torch.Generator) -> tuple[Any, dict[str, Any]]:
    """PEFT's model around the network, and its layers by name; drawn as in ProlificDreamer's code: N(0, 1/rank^2) down, 0 up."""
    # Importing PEFT takes as long as importing torch, and only this method needs it.
    from peft import LoraConfig, LoraModel
    from peft.tuners.lora import LoraLayer

    with torch.random.fork_rng(devices=[]):
        try:
            peft = LoraModel(prior.network, LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS), "default")
        except ValueError as error:
            raise InputError(
                f"VSD adapts attention, and the network of the prior {prior.name!r} has none that it knows ({error}). Choose "
                "another method or another prior."
            ) from error
    layers = {name: module for name, module in prior.network.named_modules() if isinstance(module, LoraLayer)}
    for layer in layers.values():
        # Where the prior works, which is not where an offloaded network lies.
        down, up = (part["default"].to(prior.alphas_cumprod.device, torch.float32) for part in (layer.lora_A, layer.lora_B))
        down.weight.data.copy_(torch.randn(down.weight.shape, generator=generator) / rank)
        nn.init.zeros_(up.weight)
    return peft, layers


def _camera_network(width: int, generator: torch.Generator) -> nn.Sequential:
    """16 camera numbers -> [d], zero at the start."""
    first = nn.utils.skip_init(nn.Linear, CAMERA_NUMBERS, width)
    last = nn.utils.skip_init(nn.Linear, width, width)
    bound = CAMERA_NUMBERS**-0.5
    for weight in first.parameters():
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    for weight in last.parameters():
        nn.init.zeros_(weight)
    return nn.Sequential(first, nn.SiLU(), last)


def _width(time_embedding: nn.Module) -> int:
    """The width of what a time embedding gives: that of its last linear layer."""
    return [layer for layer in time_embedding.modules() if isinstance(layer, nn.Linear)][-1].out_features
