"""What a person should know about a job: each check is a cause by name and a sentence that says what to do.

The thresholds are such that the shipped recipes are silent; docs/diagnostics.md has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from backend.cameras.orbit import NEAR_PER_DISTANCE
from backend.optimize.janus import ViewReading
from backend.optimize.observation import DISTILLATION, Observation
from backend.optimize.uniformity import ViewCounts
from backend.priors.prior import Prior
from protocol.schedules import largest
from protocol.settings import JobSettings, MeshStage, Stage, value_at

Told = tuple[str, str]
"""A cause, told once a job, and the sentence for it."""

NEAR = 1.5 * NEAR_PER_DISTANCE
"""A surface nearer than this (in distances of the camera) is cut by the near plane, or about to be."""

HOT_AT_END = 0.75
CAREFUL_STRENGTH = 0.5
LARGEST_TEMPERATURE_AT_END = 0.1

RENDER_PIXELS = 4
"""Pixels of a render for each of the prior's, across."""

TEXELS = 8
"""Texels for each of the prior's pixels, across. A sphere that fills the frame has the surface of pi frames."""

EDGES = 16
"""Edges of the mesh for each of the prior's pixels."""

LARGEST_UPDATE = 0.25
"""RMS of a step's move in lengths of an edge."""

DOMINATES = 0.95
IN_A_ROW = 3

SATURATED = 0.5
ROSE_BY = 0.3

UNEVEN = 1e-3
HARDLY = 0.25
"""Of a slice's fair share of the views."""


def of_settings(settings: JobSettings, refines: bool, prior: Prior) -> Iterator[Told]:
    """What can be known before the first step. `refines`: the job began with a mesh of the user's."""
    words, negative = (" ".join(text.lower().split()) for text in (settings.prompt, settings.negative_prompt))
    if words and words == negative:
        yield "prompt", "The prompt and the negative prompt are the same, so that the guidance has no direction; change one of them."
    for number, stage in enumerate(settings.stages, 1):
        yield from _of_heat(settings, number, stage, refines)
        yield from _of_size(number, stage, prior)


def _of_heat(settings: JobSettings, number: int, stage: Stage, refines: bool) -> Iterator[Told]:
    end = value_at(stage.guidance.t_max, 1.0)
    moves = not isinstance(stage, MeshStage) or stage.learns != "material"
    if refines and moves and settings.strength < CAREFUL_STRENGTH and end > HOT_AT_END:
        yield "hot", (
            f"Stage {number} refines your mesh at strength {settings.strength:g}, but ends with timesteps up to {end:g}, at which the "
            f"prior thinks of whole shapes and not of details; let guidance.t_max fall to 0.5 or less, or raise the strength."
        )
    temperature = value_at(stage.guidance.temperature, 1.0)
    if temperature > LARGEST_TEMPERATURE_AT_END:
        yield "temperature", (
            f"Stage {number} ends with a temperature of {temperature:g}: the noise that helps out of poor starts stays in the result; "
            "let guidance.temperature fall to 0."
        )


def _of_size(number: int, stage: Stage, prior: Prior) -> Iterator[Told]:
    own = prior.image_size
    side = largest(stage.render_size)
    if side > RENDER_PIXELS * own:
        yield "render size", (
            f"Stage {number} renders {side:g} pixels, but the prior sees {own}: it is shown them averaged down; a render_size of "
            f"{2 * own} shows it as much in less time."
        )
    texels = getattr(stage, "texture_size", 0)
    if texels > TEXELS * own * math.sqrt(math.pi):
        yield "texture size", (
            f"Stage {number} has a texture of {texels} texels, {texels / (own * math.sqrt(math.pi)):.0f} across for each pixel that the "
            f"prior sees: it can ask for nothing so fine; a texture of {_power_below(TEXELS * own)} holds all that it can."
        )


def of_step(numbers: Mapping[str, float], stage: Stage) -> Iterator[Told]:
    """What a step's numbers show, in every step."""
    pulls = [value for name, value in numbers.items() if name.startswith("gradient_") and name != "gradient_rms"]
    if numbers.get("non_finite", 0.0) > 0.0 or not all(map(math.isfinite, pulls)):
        yield "not finite", (
            "Numbers of the gradient are not finite; where the prior gave them they are left out. Load it with more precision "
            "(--dtype float32 or bfloat16), or lower the guidance scale and the learning rates."
        )


def of_observation(seen: Observation, stage: Stage, prior: Prior) -> Iterator[Told]:
    """What one sampled step shows."""
    if seen.inside or seen.nearest < NEAR:
        yield "camera", (
            "A camera stands inside the object or cuts it with its near plane: raise cameras.distance, or scale the mesh into the "
            "unit sphere around the origin."
        )
    if seen.update_edges is not None and seen.update_edges > LARGEST_UPDATE:
        yield "large updates", (
            f"A step moves vertices by {seen.update_edges:.2g} lengths of an edge, which folds triangles over; lower the position rate, "
            "raise the smoothing, or use a coarser mesh."
        )
    pixel = 2 * stage.cameras.distance * math.tan(math.radians(stage.cameras.fov / 2)) / prior.image_size
    if seen.edge is not None and 0 < seen.edge * EDGES < pixel:
        yield "fine mesh", (
            f"The mesh has {pixel / seen.edge:.0f} edges across each pixel that the prior sees: it cannot shape anything so fine. Refine "
            "a coarser copy, or look closer with a smaller cameras.fov."
        )


def of_row(rows: Mapping[str, int], share: float, dominating: str) -> Iterator[Told]:
    """What several observations in a row show: `rows` counts them by cause."""
    if rows.get("dominates", 0) >= IN_A_ROW:
        yield f"dominates {dominating}", (
            f"The loss {dominating.replace('_', ' ')} makes {share:.0%} of the gradient, and the prompt has next to no say; lower its "
            "weight."
        )
    if rows.get("no gradient", 0) >= IN_A_ROW:
        yield "no gradient", (
            "Nothing pulls at the object: no view sees it, or nothing that is seen may change. Look at where the cameras stand, and at "
            "the mask of the region."
        )


def of_saturation(first: float, now: float) -> Iterator[Told]:
    """Of the stage's first observation, and of the last one."""
    if now > SATURATED and now > first + ROSE_BY:
        yield "saturation", (
            f"{now:.0%} of the object's pixels have a color at its limit, {first:.0%} when the stage began; lower the guidance scale, "
            "raise guidance.rescale, or give a negative prompt such as oversaturated."
        )


def of_views(views: ViewCounts) -> Iterator[Told]:
    """When the last stage has ended."""
    fair = float(views.counts.mean())
    missing = [30 * index for index, count in enumerate(views.counts) if count < HARDLY * fair]
    if missing and views.uniformity() < UNEVEN:
        yield "views", (
            f"Views from {_ranges(missing)} are rare or missing, so that what is there stays undecided; let cameras.spread end "
            "at 360, or make the job longer."
        )


def of_reading(reading: ViewReading) -> Iterator[Told]:
    """What the prior reads in views from all sides, at the end of the last stage."""
    if reading.turned is not None:
        yield "turned", (
            f"The prior takes the object to be turned by {reading.turned:.0f} degrees: its front does not face +z. Turn the start "
            "mesh, or try another seed."
        )
    elif reading.janus is not None and (reading.janus >= 0.5 or sum(read == 0.0 for _, read in reading.views) > 1):
        yield "janus", (
            f"The object may have two fronts: the prior reads {reading.janus:.0%} of the sides as another one. Try another seed, more "
            "views a step, or a higher t_max at the beginning."
        )


def dominating(shares: Mapping[str, float]) -> str | None:
    """The loss beside the distillation that makes nearly all of the gradient, if one does."""
    return next((name for name, share in shares.items() if name != DISTILLATION and share > DOMINATES), None)


def _ranges(starts: list[int]) -> str:
    """"90 to 150 and 240 to 270 degrees" from the starts of slices of 30 degrees, in order."""
    spans: list[list[int]] = []
    for start in starts:
        if spans and spans[-1][1] == start:
            spans[-1][1] = start + 30
        else:
            spans.append([start, start + 30])
    said = [f"{low} to {high}" for low, high in spans]
    return f"{', '.join(said[:-1])} and {said[-1]} degrees" if len(said) > 1 else f"{said[0]} degrees"


def _power_below(number: float) -> int:
    return 2 ** math.floor(math.log2(number))
