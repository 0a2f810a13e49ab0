"""One step of score distillation: draw, render, ask the prior, move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.distillation.denoiser import Denoiser, Remembering
from backend.distillation.guidance import Guidance
from backend.distillation.view_gain import view_gain
from backend.errors import InputError
from backend.optimize.control_pictures import control_picture
from backend.optimize.look import Look
from backend.optimize.methods import Shown, distillation_loss, draw, levels
from backend.optimize.objectives import Seen
from backend.optimize.observation import DISTILLATION, Observation, Observer
from backend.optimize.region_prompts import Turn, let_through
from backend.optimize.stages import SHAPE_GROUPS, RunningStage
from backend.optimize.views import draw_cameras, render_side
from backend.priors.images import composite
from backend.priors.prior import Conditioning, Prior, Views
from backend.distillation.numbers import together
from backend.rendering import Rendered, sample_light
from backend.rendering.lighting import Shading
from protocol.settings import FieldStage, GuidanceSettings, Schedule, Stage, ViewGain, value_at


@dataclass(frozen=True)
class StepRecord:
    """What a step looked at and its numbers to plot; the losses are among them. `observation`: if it was asked for."""

    cameras: Cameras
    timestep: float
    numbers: dict[str, float]
    losses: dict[str, float] = field(default_factory=dict)
    observation: Observation | None = None


def distill_step(
    running: RunningStage,
    progress: float,
    strength: float,
    prior: Prior,
    conditioning: Conditioning,
    generator: torch.Generator,
    of_regions: Mapping[str, Conditioning] | None = None,
    observed: bool = False,
) -> StepRecord:
    """Advance the stage by one optimizer step; every random number comes from `generator` (a CPU generator).

    `of_regions` are the conditionings by the words of regions' prompts, empty ones included; for an object that has regions.
    An `observed` step ends in the same bits.
    """
    stage, settings = running.stage, running.stage.guidance
    running.set_schedules(progress, strength)

    turn = running.turn(progress)
    if turn is not None:
        conditioning = of_regions[turn.prompt]
        let_through(turn, running.representation)
    look = _draw_look(running.stage, progress, prior, generator)
    shown, rendered = _show(running, look, prior, progress)
    control = control_picture(prior.control, running.representation, look.cameras, prior.image_size)
    denoiser = Denoiser(prior, conditioning, Views(look.cameras, look.background, control))
    draws = draw(settings, progress, denoiser, shown, generator)
    terms = running.terms(Seen(running.representation, look, rendered, progress, strength, generator, conditioning.prompt))
    penalty = sum(terms.values(), start=torch.zeros((), device=look.background.device))
    running.clear_gradients()
    observer = _observer(running, turn, terms) if observed else None

    training = running.auxiliary
    adapter = None if training is None else training.adapter
    colors = _guidance(settings, settings.scale, settings.gain, progress, look.cameras)
    if settings.geometry_scale is None:
        distillation, numbers = distillation_loss(settings, progress, colors, denoiser, shown, draws, adapter)
        if turn is None:
            (distillation + penalty).backward()
        else:  # what holds the object is no prompt's own
            distillation.backward(retain_graph=penalty.requires_grad)
            let_through(None, running.representation)
            if penalty.requires_grad:
                penalty.backward()
    else:
        # Both ask the same questions about the same noisy latents: the prior answers once.
        remembering = Remembering.of(denoiser)
        shape = _guidance(settings, settings.geometry_scale, settings.geometry_gain, progress, look.cameras)
        distillation, numbers = distillation_loss(settings, progress, colors, remembering, shown, draws, adapter)
        of_shape, _ = distillation_loss(settings, progress, shape, remembering, shown, draws, adapter)
        _backward_apart(running, distillation, of_shape)
        if turn is not None:
            let_through(None, running.representation)
        if penalty.requires_grad:  # not where nothing weighs anything
            penalty.backward()
    told = {name: term.detach() for name, term in terms.items()}
    losses = together({DISTILLATION: distillation.detach(), **told})
    numbers = {**losses, **numbers}
    if observer is not None:
        observer.whole()
    if training is None or not training.warming_up:
        numbers |= running.move()
    observation = None if observer is None else observer.moved(look, rendered)
    if training is not None:
        numbers |= training.train(shown.latents[0], denoiser, generator)
    return StepRecord(look.cameras, float(draws.timesteps[0]) / denoiser.timesteps, numbers, losses, observation)


def _observer(running: RunningStage, turn: Turn | None, terms: Mapping[str, Tensor]) -> Observer:
    """One that knows the gradients of the terms, which no turn of a region weighs."""
    observer = Observer(running)
    if turn is not None:
        let_through(None, running.representation)
    observer.terms_alone(terms)
    if turn is not None:
        let_through(turn, running.representation)
    return observer


def _draw_look(stage: Stage, progress: float, prior: Prior, generator: torch.Generator) -> Look:
    device = prior.alphas_cumprod.device
    cameras = draw_cameras(stage.cameras, progress, prior.views_per_group, generator).to(device)
    light = sample_light(stage.light, cameras, generator)
    shading = _draw_shading(stage, generator)
    background = _draw_background(generator).to(device).expand(len(cameras), 3)
    return Look(cameras, light, shading, background)


def _show(running: RunningStage, look: Look, prior: Prior, progress: float) -> tuple[Shown, Rendered]:
    """The renders of this look, and their latents, at every level that the method asks for; and those of the finest."""
    stage = running.stage
    side = render_side(stage.render_size, progress, prior.image_size)
    renders, latents, pictures = [], [], []
    for level in range(levels(stage.guidance.method)):
        rendered = running.representation.render(look.cameras, max(1, side >> level), look.light, look.shading)
        renders.append(rendered)
        latents.append(prior.encode_images(rendered, look.background))
        pictures.append(composite(rendered, look.background))
    return Shown(tuple(latents), tuple(pictures)), renders[0]


def _guidance(
    settings: GuidanceSettings, scale: Schedule, gain: ViewGain, progress: float, cameras: Cameras
) -> Guidance:
    value: float | Tensor = value_at(scale, progress)
    if gain != ViewGain():
        value = value * view_gain(gain, cameras.azimuth)
    return Guidance(value, settings.rescale, settings.weighting, settings.perp_neg)


def _backward_apart(running: RunningStage, of_colors: Tensor, of_shape: Tensor) -> None:
    """The gradient of one loss on what colors the object, of the other on what shapes it.

    Raises InputError for a radiance field, whose one network does both.
    """
    if isinstance(running.stage, FieldStage):
        raise InputError(
            "guidance.geometry_scale moves shape and colors apart, but the one network of a radiance field makes both; leave it "
            "out of field stages."
        )
    groups = [group for optimizer in running.optimizers for group in optimizer.param_groups]
    shape = [parameter for group in groups if group["name"] in SHAPE_GROUPS for parameter in group["params"]]
    colors = [parameter for group in groups if group["name"] not in SHAPE_GROUPS for parameter in group["params"]]
    if colors:
        of_colors.backward(inputs=colors, retain_graph=True)
    if shape:
        of_shape.backward(inputs=shape, retain_graph=True)


def _draw_shading(stage: Stage, generator: torch.Generator) -> Shading:
    textureless = float(torch.rand((), generator=generator)) < stage.light.textureless
    if stage.shading == "normals":
        return "normal"
    return "textureless" if textureless else "lit"


def _draw_background(generator: torch.Generator) -> Tensor:
    """One color for all views, [3]; gray half of the time."""
    color, gray, coin = torch.rand(3, generator=generator), torch.rand(1, generator=generator), torch.rand(1, generator=generator)
    return torch.where(coin < 0.5, gray.expand(3), color)

