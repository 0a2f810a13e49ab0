"""The job that anchor views are shown on, and how far its result is from the object it began with."""

from __future__ import annotations

import numpy as np
import torch

from backend.cameras import Cameras
from backend.evaluation.evaluate import held_out_specs, prompt_for
from backend.evaluation.judge_data import true_mesh
from backend.rendering import Rendered, render_mesh
from backend.representations.mesh_data import MeshData
from benchmarks.loss_jobs import QUIET, LossJob
from protocol.settings import Constant, GuidanceSettings, JobSettings, Linear, MeshStage

SIZE = 64
CAMERAS = Cameras.orbit([22.5 + 45.0 * number for number in range(8)], [18.0, -10.0] * 4)
"""Between the anchors."""


def repainting_job(kind: str = "duck", steps: int = 60) -> LossJob:
    """An artist's object, finished and in colors of its own, refined toward a prompt that wants other ones."""
    spec = next(spec for spec in held_out_specs() if spec.kind.name == kind)
    start = true_mesh(spec, np.random.default_rng(11))
    stage = MeshStage(
        steps=steps,
        position_rate=Linear(0.005, 0.0005),
        color_rate=Linear(0.03, 0.003),
        smoothing=15.0,
        laplacian=0.5,
        guidance=GuidanceSettings(scale=Linear(2.5, 1.5), t_min=Constant(0.1), t_max=Linear(0.7, 0.5)),
    )
    settings = JobSettings(prompt_for(spec), (stage,), strength=1.0, checkpoint_seconds=QUIET, preview_seconds=QUIET)
    return LossJob(settings, spec, MeshData(start.positions, start.faces, start.colors[:, [2, 0, 1]].copy()))


def color_drift(mesh: MeshData, job: LossJob) -> float:
    """Mean absolute difference of unlit colors from the start's, over the pixels that both cover in eight views between anchors."""
    now, then = _views(mesh), _views(job.start)
    both = (now.alpha > 0.999) & (then.alpha > 0.999)
    return float((now.rgb - then.rgb).abs().mean(-1, keepdim=True)[both].mean())


def silhouette_drift(mesh: MeshData, job: LossJob) -> float:
    """1 - IoU of the pixels that the result and the start cover in those views."""
    now, then = (_views(each).alpha > 0.5 for each in (mesh, job.start))
    return 1.0 - float((now & then).sum() / (now | then).sum())


@torch.no_grad()
def _views(mesh: MeshData) -> Rendered:
    colors = np.full_like(mesh.positions, 0.5) if mesh.colors is None else mesh.colors
    arrays = (np.ascontiguousarray(each) for each in (mesh.positions, mesh.faces, colors))
    return render_mesh(*(torch.from_numpy(each) for each in arrays), CAMERAS, SIZE, shading="albedo", supersample=2)
