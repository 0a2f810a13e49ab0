"""The differentiable rasterizer: operators on tensors, lights, and a mesh renderer built from them."""

from backend.rendering.fragments import Fragments, Topology, build_topology
from backend.rendering.lambert import shade
from backend.rendering.lighting import Light, Shading, headlight, sample_light
from backend.rendering.operators import interpolate, rasterize, vertex_normals
from backend.rendering.render import Rendered, render_mesh, to_clip_space
from backend.rendering.silhouettes import antialias
from backend.rendering.texturing import highest_safe_level, texture

__all__ = [
    "Fragments",
    "Light",
    "Rendered",
    "Shading",
    "Topology",
    "antialias",
    "build_topology",
    "headlight",
    "highest_safe_level",
    "interpolate",
    "rasterize",
    "render_mesh",
    "sample_light",
    "shade",
    "texture",
    "to_clip_space",
    "vertex_normals",
]
