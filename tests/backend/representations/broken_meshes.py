"""Meshes as artists, exporters and crashed programs leave them, and everything of ours that takes a mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from backend.cameras import Cameras
from backend.rendering import Material, render_material, render_mesh, vertex_normals
from backend.representations.adaptive_remesh import remesh_adaptive
from backend.representations.bake import bake_colors
from backend.representations.edge_lengths import curvature_edge_length
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_io import load_mesh, write_mesh
from backend.representations.primitives import icosphere
from backend.representations.remesh import remesh_isotropic
from backend.representations.repair import check_and_repair, inverted_share, make_sound
from backend.representations.self_intersection import self_intersections
from backend.representations.soundness import soundness
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh
from backend.representations.unwrap import unwrap
from protocol.settings import MeshStage, TetrahedraStage

BALL = icosphere(1)
"""42 vertices, 80 faces, gray."""


def moved(row: int, to: object) -> MeshData:
    positions = BALL.positions.copy()
    positions[row] = to
    return replace(BALL, positions=positions)


def with_faces(*more: list[int]) -> MeshData:
    return replace(BALL, faces=np.concatenate([BALL.faces, np.array(more, dtype=np.int32)]))


def with_vertices(*more: list[float]) -> MeshData:
    return MeshData(np.concatenate([BALL.positions, np.array(more, dtype=np.float32)]), BALL.faces)


def soup() -> MeshData:
    return MeshData(BALL.positions[BALL.faces].reshape(-1, 3), np.arange(240, dtype=np.int32).reshape(-1, 3))


def bow_tie() -> MeshData:
    top = int(np.argmax(BALL.positions[:, 1]))
    other = BALL.positions + np.float32([0, 2 * BALL.positions[top, 1], 0])
    bottom = 42 + int(np.argmin(other[:, 1]))
    faces = np.concatenate([BALL.faces, np.where(BALL.faces + 42 == bottom, top, BALL.faces + 42)])
    return MeshData((np.concatenate([BALL.positions, other]) * 0.5).astype("f4"), faces.astype("i4"))


def textured(uvs: np.ndarray, uv_faces: np.ndarray | None = None) -> MeshData:
    return replace(BALL, uvs=uvs.astype("f4"), uv_faces=BALL.faces if uv_faces is None else uv_faces)


FIRST = [int(each) for each in BALL.faces[0]]
FLAT_UVS = BALL.positions[:, :2] * 0.5 + 0.5

USABLE: dict[str, Callable[[], MeshData]] = {
    "three faces at an edge": lambda: MeshData(
        np.concatenate([BALL.positions, [[0, 0.9, 0]]]).astype("f4"),
        np.concatenate([BALL.faces, [[*FIRST[:2], 42]]]).astype("i4"),
    ),
    "two balls at one vertex": bow_tie,
    "a face twice": lambda: with_faces(FIRST),
    "all faces twice, to both sides": lambda: replace(BALL, faces=np.concatenate([BALL.faces, BALL.faces[:, ::-1]])),
    "no vertex shared": soup,
    "duplicate vertices": lambda: with_vertices(*BALL.positions[:3]),
    "unreferenced vertices": lambda: with_vertices([0.5, 0.5, 0.5], [0.0, 0.1, 0.0]),
    "one face turned": lambda: replace(BALL, faces=np.concatenate([BALL.faces[:1, ::-1], BALL.faces[1:]])),
    "all faces turned": lambda: replace(BALL, faces=np.ascontiguousarray(BALL.faces[:, ::-1])),
    "a face that repeats a vertex": lambda: with_faces([5, 5, 9]),
    "a face that is one vertex": lambda: with_faces([7, 7, 7]),
    "two vertices at one place": lambda: moved(FIRST[0], BALL.positions[FIRST[1]]),
    "a face on a line": lambda: moved(FIRST[0], (BALL.positions[FIRST[1]] + BALL.positions[FIRST[2]]) / 2),
    "a hole": lambda: replace(BALL, faces=BALL.faces[3:]),
    "one face": lambda: MeshData(BALL.positions[:3], np.array([[0, 1, 2]], dtype="i4")),
    "flat": lambda: replace(BALL, positions=BALL.positions * np.float32([1, 0, 1])),
    "through itself": lambda: moved(FIRST[0], -1.2 * BALL.positions[FIRST[0]]),
    "texture coordinates without area": lambda: textured(np.zeros((42, 2))),
    "texture coordinates that overlap": lambda: textured(FLAT_UVS),
}
"""Odd, but a surface: whoever takes meshes may refuse what it cannot work with, but most have to work."""

UNUSABLE: dict[str, Callable[[], MeshData]] = {
    "not a number": lambda: moved(FIRST[0], np.nan),
    "infinite": lambda: moved(FIRST[0], np.inf),
    "unreferenced vertex that is not a number": lambda: with_vertices([np.nan, 0, 0]),
    "huge": lambda: replace(BALL, positions=BALL.positions * np.float32(1e30)),
    "no faces": lambda: replace(BALL, faces=np.zeros((0, 3), dtype="i4")),
    "no vertices": lambda: MeshData(np.zeros((0, 3), "f4"), np.zeros((0, 3), "i4")),
    "an index too large": lambda: with_faces([0, 1, 42]),
    "a huge index": lambda: with_faces([0, 1, 2**31 - 1]),
    "a negative index": lambda: with_faces([0, 1, -1]),
    "all at one point": lambda: replace(BALL, positions=np.full((42, 3), 0.25, dtype="f4")),
    "all on a line": lambda: replace(BALL, positions=BALL.positions * np.float32([1, 0, 0])),
    "quads": lambda: replace(BALL, faces=np.array([[0, 1, 2, 3]], dtype="i4")),
    "faces of floats": lambda: replace(BALL, faces=BALL.faces.astype("f4")),
    "two coordinates": lambda: replace(BALL, positions=BALL.positions[:, :2]),
    "colors for other vertices": lambda: replace(BALL, colors=BALL.colors[:5]),
    "colors that are not numbers": lambda: replace(BALL, colors=BALL.colors * np.float32(np.nan)),
    "texture coordinates that are not numbers": lambda: textured(FLAT_UVS * np.nan),
    "texture coordinates that do not exist": lambda: textured(FLAT_UVS[:10]),
    "texture coordinates of other faces": lambda: textured(FLAT_UVS, BALL.faces[:10]),
    "texture coordinates without faces": lambda: replace(BALL, uvs=FLAT_UVS.astype("f4")),
}
"""No surface, or numbers without meaning."""

CAMERAS = Cameras.orbit([20.0, 200.0], 15.0)


def shown(mesh: MeshData) -> list[object]:
    vertices = torch.tensor(mesh.positions, requires_grad=True)
    colors = None if mesh.colors is None else torch.tensor(mesh.colors, requires_grad=True)
    rendered = render_mesh(vertices, torch.tensor(mesh.faces), colors, CAMERAS, 24)
    (rendered.rgb.square().sum() + rendered.alpha.sum()).backward()
    return [rendered.rgb, rendered.alpha, vertices.grad]


def shown_with_material(mesh: MeshData) -> list[object]:
    vertices = torch.tensor(mesh.positions, requires_grad=True)
    uvs = None if mesh.uvs is None else torch.tensor(mesh.uvs)
    uv_faces = None if mesh.uv_faces is None else torch.tensor(mesh.uv_faces)
    material = Material.plain((0.8, 0.4, 0.2), roughness=0.4)
    if uvs is not None:
        tilted = torch.nn.functional.normalize(torch.tensor([0.2, 0.1, 1.0]), dim=0).expand(4, 4, 3)
        material = replace(material, base_color=torch.rand(4, 4, 3), normal=tilted.contiguous())
    rendered = render_material(vertices, torch.tensor(mesh.faces), uvs, uv_faces, material, CAMERAS, 24)
    (rendered.rgb.square().sum() + rendered.alpha.sum()).backward()
    return [rendered.rgb, rendered.alpha, vertices.grad]


def normals(mesh: MeshData) -> list[object]:
    vertices = torch.tensor(mesh.positions, requires_grad=True)
    result = vertex_normals(vertices, torch.tensor(mesh.faces))
    result.square().sum().backward()
    return [result, vertices.grad]


def optimized(kind: type) -> Callable[[MeshData], list[object]]:
    def run(mesh: MeshData) -> list[object]:
        model = kind(mesh, MeshStage(steps=1, texture_size=128))
        optimizers = [torch.optim.Adam(group["params"], 1e-3) for group in model.parameter_groups()]
        for _ in range(2):
            rendered = model.render(CAMERAS, 24)
            loss = rendered.rgb.square().sum() + sum(model.regularization().values())
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        result = model.to_mesh()
        assert len(result.positions) == len(mesh.positions) and np.array_equal(result.faces, mesh.faces)
        return [rendered.rgb, result]

    return run


def unwrapped_and_baked(mesh: MeshData) -> list[object]:
    result = unwrap(mesh, 64)
    return [result, bake_colors(result, 64).base_color] if result.colors is not None else [result]


def tetrahedra(mesh: MeshData) -> list[object]:
    grid = TetrahedralGrid(TetrahedraStage(steps=1, resolution=12), start=mesh)
    return [grid.distances(), grid.to_mesh()]


def written_and_read(suffix: str) -> Callable[[MeshData, Path], list[object]]:
    def run(mesh: MeshData, folder: Path) -> list[object]:
        write_mesh(mesh, folder / f"mesh{suffix}")
        read = load_mesh(folder / f"mesh{suffix}")
        return [read.positions, read.faces, read.colors]

    return run


def read_from_text(mesh: MeshData, folder: Path) -> list[object]:
    lines = [f"v {' '.join(str(float(x)) for x in row)}" for row in mesh.positions]
    lines += [f"f {' '.join(str(int(v) + 1) for v in face)}" for face in mesh.faces]
    (folder / "mesh.obj").write_text("\n".join(lines))
    read = load_mesh(folder / "mesh.obj")
    return [read.positions, read.faces]


ENTRIES: dict[str, Callable] = {
    "render_mesh": shown,
    "render_material": shown_with_material,
    "vertex_normals": normals,
    "TriangleMesh": optimized(TriangleMesh),
    "TexturedMesh": optimized(TexturedMesh),
    "check_and_repair": lambda mesh: [check_and_repair(mesh)[0]],
    "make_sound": lambda mesh: [make_sound(mesh)],
    "inverted_share": lambda mesh: [inverted_share(mesh)],
    "soundness": lambda mesh: [soundness(mesh).volume],
    "self_intersections": lambda mesh: [self_intersections(mesh)],
    "remesh_adaptive": lambda mesh: [remesh_adaptive(mesh, 0.2)],
    "curvature_edge_length": lambda mesh: [curvature_edge_length(mesh, 0.3, 0.1)],
    "remesh_isotropic": lambda mesh: [*remesh_isotropic(mesh.positions, mesh.faces, 60)],
    "unwrap": unwrapped_and_baked,
    "TetrahedralGrid": tetrahedra,
    "write_mesh .glb": written_and_read(".glb"),
    "write_mesh .obj": written_and_read(".obj"),
    "write_mesh .ply": written_and_read(".ply"),
    "write_mesh .stl": written_and_read(".stl"),
    "load_mesh": read_from_text,
}
