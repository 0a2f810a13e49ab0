"""The settings tree: everything that affects a result, as immutable msgspec structs.

A job is fully described by `JobSettings`: the same tree, seed and thread count give the same mesh on the CPU, bit for
bit. Recipes (``backend/recipes``) only fill this tree; the command line and the extension only change its leaves.
Paths never appear here: an initial mesh travels beside the settings as a buffer. Angles are degrees, lengths are scene
units in which a finished object fits the unit sphere, learning rates are per step.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Prompt = Annotated[str, Meta(min_length=1, max_length=1000)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every node: immutable, and an unknown key is an error instead of being ignored."""


class Constant(Settings, tag="constant"):
    """The same value at every step."""

    value: float


class Linear(Settings, tag="linear"):
    """From `start` to `end` in proportion to the stage's progress."""

    start: float
    end: float


class Sqrt(Settings, tag="sqrt"):
    """From `start` to `end` with the square root of progress (HiFA, Zhu and Zhuang 2023, section 3.3)."""

    start: float
    end: float


Schedule = Constant | Linear | Sqrt


def value_at(schedule: Schedule, progress: float) -> float:
    """The value of `schedule` at `progress` in [0, 1] of its stage."""
    if isinstance(schedule, Constant):
        return schedule.value
    shape = progress if isinstance(schedule, Linear) else progress**0.5
    return schedule.start + (schedule.end - schedule.start) * shape


class CameraSettings(Settings):
    """A group of `views` cameras, evenly spaced in azimuth from a random start, all at one random elevation."""

    views: Annotated[int, Meta(ge=1, le=16)] = 4
    elevation_min: Annotated[float, Meta(ge=-90, le=90)] = -10.0
    elevation_max: Annotated[float, Meta(ge=-90, le=90)] = 45.0
    fov: Annotated[float, Meta(ge=5, le=120)] = 40.0
    distance: Positive = 3.0


class LightSettings(Settings):
    """Lambert shading by one lamp fixed to the camera rig (after DreamFusion, section 3.1, which draws it around its view).

    In camera axes (right, up, toward the camera's back) the lamp lies at (0, `lift`, 1) plus normal noise of `spread`;
    the ambient share is uniform between the two bounds. `textureless` is the share of steps shaded without colors.
    """

    ambient_min: Fraction = 0.45
    ambient_max: Fraction = 0.65
    spread: NonNegative = 0.35
    lift: NonNegative = 0.5
    textureless: Fraction = 0.0


class GuidanceSettings(Settings):
    """How the prior is asked: classifier-free guidance, its rescale, and the timesteps as fractions of the schedule."""

    scale: Schedule = Constant(6.0)
    rescale: Fraction = 0.5
    t_min: Schedule = Constant(0.02)
    t_max: Schedule = Linear(0.98, 0.5)
    weighting: Literal["dreamfusion", "uniform", "fantasia3d", "x0"] = "x0"


class StageSettings(Settings):
    """What every stage has: how long it is, what it looks at and how the prior is asked."""

    steps: Count
    cameras: CameraSettings = CameraSettings()
    light: LightSettings = LightSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    render_size: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Side of the renders in pixels; 0 takes the prior's own. The prior resizes what it is shown."""
    target_vertices: Annotated[int, Meta(ge=50, le=2_000_000)] = 2500
    """Vertices of the mesh that the stage hands on, if it makes a topology of its own."""


class GridStage(StageSettings, tag="grid"):
    """Optimize a coarse density and color grid, then turn its surface into a mesh for the stages that follow."""

    resolution: Annotated[int, Meta(ge=8, le=256)] = 32
    samples_per_ray: Annotated[int, Meta(ge=8, le=512)] = 48
    learning_rate: Schedule = Constant(0.05)
    sharpness: Schedule = Linear(1.0, 3.0)
    """Steepness of the density's activation: raised over the stage, it presses fog into a surface."""
    opacity_entropy: NonNegative = 0.01
    total_variation: NonNegative = 0.01
    sparsity: NonNegative = 0.0


class FieldStage(StageSettings, tag="field"):
    """Optimize a radiance field by ray marching, then turn its surface into a mesh for the stages that follow."""

    encoding: Literal["hash grid", "tri-plane", "mlp"] = "hash grid"
    resolution: Annotated[int, Meta(ge=16, le=4096)] = 128
    """Of the finest level (hash grid) or of the planes; the highest frequency of an MLP's encoding follows from it."""
    samples_per_ray: Annotated[int, Meta(ge=8, le=512)] = 64
    view_dependent: bool = False
    learning_rate: Schedule = Linear(0.03, 0.01)
    opacity_entropy: NonNegative = 0.01
    orientation: NonNegative = 0.01
    distortion: NonNegative = 0.0
    sparsity: NonNegative = 0.0


class TetrahedraStage(StageSettings, tag="tetrahedra"):
    """Optimize signed distances and offsets of a tetrahedral grid through its differentiable surface and the rasterizer."""

    resolution: Annotated[int, Meta(ge=8, le=256)] = 32
    """Cells along an edge of the cube [-1, 1]^3."""
    distance_rate: Schedule = Linear(0.05, 0.01)
    """How far a step can move the surface, in scene units; offsets follow at the same rate."""
    color_rate: Schedule = Linear(0.1, 0.03)
    sign_changes: NonNegative = 0.002
    """Weight of the binary cross entropy between the signs across edges (Shen et al. 2021), against floaters and holes inside."""
    laplacian: NonNegative = 0.03
    supersample: Annotated[int, Meta(ge=1, le=4)] = 2


class MeshStage(StageSettings, tag="mesh"):
    """Optimize vertex positions and colors, or a texture, of a triangle mesh through the rasterizer."""

    position_rate: Schedule = Constant(0.01)
    color_rate: Schedule = Constant(0.02)
    smoothing: NonNegative = 10.0
    """lambda of the large-steps system (I + lambda L) (Nicolet et al. 2021)."""
    laplacian: NonNegative = 1.0
    normal_consistency: NonNegative = 0.0
    slivers: NonNegative = 0.0
    supersample: Annotated[int, Meta(ge=1, le=4)] = 2
    """Renders are made this many times larger and averaged down, as the training pictures of toybox are."""
    remesh_every: Annotated[int, Meta(ge=0)] = 0
    """Steps between remeshings; 0 never remeshes and keeps the artist's topology."""
    texture_size: Annotated[int, Meta(ge=0, le=8192)] = 0
    """Side of the texture in texels; 0 colors vertices. The mesh's own UVs are kept; without usable ones it is unwrapped."""
    texture_rate: Schedule = Constant(0.02)
    silhouettes: Literal["edge-driven", "edge-gradient", "soft"] = "edge-driven"
    """How the gradient finds silhouettes: analytic antialiasing, rasterized edge gradients, or soft rasterization."""


Stage = GridStage | FieldStage | TetrahedraStage | MeshStage


class StartShape(Settings):
    """What a job begins with if it has no stage that makes a shape of its own and no mesh was sent along."""

    kind: Literal["none", "sphere", "cube", "cylinder"] = "none"


class JobSettings(Settings):
    """One job, complete: with the initial mesh, if any, this determines the result."""

    prompt: Prompt
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=16)]
    negative_prompt: Annotated[str, Meta(max_length=1000)] = ""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    prior: Annotated[str, Meta(min_length=1, max_length=4096)] = "toybox"
    recipe: Annotated[str, Meta(min_length=1, max_length=200)] = "generate"
    start: StartShape = StartShape()
    strength: Fraction = 0.5
    """How freely mesh stages move vertices: 0 leaves them where they are bit for bit, 0.5 is the recipe's own pace, 1 twice that."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    """CPU threads of the numerical libraries; part of the tree because sums depend on it."""
    checkpoint_seconds: Positive = 5.0
    preview_seconds: Positive = 2.0
