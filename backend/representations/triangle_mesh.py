"""A triangle mesh with vertex colors, optimized through the rasterizer.

What no gradient reaches and what a mask keeps comes back with the very bits that it came with: positions (see
`MovingVertices`) and colors.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from backend.rendering.lighting import Light, Shading
from backend.rendering.render import Rendered, ViewCameras, render_mesh
from backend.representations.adaptive_remesh import remesh_tracked
from backend.representations.closest_point import transfer_attributes
from backend.representations.gradient_gate import GradientGate
from backend.representations.masks import let_through
from backend.representations.mesh_data import MeshData
from backend.representations.moving_vertices import MovingVertices
from backend.representations.remesh import remesh_isotropic
from backend.representations.soundness import soundness
from protocol.settings import MeshStage

GRAY = 0.5
"""Color of vertices that come without one."""


class TriangleMesh:
    """Parameters: a displacement [V, 3] ("positions") and vertex colors [V, 3] ("colors").

    The topology is locked if `settings.remesh_every` is 0: order and number of vertices stay the start's. `remesh` and
    `load_state_dict` may replace the parameter tensors: ask for `parameter_groups()` again and build new optimizers.
    """

    def __init__(
        self,
        data: MeshData,
        settings: MeshStage,
        device: torch.device | str = "cpu",
        mask: Tensor | np.ndarray | None = None,
    ) -> None:
        """`mask` [V] in [0, 1]: how far each vertex may move and change its color; 0 keeps its bits.

        Raises:
            InputError: the mask does not fit the mesh.
        """
        self.settings = settings
        self.locked = settings.remesh_every == 0
        self._device = torch.device(device)
        self._start_with(data, mask)

    @property
    def faces(self) -> Tensor:
        return self.surface.faces

    @property
    def displacement(self) -> Tensor:
        return self.surface.displacement

    def parameter_groups(self) -> list[dict]:
        """For the optimizers: "positions", meant for `AdamUniform`, and "colors"."""
        return [
            {"name": "positions", "params": [self.displacement]},
            {"name": "colors", "params": [self.colors]},
        ]

    def vertices(self) -> Tensor:
        """Where the vertices are now, [V, 3]; differentiable."""
        return self.surface.positions()

    def vertex_colors(self) -> Tensor:
        """The colors as they are shown now, [V, 3] in [0, 1]; differentiable."""
        return keep_in_range(self._shown_colors())

    def colors_at(self, face: Tensor, barycentrics: Tensor) -> Tensor:
        """The colors [P, 3] of points given by faces [P] and barycentrics [P, 3]; differentiable in the colors."""
        return (barycentrics[..., None] * self.vertex_colors()[self.faces.long()[face]]).sum(1)

    def render(
        self, cameras: ViewCameras, resolution: int, light: Light | None = None, shading: Shading = "lit"
    ) -> Rendered:
        """Differentiable images of the mesh, as `render_mesh` makes them."""
        return render_mesh(
            self.vertices(),
            self.faces,
            self.vertex_colors(),
            cameras,
            resolution,
            light=light,
            shading=shading,
            topology=self.surface.topology,
            supersample=self.settings.supersample,
            silhouettes=self.settings.silhouettes,
        )

    def weigh_gradients(self, vertices: Tensor | None) -> None:
        """From now on multiply what reaches positions and colors in backward passes by `vertices` [V]; None lets all through."""
        self.surface.gate.weights = self._color_gate.weights = None if vertices is None else vertices[:, None]

    def regularization(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Unweighted "laplacian", "normal_consistency" and "slivers"; see `MeshRegularizers`."""
        return self.surface.regularization(names)

    def to_mesh(self) -> MeshData:
        """The mesh as it is, in the start's vertex order. What nothing moved or colored is returned bit for bit."""
        with torch.no_grad():
            colors = self._shown_colors().clamp(0.0, 1.0).cpu().numpy().copy()
        colorless = not self._colored and bool((colors == GRAY).all())
        faces = self.faces.cpu().numpy().copy()
        return MeshData(self.surface.exact_positions(), faces, None if colorless else colors)

    def remesh(self, target_vertices: int) -> bool:
        """Start anew from an isotropic remeshing of the surface as it is, colors and mask carried over.

        Vertices that the mask keeps stay, with their bits and the edges between them. False, and nothing has changed, if
        the topology is locked or no sound remeshing was found.
        """
        if self.locked:
            return False
        old = self.to_mesh()
        if self.surface.mask is not None:
            return self._remesh_around_mask(old, self.surface.mask.cpu().numpy(), target_vertices)
        positions, faces = remesh_isotropic(old.positions, old.faces, target_vertices)
        if positions is old.positions:
            return False
        colors = None if old.colors is None else transfer_attributes(positions, old.positions, old.faces, old.colors)
        self._start_with(MeshData(positions, faces, colors), None)
        return True

    def _remesh_around_mask(self, old: MeshData, mask: np.ndarray, target_vertices: int) -> bool:
        corners = old.positions.astype(np.float64)[old.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2.0
        # A closed surface of V vertices has 2 V faces; an equilateral triangle of edge h has the area sqrt(3)/4 h^2.
        remeshed = remesh_tracked(old, float(np.sqrt(area / (2 * target_vertices) * 4.0 / 3.0**0.5)), mask == 0.0)
        before, after = soundness(old), soundness(remeshed.mesh)
        if (before.components, before.euler, before.sound) != (after.components, after.euler, after.sound):
            return False
        carried = transfer_attributes(remeshed.mesh.positions, old.positions, old.faces, mask[:, None])[:, 0]
        stayed = remeshed.origin >= 0
        carried[stayed] = mask[remeshed.origin[stayed]]
        self._start_with(remeshed.mesh, carried.clip(0.0, 1.0))
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs, the topology included."""
        state = {
            "faces": self.faces.clone(),
            "start": self.surface.start.clone(),
            "displacement": self.displacement.detach().clone(),
            "colors": self.colors.detach().clone(),
            "colored": torch.tensor(self._colored),
        }
        if self.surface.mask is not None:
            state |= {"mask": self.surface.mask.clone(), "start_colors": self._start_colors.clone()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()`, whatever the topology was then; a run goes on from it bit for bit."""
        positions, faces = state["start"].cpu().numpy(), state["faces"].cpu().numpy()
        colors = state.get("start_colors", state["colors"]).cpu().numpy() if state["colored"] else None
        self._start_with(MeshData(positions.copy(), faces.copy(), colors), state.get("mask"))
        with torch.no_grad():
            self.displacement.copy_(state["displacement"])
            self.colors.copy_(state["colors"])

    def _start_with(self, data: MeshData, mask: Tensor | np.ndarray | None) -> None:
        self.surface = MovingVertices(data, self.settings.smoothing, self.locked, mask, self._device)
        count = len(data.positions)
        colors = np.full((count, 3), GRAY, dtype=np.float32) if data.colors is None else data.colors
        self._colored = data.colors is not None
        self._color_gate = GradientGate()
        self._start_colors = torch.tensor(np.ascontiguousarray(colors), dtype=torch.float32, device=self._device)
        self.colors = self._start_colors.clone().requires_grad_()

    def _shown_colors(self) -> Tensor:
        colors = self._color_gate(self.colors)
        if self.surface.mask is None:
            return colors
        return let_through(self._start_colors, colors, self.surface.mask[:, None])


def keep_in_range(values: Tensor) -> Tensor:
    """Clamped to [0, 1]; the gradient vanishes only where following it would lead further outside."""
    return _KeepInRange.apply(values)


class _KeepInRange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0.0, 1.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        outward = ((values <= 0.0) & (gradient > 0.0)) | ((values >= 1.0) & (gradient < 0.0))
        return gradient.masked_fill(outward, 0.0)
