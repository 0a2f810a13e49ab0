"""A job that ends with a texture: in its mesh.glb, and in the artist's own file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.cli.job_arguments import JobFile
from backend.cli.job_history import HistoryLog
from backend.cli.job_session import JobSession
from backend.cli.output_folder import begin
from backend.cli.progress import PlainProgress
from backend.cli.start_mesh import StartMesh
from backend.optimize.events import Event, Finished, StageStarted, StepDone
from backend.representations import load_mesh, write_mesh
from backend.representations.files.surface import vertex_colors
from backend.representations.mesh_data import MeshData
from protocol.settings import JobSettings, MeshStage
from tests.backend.representations.mesh_samples import eight_bit, textured_box


def events(result: MeshData) -> Iterator[Event]:
    yield StageStarted(0, 1, "mesh", 1)
    yield StepDone(1, 1, 0, 0.05, 1.0, {"gradient_norm": 1.0}, (0.0,) * 4, (15.0,) * 4, 0.0)
    yield Finished(1, result, 0.4, {})


def test_a_texture_is_in_the_results(tmp_path: Path) -> None:
    write_mesh(textured_box(), tmp_path / "box.glb")
    start = StartMesh.read(tmp_path / "box.glb", "y")
    painted = replace(start.mesh.material, base_color=eight_bit(np.random.default_rng(5), 8, 8, 3))
    result = replace(start.mesh, colors=None, material=painted)
    result = replace(result, colors=vertex_colors(result))  # as a textured mesh's results have them
    folder = begin(tmp_path / "out", "galatea refine")
    session = JobSession(
        JobFile("refine", JobSettings(prompt="a box", stages=(MeshStage(steps=1),), prior="analytic"), start.source),
        folder,
        HistoryLog(folder.job),
        PlainProgress(),
    )
    finished = session.follow(events(result))
    assert finished is not None
    session.write_results(finished, {"packages": {}, "device": "cpu"}, start.write_result)
    session.close()
    folder.close()
    for name in ("mesh.glb", "box-refined.glb"):
        back = load_mesh(tmp_path / "out" / name)
        np.testing.assert_array_equal(back.material().base_color, painted.base_color)
        np.testing.assert_array_equal(back.material().metallic, painted.metallic)
        np.testing.assert_allclose(back.colors, result.colors, atol=1e-6)  # the texture's, not darkened by themselves
