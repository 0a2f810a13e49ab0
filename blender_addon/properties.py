"""What the panel's fields hold.

They live on the window manager, not in the scene: typing a prompt must not be a step that undo takes back, nor stand
between an accepted result and the object as it was before. Only regions belong to their object, as its vertex groups do,
and are saved and undone with it.
"""

from __future__ import annotations

import time

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty
from bpy.types import Context, PropertyGroup

from .live_job import LiveJob
from .session import current
from .timer import wake

PROMPT_LENGTH = 1000
STRENGTH = (
    "How far a refined mesh may change: 0 leaves it as it is, up to 0.2 only its colors change, above that its shape too, "
    "held to how it was less and less, and at 1 it is free"
)

_prior_items: list[tuple[str, str, str]] = []
"""Blender keeps no reference to the strings of a dynamic enum; without one they are freed while they are shown."""


def prior_items(_settings: GalateaSettings, _context: Context | None) -> list[tuple[str, str, str]]:
    global _prior_items
    welcome = current().welcome
    names = welcome.priors if welcome and welcome.priors else ("toybox",)
    items = [(name, name, "What judges how well the object fits the words") for name in names]
    if items != _prior_items:
        _prior_items = items
    return _prior_items


def strength_moved(controls: JobControls, _context: Context) -> None:
    live = current().jobs.get(controls.name)
    if live is not None:
        live.want_strength(controls.strength, time.monotonic())
        wake()


class GalateaPicture(PropertyGroup):
    """A picture of what is to be made; images are remembered by name, which outlives undo and loading a file."""

    image: StringProperty(name="Picture", description="An image of this file that shows the object")
    azimuth: FloatProperty(
        name="Azimuth",
        description="From where it shows the object, in degrees: 0 its front, 90 its left side (+X), 180 its back",
        min=-360.0,
        max=360.0,
        step=1500,
        precision=0,
    )
    elevation: FloatProperty(
        name="Elevation",
        description="How far from above it shows the object, in degrees: 0 level with it, 90 from straight above",
        min=-90.0,
        max=90.0,
        step=1500,
        precision=0,
    )


class GalateaRegion(PropertyGroup):
    """A part of an object that Refine may change."""

    group: StringProperty(
        name="Vertex Group", description="Its weights say how far each vertex may change; what has none stays as it is"
    )
    prompt: StringProperty(
        name="Prompt", description="What this part is to become; empty takes the prompt above", maxlen=PROMPT_LENGTH
    )


class JobControls(PropertyGroup):
    """The fields in one job's box; `name` is the job's id."""

    diagnosis: BoolProperty(name="Diagnosis", description="Show what the job tells about itself", default=False)

    prompt: StringProperty(name="Prompt", description="What this job works toward", maxlen=PROMPT_LENGTH)
    negative_prompt: StringProperty(name="Negative", description="What this job works away from", maxlen=PROMPT_LENGTH)
    strength: FloatProperty(
        name="Strength",
        description=f"{STRENGTH}. Takes effect when the slider rests",
        min=0.0,
        max=1.0,
        default=0.5,
        subtype="FACTOR",
        update=strength_moved,
    )


class GalateaSettings(PropertyGroup):
    """The fields for the next job."""

    prompt: StringProperty(
        name="Prompt", description="What to make, for example: a red mushroom with a white stem", maxlen=PROMPT_LENGTH
    )
    negative_prompt: StringProperty(name="Negative", description="What to stay away from", maxlen=PROMPT_LENGTH)
    seed: IntProperty(name="Seed", description="The same seed makes the same object again", min=0, default=0)
    steps: IntProperty(
        name="Steps", description="Optimization steps in all; 0 takes as many as the recipe has", min=0, max=1_000_000, default=0
    )
    strength: FloatProperty(
        name="Strength",
        description=STRENGTH,
        min=0.0,
        max=1.0,
        default=0.5,
        subtype="FACTOR",
    )
    prior: EnumProperty(name="Prior", description="The model that knows what things look like", items=prior_items)
    pictures: CollectionProperty(type=GalateaPicture)
    jobs: CollectionProperty(type=JobControls)


CLASSES = (GalateaPicture, GalateaRegion, JobControls, GalateaSettings)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.WindowManager.galatea = PointerProperty(type=GalateaSettings)
    # A collection of its own: Blender 4 writes a group of properties to every object whose group is only read.
    bpy.types.Object.galatea_regions = CollectionProperty(type=GalateaRegion)


def unregister() -> None:
    del bpy.types.WindowManager.galatea, bpy.types.Object.galatea_regions
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)


def match_controls(jobs: list[LiveJob]) -> None:
    """Every job has its fields, and no other; what the artist typed into them stays. Not to be called while drawing."""
    for manager in bpy.data.window_managers:
        controls = manager.galatea.jobs
        for index in reversed(range(len(controls))):
            if all(live.job != controls[index].name for live in jobs):
                controls.remove(index)
        for live in jobs:
            fields = controls.get(live.job)
            if fields is None:
                fields = controls.add()
                fields.name = live.job
                fields.strength = live.strength
            if live.prompt and not fields.prompt:
                fields.prompt, fields.negative_prompt = live.prompt, live.negative_prompt
