"""Meshes from files and to files: the door to `backend.representations.files`.

Everything that can go wrong with a damaged or hostile file becomes one `InputError`. Vertices at one place are welded, so
that the copies that formats make along UV seams and hard edges move together; `backend.cli.own_format` finds each copy
again by its position.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import write_atomically
from backend.representations.files.file_mesh import FileMesh, joined
from backend.representations.files.gltf_reading import read_gltf_mesh
from backend.representations.files.gltf_writing import glb_bytes
from backend.representations.files.obj_reading import read_obj
from backend.representations.files.obj_writing import obj_files
from backend.representations.files.ply_reading import read_ply
from backend.representations.files.plain_writing import ply_bytes, stl_bytes
from backend.representations.files.surface import colors_at_vertices
from backend.representations.mesh_checks import MAX_FACES, check_mesh
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.polygons import Polygons, cut_polygons
from backend.representations.repair import check_and_repair

READABLE = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
WRITABLE = (".glb", ".obj", ".ply", ".stl")
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class ImportedMesh:
    """A mesh as its file has it: own units, place and orientation, scenes flattened with their transforms.

    Attributes:
        positions: `[V, 3]` float64, one row for each place where the file has vertices, in the order of the file.
        faces: `[F, 3]` int32, polygons cut into triangles.
        colors: `[V, 3]` float32 in [0, 1] as displayed, from the file's vertex colors, texture or material, or None.
        notes: sentences for a person on what is unusual about the mesh, and what of the file is not here.
        uvs: `[T, 2]` float32, v upward, as in the file; None without texture coordinates, or with those of a part only.
        uv_faces: `[F, 3]` int32, rows of `uvs` at the corners of each face; None exactly if `uvs` is.
        materials: the file's, in the order of its first use of them (OBJ) or of the file (glTF).
        face_material: `[F]` int32, rows of `materials`, -1 for none.
        objects: names, and `face_object` `[F]` int32: which of them a face belongs to.
        polygons: the artist's quads and n-gons; None if the file has triangles only (as glTF and STL always do).
        up: "y" or "z" if the format says which axis points up (glTF: y), else None (in STL files, it is mostly z).
        meters: how long the file's unit is if the format says so (glTF: 1), else None.
        udim_tiles: the tiles that texture coordinates lie in; (1001,) for ordinary ones.
    """

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None
    notes: tuple[str, ...]
    uvs: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    materials: tuple[MaterialData, ...] = ()
    face_material: np.ndarray | None = None
    objects: tuple[str, ...] = ()
    face_object: np.ndarray | None = None
    polygons: Polygons | None = None
    up: str | None = None
    meters: float | None = None
    udim_tiles: tuple[int, ...] = ()

    def material(self) -> MaterialData | None:
        """The one material of all faces; None if there are several, or none."""
        if self.face_material is None or len(used := np.unique(self.face_material)) != 1 or used[0] < 0:
            return None
        return self.materials[used[0]]


def load_mesh(path: Path) -> ImportedMesh:
    """Read a mesh file (GLB, glTF, OBJ, PLY, STL, OFF).

    Textures and material files are read from the mesh's folder and folders within it, never from elsewhere.

    Raises:
        InputError: the file is missing, too large, not readable as a mesh, or `check_and_repair` refuses the mesh.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            read = _read(path)
            _check_indices(read)
            return _imported(read)
    except InputError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise InputError(f"{path} cannot be read as a {path.suffix[1:].upper()} mesh; export it again.") from error


def write_glb(mesh: MeshData, path: Path, name: str = "Galatea") -> None:
    """Write a binary glTF 2.0 file: y up, meters, smooth normals, and the material with its textures inside.

    Without a texture, vertex colors are written; without a material, the surface is matte. The file appears complete or
    not at all.

    Raises:
        InputError: what `check_mesh` says; textures without texture coordinates; the folder cannot be written to, or its
            disk is full.
    """
    _check_writable(mesh)
    write_atomically(path, glb_bytes(mesh, name))


def write_mesh(mesh: MeshData, path: Path, name: str = "Galatea", polygons: Polygons | None = None) -> tuple[str, ...]:
    """Write a mesh by the ending of `path`: GLB, OBJ (with MTL and PNG textures beside it), PLY or STL (both binary).

    Args:
        polygons: the artist's polygons, for OBJ and PLY; its triangles are the mesh's faces.
    Returns:
        sentences on what the format has no room for.
    Raises:
        InputError: the ending is another one, or what `write_glb` says.
    """
    _check_writable(mesh)
    if polygons is not None and not np.array_equal(polygons.faces(), mesh.faces):
        raise InputError("The polygons are not those of the mesh: their triangles must be its faces; leave them out.")
    suffix = path.suffix.lower()
    if suffix == ".glb":
        write_atomically(path, glb_bytes(mesh, name))
        return () if polygons is None else ("GLB files hold triangles only: polygons are cut.",)
    if suffix == ".obj":
        for file, content in obj_files(mesh, path.name, name, polygons).items():
            write_atomically(path.with_name(file), content)
        return _blender_on_obj(mesh)
    if suffix == ".ply":
        write_atomically(path, ply_bytes(mesh, polygons))
        lost = mesh.uvs is not None or mesh.material is not None
        return ("PLY files hold vertex colors: texture coordinates and materials are left out.",) if lost else ()
    if suffix == ".stl":
        write_atomically(path, stl_bytes(mesh))
        return ("STL files hold bare triangles: colors, texture coordinates, materials and polygons are left out.",)
    raise InputError(f'{path} ends in "{path.suffix}"; meshes can be written as {", ".join(WRITABLE)} files.')


def _blender_on_obj(mesh: MeshData) -> tuple[str, ...]:
    material = mesh.material
    data = () if material is None else (material.metallic, material.roughness, material.normal)
    if not any(np.ndim(each) >= 2 for each in data if each is not None):
        return ()
    return (
        "Blender takes every texture of an OBJ file for a color: there, set the metallic, roughness and normal images to "
        "Non-Color, or use GLB.",
    )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no file {path}; give the path of a mesh ({', '.join(READABLE)}).")
    if path.suffix.lower() not in READABLE:
        raise InputError(f'{path} ends in "{path.suffix}"; meshes can be read from {", ".join(READABLE)} files.')
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty; export the mesh again.")
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB can be read.")


def _check_writable(mesh: MeshData) -> None:
    check_mesh(mesh)
    if mesh.material is None:
        return
    shapes = {
        "base_color": ("[3] or [H, W, 3]", [(3,)], 3),
        "metallic": ("a number or [H, W]", [(), (1,)], 1),
        "roughness": ("a number or [H, W]", [(), (1,)], 1),
        "normal": ("[H, W, 3] or None", [], 3),
        "emission": ("[3], [H, W, 3] or None", [(3,)], 3),
    }
    for name, (wanted, numbers, channels) in shapes.items():
        value = getattr(mesh.material, name)
        shape = np.shape(value)
        is_map = (len(shape) == 3 and shape[2] == channels or len(shape) == 2 and channels == 1) and 0 not in shape
        if not (is_map or shape in numbers) and not (value is None and name in ("normal", "emission")):
            raise InputError(f"The material's {name} must be {wanted}, not an array of shape {list(shape)}; reshape it.")
        if is_map and value is not None and mesh.uvs is None:
            raise InputError("The material has textures, but the mesh has no texture coordinates; unwrap the mesh first.")


def _read(path: Path) -> FileMesh:
    suffix = path.suffix.lower()
    if suffix in (".glb", ".gltf"):
        return read_gltf_mesh(path, MAX_FACES)
    if suffix == ".obj":
        return read_obj(path, MAX_FACES)
    if suffix == ".ply":
        return read_ply(path, MAX_FACES)
    return _read_with_trimesh(path)


def _read_with_trimesh(path: Path) -> FileMesh:
    """STL and OFF: bare triangles."""
    import trimesh

    parts = []
    for geometry in trimesh.load_scene(path, process=False, maintain_order=True).geometry.values():
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        faces = np.asarray(geometry.faces, dtype=np.int64).reshape(-1, 3)
        positions = np.asarray(geometry.vertices, dtype=np.float64).reshape(-1, 3)
        none = np.full(len(faces), -1)
        sizes = np.full(len(faces), 3)
        parts.append(FileMesh(positions, sizes, faces.reshape(-1), polygon_material=none, objects=[""]))
    mesh = joined(parts)
    mesh.objects, mesh.polygon_object = [], None
    return mesh


def _check_indices(read: FileMesh) -> None:
    for corners, rows in ((read.corners, read.positions), (read.uv_corners, read.uvs)):
        if corners is not None and len(corners) and not -1 <= corners.min() <= corners.max() < len(rows):
            raise InputError("A face names vertices that the file does not have; it is damaged, so export it again.")
    if len(read.corners) and read.corners.min() < 0:
        raise InputError("A face names vertices that the file does not have; it is damaged, so export it again.")
    if len(read.sizes) > MAX_FACES or len(read.corners) > 4 * MAX_FACES:
        raise InputError(f"The file has more than {MAX_FACES:,} faces; decimate the mesh first.")


def _imported(read: FileMesh) -> ImportedMesh:
    """Welded, cut into triangles, colored and checked."""
    notes = list(read.notes)
    uvs, uv_corners = _complete_uvs(read, notes)
    group, kept = _places(read.positions)
    positions = read.positions[kept]
    corners = group[read.corners]
    if uvs is not None and not read.uvs_are_shared:
        uvs, uv_corners = _weld_uvs(uvs, uv_corners, corners)
    cut = cut_polygons(_centered(positions), read.sizes, corners, uv_corners)
    small = int((read.sizes < 3).sum())
    if small:
        notes.append(f"{small:,} faces with fewer than three corners are left out.")
    colors = colors_at_vertices(read, group, len(positions))
    checked, more = check_and_repair(MeshData(_centered(positions), cut.faces(), colors))
    tiles = () if uvs is None else _udim_tiles(uvs[cut.uv_faces()])
    if len(tiles) > 1:
        listed = ", ".join(map(str, tiles[:6])) + (", ..." if len(tiles) > 6 else "")
        notes.append(
            f"The texture coordinates reach over {len(tiles)} tiles ({listed}): a repeating texture works, of UDIM tiles "
            "only the first does."
        )
    polygon_of = cut.triangle_polygon
    return ImportedMesh(
        positions,
        checked.faces,
        checked.colors,
        tuple(notes + more),
        uvs,
        cut.uv_faces(),
        tuple(read.materials),
        _of_faces(read.polygon_material, polygon_of) if read.materials else None,
        tuple(read.objects),
        _of_faces(read.polygon_object, polygon_of) if read.objects else None,
        None if (read.sizes == 3).all() else cut,
        read.up,
        read.meters,
        tiles,
    )


def _of_faces(of_polygons: np.ndarray | None, polygon_of: np.ndarray) -> np.ndarray | None:
    return None if of_polygons is None else of_polygons[polygon_of].astype(np.int32)


def _complete_uvs(read: FileMesh, notes: list[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Texture coordinates that are numbers, and one for each corner: corners without get a row (0, 0) at the end."""
    if read.uvs is None or read.uv_corners is None:
        return None, None
    if not np.isfinite(read.uvs).all():
        notes.append("The texture coordinates are not all numbers and are left out.")
        return None, None
    missing = read.uv_corners < 0
    if not missing.any():
        return read.uvs, read.uv_corners
    notes.append("Some faces have no texture coordinates; theirs are all 0.")
    uvs = np.concatenate([read.uvs, np.zeros((1, 2), np.float32)])
    return uvs, np.where(missing, len(read.uvs), read.uv_corners)


def _places(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each vertex [P], numbered by first appearance, and the vertices [V] that appear first."""
    rows = np.ascontiguousarray(positions + 0.0).view([("", np.float64)] * 3).reshape(-1)  # -0 and 0 are one place
    return _numbered_by_appearance(rows)


def _weld_uvs(uvs: np.ndarray, uv_corners: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row for each texture coordinate of each place, where the format has copies for hard edges as well."""
    rows = np.empty(len(corners), dtype=[("place", np.int64), ("u", np.uint32), ("v", np.uint32)])
    rows["place"] = corners
    rows["u"], rows["v"] = np.ascontiguousarray(uvs + np.float32(0.0)).view(np.uint32)[uv_corners].T
    group, kept = _numbered_by_appearance(rows)
    return uvs[uv_corners[kept]], group


def _numbered_by_appearance(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[group.reshape(-1)], np.sort(first)


def _udim_tiles(corners: np.ndarray) -> tuple[int, ...]:
    """The UDIM numbers of the tiles that triangles [F, 3, 2] of texture coordinates lie in, by their middles."""
    middles = np.unique(np.floor(corners.mean(axis=1)).astype(np.int64), axis=0)
    inside = middles[(middles >= 0).all(axis=1) & (middles[:, 0] < 10) & (middles[:, 1] < 1000)]
    return tuple(sorted(int(1001 + u + 10 * v) for u, v in inside))


def _centered(positions: np.ndarray) -> np.ndarray:
    """Around the middle of their extent: far from the origin, float32 would lose what float64 has."""
    if len(positions) == 0 or not np.isfinite(positions).all():
        return positions
    with np.errstate(over="ignore"):
        return positions - (positions.min(axis=0) / 2.0 + positions.max(axis=0) / 2.0)
