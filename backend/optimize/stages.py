"""What a stage optimizes and with which optimizers; how one stage's result becomes the next one's start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError
from backend.representations.convert import field_to_mesh, grid_to_mesh, tetrahedra_to_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.large_steps import AdamUniform
from backend.representations.mesh_data import MeshData
from backend.representations.radiance_field import RadianceField
from backend.representations.repair import make_sound
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import FieldStage, GridStage, MeshStage, Stage, TetrahedraStage, value_at


@dataclass
class RunningStage:
    """A stage under way."""

    stage: Stage
    representation: Representation
    optimizers: list[torch.optim.Optimizer]

    def set_schedules(self, progress: float, strength: float = 0.5) -> None:
        """Give the optimizers and the representation this step's values; `strength` scales the pace of vertices."""
        rates = _rates(self.stage)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                pace = 2.0 * strength if group["name"] == "positions" else 1.0
                group["lr"] = pace * value_at(rates[group["name"]], progress)
        if isinstance(self.stage, GridStage):
            self.representation.sharpness = value_at(self.stage.sharpness, progress)

    def penalty(self) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of the regularizers, and each weighted term to plot."""
        terms = self.representation.regularization()
        weighted = {name: getattr(self.stage, name) * term for name, term in terms.items() if getattr(self.stage, name)}
        total = sum(weighted.values(), start=torch.zeros((), device=next(iter(terms.values())).device))
        return total, {name: float(term.detach()) for name, term in weighted.items()}

    def remesh_due(self, step: int) -> bool:
        """True after `step` steps of the stage if its topology is to be renewed, which is never done at its very end."""
        every = self.stage.remesh_every if isinstance(self.stage, MeshStage) else 0
        return bool(every) and step % every == 0 and step < self.stage.steps

    def result(self) -> MeshData:
        """The mesh that the stage hands on."""
        if isinstance(self.representation, DensityGrid):
            return grid_to_mesh(self.representation, self.stage.target_vertices)
        if isinstance(self.representation, RadianceField):
            field = self.representation
            return field_to_mesh(field.density_at, field.color_at, self.stage.target_vertices, device=field.occupancy.density.device)
        if isinstance(self.representation, TetrahedralGrid):
            return tetrahedra_to_mesh(self.representation, self.stage.target_vertices)
        mesh = self.representation.to_mesh()
        # A texture's coordinates are those of its triangles: such a mesh is never built anew.
        return make_sound(mesh) if isinstance(self.representation, TriangleMesh) and not self.representation.locked else mesh


def begin_stage(stage: Stage, mesh: MeshData | None, device: torch.device) -> RunningStage:
    """A stage at its first step.

    A grid and a field begin as a ball of fog and take no mesh; tetrahedra begin with the mesh if there is one, else as a
    sphere; a mesh stage needs one.
    """
    representation = _representation(stage, mesh, device)
    return RunningStage(stage, representation, make_optimizers(representation))


def restore_stage(stage: Stage, state: dict[str, Tensor], optimizers: list[dict], device: torch.device) -> RunningStage:
    """A stage exactly as it was when `state_dict()` of its representation and optimizers were taken."""
    mesh = None
    if isinstance(stage, MeshStage):
        uvs = (state["uvs"].numpy(), state["uv_faces"].numpy()) if "uvs" in state else (None, None)
        mesh = MeshData(state["start"].numpy(), state["faces"].numpy(), None, *uvs)
    representation = _representation(stage, mesh, device)
    representation.load_state_dict(state)
    running = RunningStage(stage, representation, make_optimizers(representation))
    for optimizer, saved in zip(running.optimizers, optimizers, strict=True):
        optimizer.load_state_dict(saved)
    return running


def _representation(stage: Stage, mesh: MeshData | None, device: torch.device) -> Representation:
    if isinstance(stage, GridStage):
        return DensityGrid(stage, device)
    if isinstance(stage, FieldStage):
        return RadianceField(stage, device)
    if isinstance(stage, TetrahedraStage):
        return TetrahedralGrid(stage, device, mesh)
    if mesh is None:
        raise InputError("A mesh stage came first without a mesh: send a start mesh or choose a start shape (sphere, cube, cylinder).")
    return TexturedMesh(mesh, stage, device) if stage.texture_size else TriangleMesh(mesh, stage, device)


def make_optimizers(representation: Representation) -> list[torch.optim.Optimizer]:
    """Fresh optimizers; vertex positions need AdamUniform, everything else takes Adam."""
    groups = representation.parameter_groups()
    uniform = [group for group in groups if group["name"] == "positions"]
    others = [group for group in groups if group["name"] != "positions"]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(others, lr=0.0, betas=(0.9, 0.99), eps=1e-10)] if others else []
    return optimizers + ([AdamUniform(uniform, betas=(0.9, 0.99))] if uniform else [])


def _rates(stage: Stage) -> dict[str, object]:
    if isinstance(stage, GridStage):
        return {"density": stage.learning_rate, "colors": stage.learning_rate}
    if isinstance(stage, FieldStage):
        return {"field": stage.learning_rate}
    if isinstance(stage, TetrahedraStage):
        return {"distances": stage.distance_rate, "offsets": stage.distance_rate, "colors": stage.color_rate}
    return {"positions": stage.position_rate, "colors": stage.color_rate, "texture": stage.texture_rate}
