"""Where a mesh file's vertices go and come back from, whatever its size, place and up axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from backend.cli.start_mesh import FILL, Placement, StartMesh
from backend.errors import InputError
from backend.representations.mesh_data import MeshData

OBJ = "v 10 0 0\nv 30 0 0\nv 30 20 0\nv 10 20 0\nv 20 10 40\nvt 0 0\nvt 1 1\nf 4/1 3/2 2/1 1/2\nf 1 2 5\nf 2 3 5\nf 3 4 5\nf 4 1 5\n"


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A square base in the plane z = 0, its tip at z = 40."""
    path = tmp_path / "pyramid.obj"
    path.write_text(OBJ)
    return path


@pytest.mark.parametrize("up", ["y", "z"])
def test_mesh_is_fitted_into_the_unit_sphere_upright(pyramid: Path, up: str) -> None:
    start = StartMesh.read(pyramid, up)
    assert np.linalg.norm(start.mesh.positions, axis=1).max() == pytest.approx(FILL, abs=1e-6)
    tip = start.mesh.positions[np.argmax(start.original[:, 2])]
    assert np.argmax(np.abs(tip)) == {"y": 2, "z": 1}[up] and tip.max() > 0


def test_placement_is_undone_exactly_enough() -> None:
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    placement = Placement(turn, np.array([100.0, -5.0, 3.0]), 0.01)
    points = np.random.default_rng(0).normal(100, 30, (50, 3))
    np.testing.assert_allclose(placement.undo(placement.apply(points)), points, atol=1e-10)
    assert np.linalg.det(turn) == pytest.approx(1.0)  # a turn, not a mirror


@pytest.mark.parametrize("up", ["y", "z"])
def test_unmoved_mesh_comes_back_where_it_was(pyramid: Path, up: str, tmp_path: Path) -> None:
    start = StartMesh.read(pyramid, up)
    assert start.obstacle() is None
    (tmp_path / "out").mkdir()
    start.write_result(start.mesh, tmp_path / "out")
    lines = (tmp_path / "out" / "pyramid-refined.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(vertices, [[10, 0, 0], [30, 0, 0], [30, 20, 0], [10, 20, 0], [20, 10, 40]], atol=1e-4)
    assert [line for line in lines if line[0] == "f"] == [line for line in OBJ.splitlines() if line[0] == "f"]


def test_vertices_that_did_not_move_are_copied(tmp_path: Path) -> None:
    """Digits that single precision cannot hold must survive where nothing moved."""
    path = tmp_path / "odd.obj"
    path.write_text("v 10.1234567 0.3 0\nv 30.7654321 0 0\nv 20 20.1 0\nv 20 10 40\nf 3 2 1\nf 1 2 4\nf 2 3 4\nf 3 1 4\n")
    start = StartMesh.read(path, "y")
    positions = start.mesh.positions.copy()
    positions[3] += np.float32(0.1)
    (tmp_path / "out").mkdir()
    start.write_result(MeshData(positions, start.mesh.faces, start.mesh.colors), tmp_path / "out")
    lines = (tmp_path / "out" / "odd-refined.obj").read_text().splitlines()
    vertices = [[float(word) for word in line.split()[1:4]] for line in lines if line.startswith("v ")]
    assert vertices[:3] == [[10.1234567, 0.3, 0], [30.7654321, 0, 0], [20, 20.1, 0]]
    assert vertices[3] != [20, 10, 40]


def test_moved_vertex_moves_in_the_file(pyramid: Path, tmp_path: Path) -> None:
    start = StartMesh.read(pyramid, "z")
    positions = start.mesh.positions.copy()
    tip = np.argmax(start.original[:, 2])
    positions[tip] += np.float32([0, 0.1, 0])
    (tmp_path / "out").mkdir()
    start.write_result(MeshData(positions, start.mesh.faces, start.mesh.colors), tmp_path / "out")
    moved = trimesh.load(tmp_path / "out" / "pyramid-refined.obj", process=False)
    assert moved.bounds[1][2] == pytest.approx(40 + 0.1 / start.placement.scale, abs=1e-3)


def test_changed_or_missing_file_is_not_resumed_with(pyramid: Path) -> None:
    source = StartMesh.read(pyramid, "y").source
    assert StartMesh.read_again(source).source == source
    pyramid.write_text(OBJ.replace("v 20 10 40", "v 20 10 41"))
    with pytest.raises(InputError, match="has changed"):
        StartMesh.read_again(source)
    pyramid.unlink()
    with pytest.raises(InputError, match="not there any more"):
        StartMesh.read_again(source)


def test_file_that_cannot_be_written_back_is_known_before_the_job(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), geom_name="box", node_name="one")
    scene.graph.update("two", matrix=trimesh.transformations.translation_matrix([3, 0, 0]), geometry="box")
    (tmp_path / "twice.glb").write_bytes(scene.export(file_type="glb"))
    assert "several places" in StartMesh.read(tmp_path / "twice.glb", "y").obstacle()


ASCII_PLY = """ply
format ascii 1.0
element vertex 4
property double x
property double y
property double z
property float nx
property float ny
property float nz
property uchar red
property uchar green
property uchar blue
element face 4
property list uchar int vertex_indices
end_header
10.12345678901 0.30 0 .6 .8 0 10 20 30
30.7654321 0 0 0 1 0 40 50 60
20 20.1 0 0 1 0 70 80 90
20 10 40 0 0 1 100 110 120
3 2 1 0
3 0 1 3
3 1 2 3
3 2 0 3
"""
COLORED_OBJ = "v 10.12345678901 0.30 0 .123456 0.5 1\nv 30.7654321 0 0 0 0 0\nv 20 20.1 0 1 1 1\nv 20 10 40 1 0 0\nf 3 2 1\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"
OFF = "OFF\n4 4 6\n10.12345678901 0.30 0\n30.7654321 0 0\n20 20.1 0\n20 10 40\n3 2 1 0\n3 0 1 3\n3 1 2 3\n3 2 0 3\n"


@pytest.mark.parametrize(("name", "content"), [("a.ply", ASCII_PLY), ("a.obj", COLORED_OBJ), ("a.off", OFF)])
def test_what_did_not_change_keeps_the_files_own_numbers(name: str, content: str, tmp_path: Path) -> None:
    """To the letter: positions, colors, and normals of vertices around which nothing moved."""
    (tmp_path / name).write_text(content)
    start = StartMesh.read(tmp_path / name, "z")
    out = tmp_path / "out"
    out.mkdir()
    start.write_result(start.mesh, out)
    refined = out / name.replace(".", "-refined.")
    assert refined.read_text() == content
    positions, colors = start.mesh.positions.copy(), start.mesh.colors
    positions[3] += np.float32(0.1)
    if colors is not None:
        colors = colors.copy()
        colors[3] = 0.25
    start.write_result(MeshData(positions, start.mesh.faces, colors), out)
    before, after = content.splitlines(), refined.read_text().splitlines()
    first = next(index for index, line in enumerate(before) if "10.12345678901" in line)
    keep = 3 if name == "a.ply" else 10  # the moved vertex turns the normals of all others
    for row in range(3):
        assert after[first + row].split()[:keep] == before[first + row].split()[:keep]
    if name == "a.ply":
        assert [line.split()[6:] for line in after[first : first + 3]] == [line.split()[6:] for line in before[first : first + 3]]
    assert after[first + 3] != before[first + 3]


def test_a_turned_gltf_node_keeps_the_floats_of_what_did_not_move(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3)).astype(np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    scene = trimesh.Scene()
    mesh = trimesh.Trimesh(points, faces, process=False)
    mesh.vertex_normals  # noqa: B018  so that the export holds normals
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3]) @ np.diag([1.3, 1.3, 1.3, 1.0])
    turn[:3, 3] = 3e8, 3.0, -7.0  # where there and back through the node loses digits
    scene.add_geometry(mesh, transform=turn)
    path = tmp_path / "turned.glb"
    path.write_bytes(scene.export(file_type="glb", include_normals=True))
    start = StartMesh.read(path, "y")
    positions = start.mesh.positions.copy()
    moved = np.unique(start.mesh.faces[0])
    positions[moved] += np.float32(0.05)
    out = tmp_path / "out"
    out.mkdir()
    start.write_result(MeshData(positions, start.mesh.faces, start.mesh.colors), out)
    before, after = (next(iter(trimesh.load(file, process=False).geometry.values())) for file in (path, out / "turned-refined.glb"))
    same = (before.vertices == after.vertices).all(axis=1)
    assert same.sum() == 9 and np.abs(before.vertices - after.vertices)[~same].min() > 1e-4
    np.testing.assert_array_equal(after.vertex_normals[same], before.vertex_normals[same])
