"""The small jobs that losses are shown on: a rough, gray toy of a thousand vertices, refined in one mesh stage of the embedded prior."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from backend.evaluation.degrade import degraded
from backend.evaluation.evaluate import held_out_specs, prompt_for
from backend.evaluation.judge_data import true_mesh
from backend.optimize.events import Finished
from backend.optimize.inputs import Inputs, Picture
from backend.optimize.checkpoint import fingerprint
from backend.optimize.pictures import render_views
from backend.optimize.run import run_job
from backend.priors.prior import Prior
from backend.representations.mesh_data import MeshData
from backend.representations.remesh import remesh_isotropic
from backend.toybox.objects import ObjectSpec
from protocol.settings import Constant, GuidanceSettings, JobSettings, Linear, LossSettings, MeshStage, ReferenceSettings, Sqrt, Stage

QUIET = 1e9
"""Seconds between checkpoints and previews that never come."""


@dataclass(frozen=True)
class LossJob:
    """A job and the description that its result is judged by."""

    settings: JobSettings
    spec: ObjectSpec
    start: MeshData | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings, Inputs(self.start, self.pictures), "toybox")


def standard_job(kind: str = "duck", steps: int = 60, **stage: object) -> LossJob:
    """`kind` to be refined from a rough, gray body of another one of its kind, toward the held-out description; its topology is
    free, so that no bend of the start is an artist's, but is never renewed."""
    spec = next(spec for spec in held_out_specs() if spec.kind.name == kind)
    made = MeshStage(
        steps=steps,
        position_rate=Linear(0.006, 0.0006),
        color_rate=Linear(0.04, 0.004),
        laplacian=0.1,
        smoothing=1.0,
        remesh_every=1_000_000,
        guidance=GuidanceSettings(scale=Linear(2.5, 1.5), t_min=Constant(0.1), t_max=Sqrt(0.7, 0.4)),
    )
    return LossJob(_settings(spec, msgspec.structs.replace(made, **stage)), spec, rough_body(spec))


def leaning_job() -> LossJob:
    """The standard job from a body that leans to one side."""
    job = standard_job()
    lean = 0.25 * np.outer(job.start.positions[:, 1], [1.0, 0.0, 0.0]).astype(np.float32)
    return replace(job, start=replace(job.start, positions=job.start.positions + lean))


def pictured_job(**losses: object) -> LossJob:
    """The standard job with a picture of a true object's front, in white light."""
    job = standard_job()
    seen = render_views(true_mesh(job.spec, np.random.default_rng(8)), [0.0], 0.0, 128)[0]
    settings = msgspec.structs.replace(job.settings, references=(ReferenceSettings(framing="keep"),))
    return changed(replace(job, settings=settings, pictures=(Picture(seen),)), losses)


def rough_body(spec: ObjectSpec, vertices: int = 1000, bumps: float = 0.012) -> MeshData:
    """A true object as optimization would leave it, remeshed, gray, and every vertex moved by normal noise of `bumps`."""
    rng = np.random.default_rng(7)
    body = degraded(true_mesh(spec, rng), rng)
    positions, faces = remesh_isotropic(body.positions, body.faces, vertices)
    return MeshData((positions + bumps * rng.standard_normal(positions.shape)).astype(np.float32), faces)


def _settings(spec: ObjectSpec, stage: Stage) -> JobSettings:
    return JobSettings(prompt_for(spec), (stage,), seed=0, checkpoint_seconds=QUIET, preview_seconds=QUIET, strength=1.0)


def changed(job: LossJob, losses: Mapping[str, object]) -> LossJob:
    """The job with these fields of its `LossSettings`, in every stage; a field of the stage itself may be among them."""
    stages = []
    for stage in job.settings.stages:
        own = {name: value for name, value in losses.items() if name not in LossSettings.__struct_fields__}
        others = {name: value for name, value in losses.items() if name not in own}
        stages.append(msgspec.structs.replace(stage, losses=msgspec.structs.replace(stage.losses, **others), **own))
    return replace(job, settings=msgspec.structs.replace(job.settings, stages=tuple(stages)))


def run_once(job: LossJob, prior: Prior, folder: Path) -> MeshData:
    """The job's result; taken from `folder` if it has been made before."""
    path = folder / f"{hashlib.sha256(job.fingerprint.encode()).hexdigest()[:24]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            for event in run_job(job.settings, job.start, prior, Path(work), pictures=job.pictures):
                pass
        assert isinstance(event, Finished)
        mesh = event.mesh
        arrays = {"positions": mesh.positions, "faces": mesh.faces, "colors": mesh.colors}
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, **{name: values for name, values in arrays.items() if values is not None})
        part.replace(path)
    with np.load(path) as kept:
        return MeshData(kept["positions"], kept["faces"], kept["colors"] if "colors" in kept else None)
