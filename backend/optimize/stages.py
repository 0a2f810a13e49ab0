"""What a stage optimizes and with which optimizers; how one stage's result becomes the next one's start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from backend.distillation.numbers import together
from backend.errors import InputError
from backend.optimize.averaging import MovingAverage
from backend.optimize.objectives import Job, Objective, Seen, make_objectives
from backend.optimize.region_prompts import Turn, make_turns
from backend.optimize.regions import Regions
from backend.optimize.strength import AS_RECIPE, Freedom, freedom, has_start_mesh
from backend.priors.prior import Prior
from backend.representations.convert import field_to_mesh, grid_to_mesh, tetrahedra_to_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.large_steps import AdamUniform
from backend.representations.mesh_data import MeshData
from backend.representations.radiance_field import RadianceField
from backend.representations.repair import make_sound
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh, with_texture
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import FieldStage, GridStage, MeshStage, Schedule, Stage, TetrahedraStage, Vsd, Weight, value_at


SHAPE_GROUPS = ("positions", "density", "distances", "offsets")
"""Parameter groups that shape the object; the others color it."""


BENDS = ("laplacian", "normal_consistency")
"""Regularizers that hold a surface whose topology is kept to the bends it began with."""


class Auxiliary(Protocol):
    """A network that a method trains beside the object; several objects may share it."""

    @property
    def warming_up(self) -> bool:
        """Whether it learns alone and the object waits."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None:
        """Leave the prior as it was before."""


@dataclass
class RunningStage:
    """A stage under way: one object that is optimized, and all that its next step depends on."""

    stage: Stage
    representation: Representation
    optimizers: list[torch.optim.Optimizer]
    average: MovingAverage | None = None
    auxiliary: Auxiliary | None = None
    pace: float = 1.0
    """Factor of all learning rates."""
    objectives: list[Objective] = field(default_factory=list)
    regions: Regions | None = None
    from_start_mesh: bool = False
    """Whether strength has a say."""

    def __post_init__(self) -> None:
        self.freedom: Freedom = AS_RECIPE
        self.turns: list[Turn] = [] if self.regions is None else make_turns(self.regions, self.representation)

    def turn(self, progress: float) -> Turn | None:
        """Whose prompt is asked in a step; None: the job's, for all of the object."""
        return self.turns[round(progress * self.stage.steps) % len(self.turns)] if self.turns else None

    def set_schedules(self, progress: float, strength: float = 0.5) -> None:
        """Give the optimizers and the representation this step's values."""
        self.freedom = freedom(strength) if self.from_start_mesh else AS_RECIPE
        rates = _rates(self.stage)
        for group in self._groups():
            pace = self.freedom.shape if group["name"] in SHAPE_GROUPS else self.freedom.colors
            group["lr"] = self.pace * pace * value_at(rates[group["name"]], progress)
        if isinstance(self.stage, GridStage):
            self.representation.sharpness = value_at(self.stage.sharpness, progress)

    def regularizers(self, progress: float) -> dict[str, Tensor]:
        """The weighted regularizers of what is optimized; what weighs nothing is not computed."""
        weights = {name: value_at(weight, progress) for name, weight in _weights(self.stage).items()}
        if self.from_start_mesh and getattr(self.representation, "locked", False):
            # What holds an artist's mesh to its own bends is an anchor as well.
            weights = {name: weight * (self.freedom.hold if name in BENDS else 1.0) for name, weight in weights.items()}
        weights = {name: weight for name, weight in weights.items() if weight}
        return {name: weights[name] * term for name, term in self.representation.regularization(weights).items()}

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        """The weighted regularizers and the objectives' terms."""
        terms = self.regularizers(seen.progress)
        for objective in self.objectives:
            terms |= objective.terms(seen)
        return terms

    def clear_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def move(self) -> dict[str, float]:
        """One step of the optimizers along the gradients that are there.

        Returns for each parameter group the norm of its gradient before clipping and, if the stage clips, the share of it
        that was cut off.
        """
        numbers: dict[str, Tensor] = {}
        for group in self._groups():
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if not gradients:
                continue
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
            numbers[f"gradient_{group['name']}"] = norm
            if self.stage.clip_norm:
                kept = (self.stage.clip_norm / norm.clamp_min(1e-30)).clamp_max(1.0)
                for gradient in gradients:
                    gradient.mul_(kept)
                numbers[f"clipped_{group['name']}"] = 1.0 - kept
        for optimizer in self.optimizers:
            optimizer.step()
        for objective in self.objectives:
            objective.move()
        if self.average is not None:
            self.average.update(self._parameters())
        return together(numbers) if numbers else {}

    @contextmanager
    def averaged(self) -> Iterator[Representation]:
        """The representation as it is shown and handed on: holding the moving average, if the stage keeps one."""
        with self.average.in_place_of(self._parameters()) if self.average else nullcontext():
            yield self.representation

    def to_mesh(self) -> MeshData:
        """The surface as it is shown now."""
        with self.averaged() as representation:
            return representation.to_mesh()

    def remesh(self, step: int) -> bool:
        """After `step` steps of the stage: renew its topology if that is due; whether it was renewed.

        It is never done at the stage's very end, nor where vertices must not move. Optimizers and average begin anew.
        """
        stage = self.stage
        due = isinstance(stage, MeshStage) and stage.remesh_every and stage.learns != "material" and self.freedom.shape
        if not due or step % stage.remesh_every or step >= stage.steps:
            return False
        before = None if self.regions is None else self.representation.to_mesh()
        if not self.representation.remesh(stage.target_vertices):
            return False
        if self.regions is not None:
            self.regions = self.regions.carried(before, self.representation.to_mesh(), self.representation.surface.mask)
            self.turns = make_turns(self.regions, self.representation)
        self.optimizers = make_optimizers(stage, self.representation)
        self.average = _new_average(stage)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that a resumed run needs, but for the auxiliary network."""
        return {
            "representation": self.representation.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": None if self.average is None else self.average.state_dict(),
            "objectives": [objective.state_dict() for objective in self.objectives],
            "regions": None if self.regions is None else self.regions.state_dict(),
        }

    def close(self) -> None:
        """Take out of the prior what was put into it."""
        if self.auxiliary is not None:
            self.auxiliary.close()

    def result(self) -> MeshData:
        """The mesh that the stage hands on."""
        with self.averaged():
            return self._result()

    def _result(self) -> MeshData:
        if isinstance(self.representation, DensityGrid):
            return grid_to_mesh(self.representation, self.stage.target_vertices)
        if isinstance(self.representation, RadianceField):
            field = self.representation
            return field_to_mesh(field.density_at, field.color_at, self.stage.target_vertices, device=field.occupancy.density.device)
        if isinstance(self.representation, TetrahedralGrid):
            return tetrahedra_to_mesh(self.representation, self.stage.target_vertices)
        mesh = self.representation.to_mesh()
        # A texture's coordinates are those of its triangles: such a mesh is never built anew; nor is what must keep its bits.
        free = isinstance(self.representation, TriangleMesh) and not self.representation.locked
        free = free and self.regions is None and bool(self.freedom.shape)
        return make_sound(mesh) if free and self.stage.learns != "material" else mesh

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self._groups() for parameter in group["params"]]


def begin_stage(
    stage: Stage,
    mesh: MeshData | None,
    device: torch.device,
    prior: Prior | None = None,
    seed: int = 0,
    job: Job | None = None,
    regions: Regions | None = None,
) -> RunningStage:
    """A stage at its first step; with a `prior`, and from `seed`, also the network that its method trains, if any; with a `job`
    also its objectives. `regions` are those of `mesh`; None frees all of it.

    A grid and a field begin as a ball of fog and take no mesh; tetrahedra begin with the mesh if there is one, else as a
    sphere; a mesh stage needs one.

    Raises:
        InputError: there is no mesh where one is needed, or nothing of what is learned would be seen.
    """
    if isinstance(stage, MeshStage) and stage.learns == "material" and stage.shading == "normals":
        raise InputError(
            'A stage that learns the material alone shows the prior normals, in which no material is seen; set shading to "colors".'
        )
    if regions is not None:
        textured = with_texture(mesh, stage.texture_size) if stage.texture_size else None
        regions = regions.for_stage(mesh, textured)
    representation = _representation(stage, mesh, device, regions)
    auxiliary = None if prior is None else make_auxiliary(stage, prior, seed)
    objectives = [] if job is None else make_objectives(stage, representation, job)
    optimizers = make_optimizers(stage, representation)
    held = job is not None and has_start_mesh(job)
    return RunningStage(stage, representation, optimizers, _new_average(stage), auxiliary, 1.0, objectives, regions, held)


def make_auxiliary(stage: Stage, prior: Prior, seed: int) -> Auxiliary | None:
    """The network that the stage's method trains, as it begins from `seed`; None if it trains none."""
    if not isinstance(stage.guidance.method, Vsd):
        return None
    from backend.optimize.particle_training import ParticleTraining  # PEFT is slow to import

    return ParticleTraining(stage.guidance.method, prior, seed)


def restore_stage(
    stage: Stage, state: dict[str, Any], device: torch.device, job: Job | None = None
) -> RunningStage:
    """A stage exactly as it was when its `state_dict()` was taken, without its auxiliary network."""
    kept, mesh = state["representation"], None
    if isinstance(stage, MeshStage):
        uvs = (kept["uvs"].numpy(), kept["uv_faces"].numpy()) if "uvs" in kept else (None, None)
        mesh = MeshData(kept["start"].numpy(), kept["faces"].numpy(), None, *uvs)
    representation = _representation(stage, mesh, device)
    representation.load_state_dict(kept)
    objectives = [] if job is None else make_objectives(stage, representation, job)
    for objective, saved in zip(objectives, state["objectives"], strict=True):
        objective.load_state_dict(saved)
    optimizers = make_optimizers(stage, representation)
    regions = None if state["regions"] is None else Regions.from_state(state["regions"])
    held = job is not None and has_start_mesh(job)
    running = RunningStage(stage, representation, optimizers, _new_average(stage), None, 1.0, objectives, regions, held)
    for optimizer, saved in zip(running.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    if running.average is not None:
        running.average.load_state_dict(state["average"], running._parameters())
    return running


def _representation(
    stage: Stage, mesh: MeshData | None, device: torch.device, regions: Regions | None = None
) -> Representation:
    if isinstance(stage, GridStage):
        return DensityGrid(stage, device)
    if isinstance(stage, FieldStage):
        return RadianceField(stage, device)
    if isinstance(stage, TetrahedraStage):
        return TetrahedralGrid(stage, device, mesh)
    if mesh is None:
        raise InputError("A mesh stage came first without a mesh: send a start mesh or choose a start shape (sphere, cube, cylinder).")
    vertices, texels = (None, None) if regions is None else (regions.vertex_union(), regions.texel_union())
    if stage.texture_size:
        return TexturedMesh(mesh, stage, device, vertices, texels)
    return TriangleMesh(mesh, stage, device, vertices)


def make_optimizers(stage: Stage, representation: Representation) -> list[torch.optim.Optimizer]:
    """Fresh optimizers of what the stage learns; vertex positions need AdamUniform, everything else takes Adam.

    What it does not learn takes no gradient from now on.
    """
    groups = []
    for group in representation.parameter_groups():
        learned = _learns(stage, group["name"])
        for parameter in group["params"]:
            parameter.requires_grad_(learned)
        groups += [group] if learned else []
    uniform = [group for group in groups if group["name"] == "positions"]
    others = [group for group in groups if group["name"] != "positions"]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(others, lr=0.0, betas=(0.9, 0.99), eps=1e-10)] if others else []
    return optimizers + ([AdamUniform(uniform, betas=(0.9, 0.99))] if uniform else [])


def _learns(stage: Stage, group: str) -> bool:
    if not isinstance(stage, MeshStage) or stage.learns == "joint":
        return True
    return (group == "positions") == (stage.learns == "geometry")


def _new_average(stage: Stage) -> MovingAverage | None:
    return MovingAverage(stage.ema) if stage.ema else None


def _weights(stage: Stage) -> dict[str, Weight]:
    """The weight of each regularizer; none of a shape that does not move."""
    if isinstance(stage, GridStage):
        return {"opacity_entropy": stage.opacity_entropy, "total_variation": stage.total_variation, "sparsity": stage.sparsity}
    if isinstance(stage, FieldStage):
        volume = {"opacity_entropy": stage.opacity_entropy, "sparsity": stage.sparsity}
        return volume | {"orientation": stage.orientation, "distortion": stage.distortion}
    if isinstance(stage, TetrahedraStage):
        return {"sign_changes": stage.sign_changes, "laplacian": stage.laplacian}
    if stage.learns == "material":
        return {}
    return {"laplacian": stage.laplacian, "normal_consistency": stage.normal_consistency, "slivers": stage.slivers}


def _rates(stage: Stage) -> dict[str, Schedule]:
    if isinstance(stage, GridStage):
        return {"density": stage.learning_rate, "colors": stage.learning_rate}
    if isinstance(stage, FieldStage):
        return {"field": stage.learning_rate}
    if isinstance(stage, TetrahedraStage):
        return {"distances": stage.distance_rate, "offsets": stage.distance_rate, "colors": stage.color_rate}
    return {"positions": stage.position_rate, "colors": stage.color_rate, "texture": stage.texture_rate}
