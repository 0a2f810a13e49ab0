"""The settings tree: everything that affects a result, as immutable msgspec structs.

A job is fully described by `JobSettings`: the same tree, seed and thread count give the same mesh on the CPU, bit for
bit. Recipes (``backend/recipes``) only fill this tree; the command line and the extension only change its leaves.
Paths never appear here: an initial mesh travels beside the settings as a buffer. Angles are degrees, lengths are scene
units in which a finished object fits the unit sphere, learning rates are per step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .losses import AnchorSettings, FeatureSettings, LossSettings, ReferenceSettings, RegionSettings
from .methods import (
    Csd,
    Ism,
    Method,
    MultiscaleSds,
    MultiviewSds,
    Nfsd,
    Reconstruction,
    Sdi,
    Sds,
    Vsd,
    Weighting,
)
from .schedules import (
    Constant,
    Count,
    Fraction,
    Linear,
    NonNegative,
    Positive,
    Prompt,
    Schedule,
    Settings,
    Sqrt,
    StepList,
    Weight,
    largest,
    value_at,
)

class CameraSettings(Settings):
    """A group of `views` cameras at one random elevation.

    Laid out as a "ring" they are evenly spaced in azimuth from a random start, as multi-view priors need it. "scattered"
    they lie in equal slices of azimuth, each at random within its slice and at an elevation, fov and distance of its own.
    """

    views: Annotated[int, Meta(ge=1, le=16)] | Schedule = 4
    """Rounded to a multiple of what the prior looks at together."""
    layout: Literal["ring", "scattered"] = "ring"
    elevation_min: Annotated[float, Meta(ge=-90, le=90)] = -10.0
    elevation_max: Annotated[float, Meta(ge=-90, le=90)] = 45.0
    fov: Annotated[float, Meta(ge=5, le=120)] = 40.0
    distance: Positive = 3.0
    spread: Schedule = Constant(360.0)
    """Degrees of azimuth around the front that scattered views fill: from 90 to 360 is front first, then all around."""
    fov_range: NonNegative = 0.0
    """Scattered views draw their fov from fov -/+ half of this; the distance follows, so that the object keeps its size."""
    distance_range: NonNegative = 0.0
    jitter: NonNegative = 0.0
    """Deviation of where scattered cameras look at, in scene units."""


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


class ViewGain(Settings):
    """Factors of the guidance scale for views of the front, the sides and the back, smooth in azimuth between them."""

    front: NonNegative = 1.0
    side: NonNegative = 1.0
    back: NonNegative = 1.0


class GuidanceSettings(Settings):
    """How the prior is asked: the method, classifier-free guidance with its rescale, and timesteps as fractions of the schedule."""

    method: Method = Sds()
    scale: Schedule = Constant(6.0)
    gain: ViewGain = ViewGain()
    geometry_scale: Schedule | None = None
    """The guidance scale that moves the shape, if it is another than the one that colors it."""
    geometry_gain: ViewGain = ViewGain()
    rescale: Fraction = 0.5
    perp_neg: bool = False
    """Perp-Neg (Armandpour et al. 2023) against several fronts, with priors that are told the view in words."""
    t_min: Schedule = Constant(0.02)
    t_max: Schedule = Linear(0.98, 0.5)
    weighting: Weighting = "x0"
    clip: Schedule | None = None
    """Largest absolute value of an element of the gradient on the latents."""
    temperature: Schedule = Constant(0.0)
    """Noise that is added to that gradient, in units of its own RMS; annealed, it helps out of poor starts."""


class Selection(Settings):
    """Several starts: all `candidates` run until `until` of the stage, then the one the prior likes best goes on alone."""

    candidates: Annotated[int, Meta(ge=1, le=16)] = 1
    until: Fraction = 0.3


class StageSettings(Settings):
    """What every stage has: how long it is, what it looks at, how the prior is asked and how its optimizers are held."""

    steps: Count
    cameras: CameraSettings = CameraSettings()
    light: LightSettings = LightSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    shading: Literal["colors", "normals"] = "colors"
    """What the prior is shown: lit colors, or normals as a picture (Fantasia3D, Chen et al. 2023, for geometry alone)."""
    render_size: Annotated[int, Meta(ge=0, le=4096)] | Schedule = 0
    """Side of the renders in pixels; 0 takes the prior's own. The prior resizes what it is shown."""
    target_vertices: Annotated[int, Meta(ge=50, le=2_000_000)] = 2500
    """Vertices of the mesh that the stage hands on, if it makes a topology of its own."""
    ema: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """Decay of an exponential moving average of what is learned, which becomes the result; 0 takes the last step's."""
    clip_norm: NonNegative = 0.0
    """Largest norm of the gradient of a parameter group; 0 does not clip."""
    adaptive: bool = False
    """Halve the learning rates whenever the prior's error has stopped falling."""
    patience: Fraction = 0.0
    """Share of the stage without any fall of the prior's error after which it ends early; 0 never."""
    selection: Selection = Selection()
    losses: LossSettings = LossSettings()


class GridStage(StageSettings, tag="grid"):
    """Optimize a coarse density and color grid, then turn its surface into a mesh for the stages that follow."""

    resolution: Annotated[int, Meta(ge=8, le=256)] = 32
    samples_per_ray: Annotated[int, Meta(ge=8, le=512)] = 48
    learning_rate: Schedule = Constant(0.05)
    sharpness: Schedule = Linear(1.0, 3.0)
    """Steepness of the density's activation: raised over the stage, it presses fog into a surface."""
    opacity_entropy: Weight = 0.01
    total_variation: Weight = 0.01
    sparsity: Weight = 0.0


class FieldStage(StageSettings, tag="field"):
    """Optimize a radiance field by ray marching, then turn its surface into a mesh for the stages that follow."""

    encoding: Literal["hash grid", "tri-plane", "mlp"] = "hash grid"
    resolution: Annotated[int, Meta(ge=16, le=4096)] = 128
    """Of the finest level (hash grid) or of the planes; the highest frequency of an MLP's encoding follows from it."""
    samples_per_ray: Annotated[int, Meta(ge=8, le=512)] = 64
    view_dependent: bool = False
    learning_rate: Schedule = Linear(0.03, 0.01)
    opacity_entropy: Weight = 0.01
    orientation: Weight = 0.01
    distortion: Weight = 0.0
    sparsity: Weight = 0.0


class TetrahedraStage(StageSettings, tag="tetrahedra"):
    """Optimize signed distances and offsets of a tetrahedral grid through its differentiable surface and the rasterizer."""

    resolution: Annotated[int, Meta(ge=8, le=256)] = 32
    """Cells along an edge of the cube [-1, 1]^3."""
    distance_rate: Schedule = Linear(0.05, 0.01)
    """How far a step can move the surface, in scene units; offsets follow at the same rate."""
    color_rate: Schedule = Linear(0.1, 0.03)
    sign_changes: Weight = 0.002
    """Weight of the binary cross entropy between the signs across edges (Shen et al. 2021), against floaters and holes inside."""
    laplacian: Weight = 0.03
    supersample: Annotated[int, Meta(ge=1, le=4)] = 2


class MeshStage(StageSettings, tag="mesh"):
    """Optimize vertex positions and colors, or a texture, of a triangle mesh through the rasterizer."""

    position_rate: Schedule = Constant(0.01)
    color_rate: Schedule = Constant(0.02)
    smoothing: NonNegative = 10.0
    """lambda of the large-steps system (I + lambda L) (Nicolet et al. 2021)."""
    laplacian: Weight = 1.0
    normal_consistency: Weight = 0.0
    slivers: Weight = 0.0
    supersample: Annotated[int, Meta(ge=1, le=4)] = 2
    """Renders are made this many times larger and averaged down, as the training pictures of toybox are."""
    remesh_every: Annotated[int, Meta(ge=0)] = 0
    """Steps between remeshings; 0 never remeshes and keeps the artist's topology."""
    texture_size: Annotated[int, Meta(ge=0, le=8192)] = 0
    """Side of the texture in texels; 0 colors vertices. The mesh's own UVs are kept; without usable ones it is unwrapped."""
    texture_rate: Schedule = Constant(0.02)
    learns: Literal["joint", "geometry", "material"] = "joint"
    """What moves: everything, vertices only, or colors and textures only."""
    silhouettes: Literal["edge-driven", "edge-gradient", "soft"] = "edge-driven"
    """How the gradient finds silhouettes: analytic antialiasing, rasterized edge gradients, or soft rasterization."""


Stage = GridStage | FieldStage | TetrahedraStage | MeshStage


class StartShape(Settings):
    """What a job begins with if it has no stage that makes a shape of its own and no mesh was sent along."""

    kind: Literal["none", "sphere", "cube", "cylinder"] = "none"


class LoadingSettings(Settings):
    """How a pretrained prior is held in memory. "auto" is float16 on a GPU and float32 elsewhere."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    offload: bool = False
    """Keep the parts of the model in main memory and move each to the GPU while it works."""
    slicing: bool = False
    """Views go through the encoder one after another, texts through the network: less memory, slower."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """torch.compile the noise predictor; pays after some hundred steps."""
    image_size: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Side in pixels of what a flow model (Stable Diffusion 3, Flux) is shown, as they know many sizes; 0 takes their own."""
    distilled_guidance: NonNegative = 3.5
    """The guidance scale that is told to models which were distilled from guided ones (Flux dev)."""


class JobSettings(Settings):
    """One job, complete: with the initial mesh, if any, this determines the result."""

    prompt: Annotated[str, Meta(max_length=1000)]
    """May be empty only where a reference picture says what to make."""
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=16)]
    negative_prompt: Annotated[str, Meta(max_length=1000)] = ""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    prior: Annotated[str, Meta(min_length=1, max_length=4096)] = "toybox"
    loading: LoadingSettings = LoadingSettings()
    recipe: Annotated[str, Meta(min_length=1, max_length=200)] = "generate"
    start: StartShape = StartShape()
    strength: Fraction = 0.5
    """How far a start mesh may change: 0 returns it bit for bit, up to 0.2 only its colors change, from there its shape as well,
    held to silhouette and curvature of the start, 1 is free. It means nothing without a start mesh."""
    anchors: AnchorSettings = AnchorSettings()
    references: Annotated[tuple[ReferenceSettings, ...], Meta(max_length=4)] = ()
    regions: Annotated[tuple[RegionSettings, ...], Meta(max_length=8)] = ()
    features: FeatureSettings = FeatureSettings()
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    """CPU threads of the numerical libraries; part of the tree because sums depend on it."""
    checkpoint_seconds: Positive = 5.0
    preview_seconds: Positive = 2.0

    def __post_init__(self) -> None:
        if not self.prompt.strip() and not self.references:
            raise ValueError("the prompt is empty; say what to make in words, or give a reference picture")
