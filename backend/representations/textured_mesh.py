"""A triangle mesh with a texture, optimized through the rasterizer: vertices by large steps, texels by themselves.

What no gradient reaches and what a mask keeps comes back with the very bits that it came with: positions, texels, texture
coordinates.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.lighting import Light
from backend.rendering import texture
from backend.rendering.material_render import MaterialShading, render_material
from backend.rendering.metal_rough import Illumination
from backend.rendering.render import Rendered, ViewCameras
from backend.representations.appearance import Appearance
from backend.representations.bake import bake_colors, transfer_material
from backend.representations.masks import texel_mask as mask_of_texels
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.moving_vertices import MovingVertices
from backend.representations.texel_map import map_texels
from backend.representations.unwrap import unwrap
from protocol.settings import MeshStage

GRAY = 0.5
"""Base color of meshes that come without one."""


class TexturedMesh:
    """Parameters: a displacement [V, 3] ("positions") and the material's textures [H, W, C] ("texture").

    The base color is always a texture: the mesh's own at its own size, or one of `settings.texture_size` texels a side,
    baked from vertex colors or filled with the material's color. Metallic, roughness, normals and emission are optimized
    where the mesh brings textures of them. Texture coordinates of the mesh's own are kept if they can be used; otherwise it
    is unwrapped and its textures are transferred.

    The topology is locked if `settings.remesh_every` is 0. `load_state_dict` may replace the parameter tensors: ask for
    `parameter_groups()` again and build new optimizers.
    """

    def __init__(
        self,
        data: MeshData,
        settings: MeshStage,
        device: torch.device | str = "cpu",
        vertex_mask: Tensor | np.ndarray | None = None,
        texel_mask: Tensor | np.ndarray | None = None,
    ) -> None:
        """`vertex_mask` [V] and `texel_mask` [H, W], of the base color's size, in [0, 1]: how far each may change; 0 keeps
        its bits. With a mask of vertices alone, the texels follow it.

        Raises:
            InputError: `data` is not a mesh (see `check_mesh`), it cannot be unwrapped (see `unwrap`), or a mask does not fit.
        """
        check_mesh(data)
        if settings.silhouettes == "soft":
            raise InputError('A texture cannot be painted with "soft" silhouettes; use "edge-driven" or "edge-gradient".')
        self.settings = settings
        self.locked = settings.remesh_every == 0
        self._device = torch.device(device)
        self._colorless = data.colors is None and data.material is None
        self._start_with(with_texture(data, settings.texture_size), vertex_mask, texel_mask)

    @property
    def faces(self) -> Tensor:
        return self.surface.faces

    @property
    def displacement(self) -> Tensor:
        return self.surface.displacement

    @property
    def textures(self) -> dict[str, Tensor]:
        """The texture parameters [H, W, C] by the material's property."""
        return self.appearance.parameters

    def parameter_groups(self) -> list[dict]:
        """For the optimizers: "positions", meant for `AdamUniform`, and "texture"."""
        return [
            {"name": "positions", "params": [self.displacement]},
            {"name": "texture", "params": list(self.textures.values())},
        ]

    def vertices(self) -> Tensor:
        """Where the vertices are now, [V, 3]; differentiable."""
        return self.surface.positions()

    def texel_colors(self) -> tuple[Tensor, Tensor]:
        """The base color as it is shown now, [T, 3] for the T texels that show the surface, and the pairs [E, 2] of those that
        lie side by side in one chart; differentiable in the colors."""
        texels, pairs = self.appearance.base_color_texels
        return self._base_color().reshape(-1, 3).index_select(0, texels), pairs

    def colors_at(self, face: Tensor, barycentrics: Tensor) -> Tensor:
        """The base color [P, 3] at points given by faces [P] and barycentrics [P, 3]; differentiable in the texels."""
        uv = (barycentrics[..., None] * self._uvs[self._uv_faces.long()[face]]).sum(1)
        return texture(self._base_color(), uv[None, None])[0, 0]

    def _base_color(self) -> Tensor:
        return self.appearance.for_rendering().base_color

    def render(
        self,
        cameras: ViewCameras,
        resolution: int,
        light: Light | Illumination | None = None,
        shading: MaterialShading = "lit",
    ) -> Rendered:
        """Differentiable images of the mesh, as `render_material` makes them."""
        return render_material(
            self.vertices(),
            self.faces,
            self._uvs,
            self._uv_faces,
            self.appearance.for_rendering(),
            cameras,
            resolution,
            illumination=light,
            shading=shading,
            topology=self.surface.topology,
            supersample=self.settings.supersample,
            silhouettes=self.settings.silhouettes,
            highest_level=self.appearance.highest_level,
        )

    def weigh_gradients(self, vertices: Tensor | None, texels: Tensor | None) -> None:
        """From now on multiply what reaches positions by `vertices` [V] and what reaches textures by `texels` [H, W], in backward
        passes; None lets all through."""
        self.surface.gate.weights = None if vertices is None else vertices[:, None]
        self.appearance.weigh_gradients(texels)

    def regularization(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Unweighted "laplacian", "normal_consistency" and "slivers"; see `MeshRegularizers`."""
        return self.surface.regularization(names)

    def to_mesh(self) -> MeshData:
        """The mesh as it is, in the start's order, with its material and the colors that its vertices have in it.

        What nothing moved or colored is returned bit for bit: a mesh that came without any color still has none.
        """
        start = self._start_mesh
        mesh = replace(start, positions=self.surface.exact_positions(), faces=start.faces.copy())
        if not self.appearance.changed():
            return replace(mesh, material=None) if self._colorless else mesh
        seen = self.appearance.vertex_colors()
        if start.colors is not None:
            same = (seen == self.appearance.vertex_colors(start=True)).all(axis=1, keepdims=True)
            seen = np.where(same, start.colors, seen)
        return replace(mesh, colors=seen, material=self.appearance.to_material())

    def remesh(self, target_vertices: int) -> bool:
        """False: a texture's coordinates are those of its triangles."""
        return False

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs: topology, texture coordinates, material and masks included."""
        state = {
            "faces": self.faces.clone(),
            "start": self.surface.start.clone(),
            "displacement": self.displacement.detach().clone(),
            "uvs": self._uvs.clone(),
            "uv_faces": self._uv_faces.clone(),
            "colorless": torch.tensor(self._colorless),
            "material_name": torch.tensor(list(self._start_mesh.material.name.encode()), dtype=torch.uint8),
        }
        if self._start_mesh.colors is not None:
            state["colors"] = torch.from_numpy(self._start_mesh.colors.copy())
        for name, values in _properties(self._start_mesh.material).items():
            state[f"start.{name}"] = torch.tensor(values, dtype=torch.float64 if np.ndim(values) == 0 else torch.float32)
        for name, values in self.textures.items():
            state[f"texture.{name}"] = values.detach().clone()
        for name, mask in (("vertex_mask", self.surface.mask), ("texel_mask", self._texel_mask)):
            if mask is not None:
                state[name] = mask.clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()`, whatever the mesh was then; a run goes on from it bit for bit."""
        arrays = {name: values.cpu().numpy().copy() for name, values in state.items()}
        properties = {
            name.removeprefix("start."): values if values.ndim else float(values)
            for name, values in arrays.items()
            if name.startswith("start.")
        }
        material = MaterialData(**properties, name=bytes(arrays["material_name"]).decode())
        mesh = MeshData(arrays["start"], arrays["faces"], arrays.get("colors"), arrays["uvs"], arrays["uv_faces"], material)
        self._colorless = bool(state["colorless"])
        self._start_with(mesh, state.get("vertex_mask"), state.get("texel_mask"))
        with torch.no_grad():
            self.displacement.copy_(state["displacement"])
            for name, values in self.textures.items():
                values.copy_(state[f"texture.{name}"])

    def _start_with(
        self, mesh: MeshData, vertex_mask: Tensor | np.ndarray | None, texel_mask: Tensor | np.ndarray | None
    ) -> None:
        if texel_mask is None and vertex_mask is not None:
            texel_mask = mask_of_texels(vertex_mask, mesh, map_texels(mesh, *mesh.material.base_color.shape[:2]))
        self._start_mesh = mesh
        self._texel_mask = None if texel_mask is None else torch.as_tensor(texel_mask)
        self.surface = MovingVertices(mesh, self.settings.smoothing, self.locked, vertex_mask, self._device)
        self.appearance = Appearance(mesh, texel_mask, self._device)
        self._uvs = torch.tensor(np.ascontiguousarray(mesh.uvs), dtype=torch.float32, device=self._device)
        self._uv_faces = torch.tensor(np.ascontiguousarray(mesh.uv_faces), dtype=torch.int32, device=self._device)


def with_texture(data: MeshData, size: int) -> MeshData:
    """The mesh with texture coordinates and a base color texture, of `size` texels a side if it has none of its own.

    Its own texture coordinates are kept where they can be used.
    """
    mesh = unwrap(data, size)
    material = data.material
    if material is None:
        colors = np.full_like(data.positions, GRAY, dtype=np.float32) if data.colors is None else data.colors
        return replace(mesh, material=bake_colors(replace(mesh, colors=colors), size))
    textured = any(np.ndim(values) >= 2 for values in _properties(material).values())
    if mesh is not data and textured and data.uvs is not None:
        material = transfer_material(data, mesh, size)
    if np.ndim(material.base_color) != 3:
        material = replace(material, base_color=np.full((size, size, 3), material.base_color, dtype=np.float32))
    return replace(mesh, material=material)


def _properties(material: MaterialData) -> dict[str, np.ndarray | float]:
    """What the material has, its name left out."""
    return {name: values for name, values in vars(material).items() if name != "name" and values is not None}
