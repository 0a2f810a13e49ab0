"""The operators as NVIDIA Warp kernels, on CPU and CUDA. Importing this needs Warp; the names are `reference`'s."""

from backend.rendering.kernels.antialiasing import antialias
from backend.rendering.kernels.hash_grid import encode_hash_grid
from backend.rendering.kernels.interpolation import interpolate
from backend.rendering.kernels.normals import vertex_normals
from backend.rendering.kernels.shading import shade
from backend.rendering.kernels.visibility import rasterize

__all__ = ["antialias", "encode_hash_grid", "interpolate", "rasterize", "shade", "vertex_normals"]
