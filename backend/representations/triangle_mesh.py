"""A triangle mesh with vertex colors, optimized through the rasterizer.

Positions are the start's plus a smoothed displacement: v = v0 + (I + lambda L)^-1 d, which is the parametrization of
Nicolet et al. 2021 (u = (I + lambda L) v0 + d) with the start split off. So a vertex that no gradient reaches keeps the
very bits that it came with, and so does every color.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.rendering.fragments import build_topology
from backend.rendering.lighting import Light, Shading
from backend.rendering.render import Rendered, ViewCameras, render_mesh
from backend.representations.closest_point import transfer_attributes
from backend.representations.large_steps import Preconditioner, unique_edges
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_regularizers import MeshRegularizers
from backend.representations.remesh import remesh_isotropic
from protocol.settings import MeshStage

GRAY = 0.5
"""Color of vertices that come without one."""


class TriangleMesh:
    """Parameters: a displacement [V, 3] ("positions") and vertex colors [V, 3] ("colors").

    The topology is locked if `settings.remesh_every` is 0: order and number of vertices stay the start's. `remesh` and
    `load_state_dict` may replace the parameter tensors: ask for `parameter_groups()` again and build new optimizers.
    """

    def __init__(self, data: MeshData, settings: MeshStage, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.locked = settings.remesh_every == 0
        self._device = torch.device(device)
        self._start_with(data)

    def parameter_groups(self) -> list[dict]:
        """For the optimizers: "positions", meant for `AdamUniform`, and "colors"."""
        return [
            {"name": "positions", "params": [self.displacement]},
            {"name": "colors", "params": [self.colors]},
        ]

    def vertices(self) -> Tensor:
        """Where the vertices are now, [V, 3]; differentiable."""
        return self.start + self._preconditioner.smooth(self.displacement)

    def render(
        self, cameras: ViewCameras, resolution: int, light: Light | None = None, shading: Shading = "lit"
    ) -> Rendered:
        """Differentiable images of the mesh, as `render_mesh` makes them."""
        colors = _KeepInRange.apply(self.colors)
        return render_mesh(
            self.vertices(),
            self.faces,
            colors,
            cameras,
            resolution,
            light=light,
            shading=shading,
            topology=self._topology,
            supersample=self.settings.supersample,
        )

    def regularization(self) -> dict[str, Tensor]:
        """Unweighted "laplacian", "normal_consistency" and "slivers"; see `MeshRegularizers`."""
        return self._regularizers(self.vertices())

    def to_mesh(self) -> MeshData:
        """The mesh as it is, in the start's vertex order. What nothing moved or colored is returned bit for bit."""
        with torch.no_grad():
            positions = self.vertices().cpu().numpy()
            colors = self.colors.clamp(0.0, 1.0).cpu().numpy().copy()
        colorless = not self._colored and bool((colors == GRAY).all())
        return MeshData(positions, self.faces.cpu().numpy().copy(), None if colorless else colors)

    def remesh(self, target_vertices: int) -> bool:
        """Start anew from an isotropic remeshing of the surface as it is, colors carried over.

        False, and nothing has changed, if the topology is locked or no sound remeshing was found.
        """
        if self.locked:
            return False
        old = self.to_mesh()
        positions, faces = remesh_isotropic(old.positions, old.faces, target_vertices)
        if positions is old.positions:
            return False
        colors = None if old.colors is None else transfer_attributes(positions, old.positions, old.faces, old.colors)
        self._start_with(MeshData(positions, faces, colors))
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs, the topology included."""
        return {
            "faces": self.faces.clone(),
            "start": self.start.clone(),
            "displacement": self.displacement.detach().clone(),
            "colors": self.colors.detach().clone(),
            "colored": torch.tensor(self._colored),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()`, whatever the topology was then; a run goes on from it bit for bit."""
        positions, faces = state["start"].cpu().numpy(), state["faces"].cpu().numpy()
        colors = state["colors"].cpu().numpy() if state["colored"] else None
        self._start_with(MeshData(positions.copy(), faces.copy(), colors))
        with torch.no_grad():
            self.displacement.copy_(state["displacement"])
            self.colors.copy_(state["colors"])

    def _start_with(self, data: MeshData) -> None:
        count = len(data.positions)
        colors = np.full((count, 3), GRAY, dtype=np.float32) if data.colors is None else data.colors
        self._colored = data.colors is not None
        # C order, whatever the arrays' layout was: the solver and the kernels take nothing else.
        self.start = torch.tensor(np.ascontiguousarray(data.positions), dtype=torch.float32, device=self._device)
        self.faces = torch.tensor(np.ascontiguousarray(data.faces), dtype=torch.int32, device=self._device)
        self.displacement = torch.zeros_like(self.start, requires_grad=True)
        self.colors = torch.tensor(np.ascontiguousarray(colors), dtype=torch.float32, device=self._device, requires_grad=True)
        self._topology = build_topology(self.faces)
        self._preconditioner = Preconditioner(count, unique_edges(self.faces), self.settings.smoothing)
        self._regularizers = MeshRegularizers(self.faces, count, self.start if self.locked else None)


class _KeepInRange(torch.autograd.Function):
    """Clamp to [0, 1]; the gradient vanishes only where following it would lead further outside."""

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
