"""Every function that takes a mesh, on every broken mesh: it works with finite results, or refuses in one clear sentence."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.errors import InputError
from backend.representations import repair
from backend.representations.mesh_data import MeshData
from backend.representations.triangle_mesh import TriangleMesh
from protocol.settings import MeshStage
from tests.backend.representations.broken_meshes import BALL, CAMERAS, ENTRIES, UNUSABLE, USABLE, with_faces

WORK_ON_ALL_USABLE = {
    "render_mesh", "render_material", "vertex_normals", "TriangleMesh", "check_and_repair", "soundness", "inverted_share",
    "self_intersections", "remesh_adaptive", "remesh_isotropic", "curvature_edge_length", "load_mesh",
}  # fmt: skip
"""The others may refuse: no charts, no inside, no room in a file."""

CHECK_NO_VALUES = {"render_mesh", "render_material", "vertex_normals", "load_mesh", "remesh_isotropic"}
"""Operators on tensors do not wait for a GPU to look at numbers: faces that are not finite are left out, and colors come
out as they went in. `load_mesh` is given a
file without colors, and remeshing to a number of vertices positions and faces alone."""

REFUSED_BY_ALL_ELSE = ("not a number", "infinite", "huge", "an index too large", "a huge index", "a negative index")


def is_finite(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, MeshData):
        return all(is_finite(each) for each in (value.positions, value.colors, value.uvs))
    values = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value, dtype=float)
    return bool(np.isfinite(values).all())


@pytest.fixture(autouse=True)
def quick_rebuilding(monkeypatch):
    monkeypatch.setattr(repair, "REBUILD_RESOLUTION", 24)


def outcome(entry: str, mesh: MeshData, folder: Path) -> str | None:
    """None if it worked with finite results, else the sentence of the refusal."""
    function = ENTRIES[entry]
    try:
        results = function(mesh, folder) if len(inspect.signature(function).parameters) == 2 else function(mesh)
    except InputError as error:
        return str(error)
    assert all(is_finite(each) for each in results)
    return None


@pytest.mark.parametrize("entry", ENTRIES)
def test_odd_surfaces_work_or_are_refused_in_one_sentence(entry, tmp_path):
    for name, make in USABLE.items():
        refusal = outcome(entry, make(), tmp_path)
        assert refusal is None or (entry not in WORK_ON_ALL_USABLE and "\n" not in refusal), (name, refusal)


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_mesh_is_refused_or_does_no_harm(entry, tmp_path):
    for name, make in UNUSABLE.items():
        if entry == "render_mesh" and name == "colors that are not numbers":
            continue
        refusal = outcome(entry, make(), tmp_path)
        assert refusal is None or "\n" not in refusal
        if entry not in CHECK_NO_VALUES and name in REFUSED_BY_ALL_ELSE:
            assert refusal is not None, f"{name} was taken"


def test_a_face_without_area_changes_nothing_for_the_optimizer():
    # Between neighbors, since the optimizer takes a face's sides for edges of the surface.
    first, second = BALL.faces[0, :2].tolist()
    faces = with_faces([first, first, second], [7, 7, 7]).faces
    results = []
    for mesh in (BALL, MeshData(BALL.positions, faces, BALL.colors)):
        model = TriangleMesh(mesh, MeshStage(steps=1))
        optimizer = torch.optim.SGD([model.displacement, model.colors], 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            rendered = model.render(CAMERAS, 32)
            (rendered.rgb.square().mean() + rendered.alpha.mean()).backward()
            optimizer.step()
        results.append(model.to_mesh())
    assert np.abs(results[0].positions - BALL.positions).max() > 1e-4
    np.testing.assert_allclose(results[1].positions, results[0].positions, atol=2e-6)
    np.testing.assert_allclose(results[1].colors, results[0].colors, atol=2e-6)
    np.testing.assert_array_equal(results[1].faces, faces)
