"""The differentiable rasterizer: operators on tensors, lights, and a mesh renderer built from them."""

from backend.rendering.fragments import Fragments, Topology, build_topology
from backend.rendering.illumination import EnvironmentMap, SphericalHarmonics
from backend.rendering.lambert import shade
from backend.rendering.lighting import Light, Shading, headlight, sample_light
from backend.rendering.material import Material, tangent_corners
from backend.rendering.material_render import render_material
from backend.rendering.metal_rough import Illumination, shade_material
from backend.rendering.operators import interpolate, rasterize, screen_derivatives, vertex_normals
from backend.rendering.render import Rendered, Silhouettes, Softness, render_mesh, to_clip_space
from backend.rendering.silhouettes import SoftFragments, antialias, edge_gradient, soft_rasterize
from backend.rendering.texturing import highest_safe_level, texture

__all__ = [
    "EnvironmentMap",
    "Fragments",
    "Illumination",
    "Light",
    "Material",
    "Rendered",
    "Shading",
    "Silhouettes",
    "SoftFragments",
    "Softness",
    "SphericalHarmonics",
    "Topology",
    "antialias",
    "build_topology",
    "edge_gradient",
    "headlight",
    "highest_safe_level",
    "interpolate",
    "rasterize",
    "render_material",
    "render_mesh",
    "sample_light",
    "screen_derivatives",
    "shade",
    "shade_material",
    "soft_rasterize",
    "tangent_corners",
    "texture",
    "to_clip_space",
    "vertex_normals",
]
