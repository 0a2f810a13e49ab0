"""What holds a start mesh to itself at strengths between "colors alone" and "free": its silhouette and its bends."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.losses.anchors import bend_change, silhouette_change
from backend.optimize.objectives import Job, Objective, Seen
from backend.optimize.strength import freedom, has_start_mesh
from backend.rendering import render_mesh
from backend.representations.large_steps import unique_edges
from backend.representations.mesh_data import MeshData
from backend.representations.representation import Representation
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from protocol.losses import AnchorSettings
from protocol.settings import MeshStage, Stage

AZIMUTHS = (0.0, 90.0, 45.0, 135.0, 225.0, 0.0)
ELEVATIONS = (0.0, 0.0, 30.0, 30.0, 30.0, 80.0)
"""From the front, the side, three corners above, and the top: what is behind a silhouette has the same one mirrored."""

VIEWS_A_STEP = 2
SIZE = 24
"""A pixel is a tenth of the object's radius: within it, silhouettes are held softly."""

SUPERSAMPLE = 2


class AnchorObjective(Objective):
    """Keeps the job's start mesh: how it looks from fixed views, and its differential coordinates."""

    def __init__(self, settings: AnchorSettings, mesh: MeshData, device: torch.device) -> None:
        self._settings = settings
        self._vertices = torch.from_numpy(mesh.positions.copy()).to(device)
        self._faces = torch.from_numpy(mesh.faces.copy()).to(device)
        self._cameras = Cameras.orbit(list(AZIMUTHS), list(ELEVATIONS)).to(device)
        self._alpha = self._rendered() if settings.silhouette else None
        self._topology: tuple[Tensor, Tensor | None] | None = None

    def terms(self, seen: Seen) -> dict[str, Tensor]:
        free = freedom(seen.strength)
        if not free.shape or not free.hold:
            return {}
        terms = {}
        if self._settings.silhouette:
            terms["anchor_silhouette"] = self._settings.silhouette * free.hold * self._silhouette(seen)
        edges = self._edges(seen.representation) if self._settings.laplacian else None
        if edges is not None:
            change = bend_change(seen.representation.vertices(), self._vertices, edges)
            terms["anchor_laplacian"] = self._settings.laplacian * free.hold * change
        return terms

    @torch.no_grad()
    def _rendered(self) -> Tensor:
        gray = torch.full_like(self._vertices, 0.5)
        return render_mesh(self._vertices, self._faces, gray, self._cameras, SIZE, shading="albedo", supersample=SUPERSAMPLE).alpha

    def _silhouette(self, seen: Seen) -> Tensor:
        drawn = torch.randperm(len(AZIMUTHS), generator=seen.generator)[:VIEWS_A_STEP].to(self._alpha.device)
        rendered = seen.representation.render(self._cameras[drawn], SIZE, None, "albedo")
        return silhouette_change(rendered.alpha, self._alpha[drawn])

    def _edges(self, representation: Representation) -> Tensor | None:
        """Those of the start mesh, [E, 2], as long as the object has its faces; None from the first remeshing on."""
        if not isinstance(representation, TriangleMesh | TexturedMesh):
            return None
        surface = representation.surface
        if self._topology is None or self._topology[0] is not surface.joined_faces:
            same = surface.faces.shape == self._faces.shape and bool((surface.faces == self._faces).all())
            self._topology = surface.joined_faces, unique_edges(surface.joined_faces) if same else None
        return self._topology[1]


def make_anchor_objective(stage: Stage, job: Job) -> AnchorObjective | None:
    """None for objects that did not begin with the user's mesh, without weights, and in stages that move no vertex."""
    settings = job.settings.anchors
    if not has_start_mesh(job) or settings == AnchorSettings(0.0, 0.0):
        return None
    if isinstance(stage, MeshStage) and stage.learns == "material":
        return None
    return AnchorObjective(settings, job.inputs.mesh, job.prior.alphas_cumprod.device)
