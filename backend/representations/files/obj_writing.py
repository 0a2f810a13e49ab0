"""OBJ files with their MTL material and PNG textures."""

from __future__ import annotations

import numpy as np

from backend.representations.files.disk import sound_text
from backend.representations.files.images import normal_to_bytes, png_of_bytes, srgb_to_linear, to_bytes
from backend.representations.files.surface import smooth_normals
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.polygons import Polygons


def obj_files(mesh: MeshData, file_name: str, name: str, polygons: Polygons | None) -> dict[str, bytes]:
    """The files by their names, each before those that refer to it; the OBJ file comes last.

    Numbers have nine digits: float32 comes back with the same bits. Vertex colors follow the coordinates, as displayed,
    where the mesh has no texture.
    """
    stem = "_".join(file_name.removesuffix(".obj").removesuffix(".OBJ").split())  # readers cut names at spaces
    files = {} if mesh.material is None else mtl_files(mesh.material, stem)
    textured = mesh.material is not None and mesh.uvs is not None and np.ndim(mesh.material.base_color) == 3
    lines = ["# Galatea"]
    if mesh.material is not None:
        lines.append(f"mtllib {stem}.mtl")
    lines.append(f"o {one_line(name)}")
    if mesh.colors is None or textured:
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.positions.tolist()]
    else:
        rows = np.concatenate([mesh.positions, mesh.colors.clip(0.0, 1.0)], axis=1).tolist()
        lines += [f"v {x:.9g} {y:.9g} {z:.9g} {r:.6g} {g:.6g} {b:.6g}" for x, y, z, r, g, b in rows]
    if mesh.uvs is not None:
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in mesh.uvs.tolist()]
    normals = smooth_normals(mesh.positions, mesh.faces)
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in normals.tolist()]
    if mesh.material is not None:
        lines.append(f"usemtl {one_line(mesh.material.name)}")
    lines += ["s 1", *_face_lines(mesh, polygons)]
    files[file_name] = ("\n".join(lines) + "\n").encode()
    return files


def mtl_files(material: MaterialData, stem: str) -> dict[str, bytes]:
    """The textures and then the MTL file `stem.mtl`; colors are linear, as Blender writes and reads them."""
    statements, files = mtl_statements(material, stem)
    lines = ["# Galatea MTL, colors linear", f"newmtl {one_line(material.name)}", "illum 2"]
    for slot in statements.values():
        lines += slot
    return files | {f"{stem}.mtl": ("\n".join(lines) + "\n").encode()}


def mtl_statements(material: MaterialData, stem: str) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """The lines that each property of a material becomes, and the textures that they name."""
    files: dict[str, bytes] = {}

    def texture(what: str, texels: np.ndarray) -> str:
        files[f"{stem}_{what}.png"] = png_of_bytes(texels)
        return f"{stem}_{what}.png"

    said: dict[str, list[str]] = {}
    if np.ndim(material.base_color) == 3:
        said["base_color"] = ["Kd 1 1 1", f"map_Kd {texture('base_color', to_bytes(material.base_color))}"]
    else:
        said["base_color"] = [f"Kd {_linear(material.base_color)}"]
    for keyword, what, value in (("Pm", "metallic", material.metallic), ("Pr", "roughness", material.roughness)):
        if np.ndim(value) >= 2:
            values = np.asarray(value).reshape(value.shape[:2])
            said[what] = [f"{keyword} 1", f"map_{keyword} {texture(what, to_bytes(values))}"]
        else:
            said[what] = [f"{keyword} {float(np.asarray(value).reshape(-1)[0]):.9g}"]
    if material.normal is not None:
        said["normal"] = [f"map_Bump -bm 1 {texture('normal', normal_to_bytes(material.normal))}"]
    if material.emission is not None and np.ndim(material.emission) == 3:
        said["emission"] = ["Ke 1 1 1", f"map_Ke {texture('emission', to_bytes(material.emission))}"]
    elif material.emission is not None:
        said["emission"] = [f"Ke {_linear(material.emission)}"]
    return said, files


def one_line(name: str) -> str:
    """A name as it can stand at a line's end, where a backslash would join the next line to it."""
    return " ".join(sound_text(name).split()).rstrip("\\") or "unnamed"


def _face_lines(mesh: MeshData, polygons: Polygons | None) -> list[str]:
    if polygons is None:
        sizes = np.full(len(mesh.faces), 3)
        corners, uv_corners = mesh.faces.reshape(-1), None if mesh.uv_faces is None else mesh.uv_faces.reshape(-1)
    else:
        sizes, corners = polygons.sizes, polygons.corners
        uv_corners = polygons.uv_corners if mesh.uvs is not None else None
    if uv_corners is None:
        words = [f"{vertex}//{vertex}" for vertex in (corners + 1).tolist()]
    else:
        pairs = zip((corners + 1).tolist(), (uv_corners + 1).tolist(), strict=True)
        words = [f"{vertex}/{uv}/{vertex}" for vertex, uv in pairs]
    ends = np.cumsum(sizes).tolist()
    return ["f " + " ".join(words[end - size : end]) for size, end in zip(sizes.tolist(), ends, strict=True)]


def _linear(color: np.ndarray) -> str:
    displayed = np.nan_to_num(np.asarray(color, dtype=np.float64)).reshape(-1)[:3].clip(0.0, 1.0)
    return " ".join(f"{value:.9g}" for value in srgb_to_linear(displayed))
