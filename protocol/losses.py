"""What a stage minimizes beside the distillation, what a job is shown of reference pictures, and where it may change a mesh.

Every loss is dimensionless, a mean over what it looks at, and not computed where its weight is 0. Pixels and masks never
appear here: they travel beside the settings, in the order of `JobSettings.references` and `JobSettings.regions`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .schedules import NonNegative, Settings, Weight


class ReferenceSettings(Settings):
    """One reference picture: from where it shows the object, in degrees, and how the object lies in it."""

    azimuth: Annotated[float, Meta(ge=-360, le=360)] = 0.0
    """0 shows the front and grows toward +x, as cameras do."""
    elevation: Annotated[float, Meta(ge=-90, le=90)] = 0.0
    framing: Literal["fit", "keep"] = "fit"
    """"fit" moves and scales the object in the picture to where a finished one is seen; "keep" takes it as it is, as renders
    by the standard camera (fov 40, distance 3) want it."""
    background: Literal["auto", "keep", "remove"] = "auto"
    """"auto" removes the background of a picture without transparency; "keep" takes the alpha that is there."""


class RegionSettings(Settings):
    """One region of the mesh that may change; where none is given, all of it may. Its mask travels beside the settings."""

    prompt: Annotated[str, Meta(max_length=1000)] = ""
    """What this region is to become; empty takes the job's prompt."""


class FeatureSettings(Settings):
    """Networks that perceptual losses compare features of: a folder or a hub id each; empty where none is needed."""

    perceptual: Annotated[str, Meta(max_length=4096)] = ""
    """VGG16 with LPIPS's linear layers (Zhang et al. 2018)."""
    clip: Annotated[str, Meta(max_length=4096)] = ""
    """A CLIP model (Radford et al. 2021) in transformers' layout."""


class LossSettings(Settings):
    """Weights of the losses of a stage beside distillation and the regularizers of what it optimizes.

    Those toward reference pictures count only where a job has some.
    """

    # Toward reference pictures, rendered from where each was taken.
    reference_color: Weight = 0.05
    reference_norm: Literal["l1", "l2"] = "l1"
    reference_mask: Weight = 0.05
    reference_depth: Weight = 0.05
    """To a depth map, if the picture has one, up to its unknown scale and shift."""
    reference_normals: Weight = 0.05
    reference_perceptual: Weight = 0.0
    reference_clip: Weight = 0.0
    reference_light: Literal["white", "learned"] = "learned"
    """The light in which the object is compared: white from everywhere, or spherical harmonics learned for each picture, which
    begin as the light that the stage's views are lit by on average."""
    light_whiteness: Weight = 0.0
    """Holds learned light to gray (nvdiffrec, Munkberg et al. 2022)."""
    clip_text: Weight = 0.0
    """1 - cosine between CLIP's embeddings of the renders and of the prompt."""
    clip_direction: Weight = 0.0
    """1 - cosine between the change of the render's embedding since the start mesh and the text's, from `clip_neutral` to the
    prompt (Gal et al. 2022)."""
    clip_neutral: Annotated[str, Meta(max_length=1000)] = "a 3D object"
    """What the start mesh shows, in words."""

    # Of the shape. Smooth normals and the Laplacian are the mesh stage's own: `normal_consistency` and `laplacian`.
    edge_lengths: Weight = 0.0
    """Squared deviation of edge lengths from their mean, in units of it; an artist's own spread costs nothing."""
    normal_variance: Weight = 0.0
    """Variance of the face normals around each vertex."""
    symmetry: Weight = 0.0
    color_symmetry: Weight = 0.0
    symmetry_plane: Literal["found", "x", "y", "z"] = "x"
    """The plane through the origin that both mirror in: found from the shape as the stage begins, or the one whose normal is that axis."""

    # Of the colors.
    albedo_sparsity: Weight = 0.0
    color_saturation: Weight = 0.0

    # Between views. The first three are of grid and field stages: on a mesh they are zero.
    depth_agreement: Weight = 0.0
    normal_agreement: Weight = 0.0
    view_interpolation: Weight = 0.0
    """Between colors of views a few degrees apart."""
    view_interpolation_angle: Annotated[float, Meta(gt=0, le=15)] = 3.0
    anchor_views: Weight = 0.0
    """To the object's own views as they were when the stage began; of mesh and tetrahedra stages."""


class AnchorSettings(Settings):
    """How hard a start mesh is held to itself at small strengths; all of it fades to nothing at strength 1."""

    silhouette: NonNegative = 0.1
    """Of the squared change of its silhouettes from fixed views."""
    laplacian: NonNegative = 0.1
    """Of the squared change of its bends: differential coordinates, as long as the topology is the start's."""
