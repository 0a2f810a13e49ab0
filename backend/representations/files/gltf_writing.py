"""GLB files: one object with its metal-rough material, textures as PNG inside."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backend.representations.files.disk import sound_text
from backend.representations.files.gltf_container import FLOAT, pack_glb
from backend.representations.files.images import normal_to_bytes, png_of_bytes, resized, srgb_to_linear, to_bytes
from backend.representations.files.surface import smooth_normals
from backend.representations.mesh_data import MaterialData, MeshData

_ARRAYS, _INDICES = 34962, 34963  # what a buffer view is for
_SHORT, _WHOLE = 5123, 5125


@dataclass
class GltfParts:
    """What a document's first buffer holds; lists and buffer may be those of a document that is changed."""

    views: list[dict] = field(default_factory=list)
    accessors: list[dict] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)
    textures: list[dict] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)

    def add_view(self, content: bytes, target: int | None = None) -> int:
        self.content += b"\0" * (-len(self.content) % 4)
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append(view if target is None else view | {"target": target})
        self.content += content
        return len(self.views) - 1

    def add_array(self, array: np.ndarray, kind: str, component: int, target: int, **more: object) -> int:
        view = self.add_view(np.ascontiguousarray(array).tobytes(), target)
        self.accessors.append({"bufferView": view, "componentType": component, "count": len(array), "type": kind} | more)
        return len(self.accessors) - 1

    def add_texture(self, texels: np.ndarray, name: str) -> dict:
        """A reference to a new texture, which repeats."""
        view = self.add_view(png_of_bytes(texels))
        self.images.append({"bufferView": view, "mimeType": "image/png", "name": name})
        self.textures.append({"source": len(self.images) - 1})
        return {"index": len(self.textures) - 1}


def glb_bytes(mesh: MeshData, name: str = "Galatea") -> bytes:
    """A GLB file of a mesh: y up, meters, smooth normals shared across UV seams.

    Vertices are split where texture coordinates are (glTF has one of everything a vertex); the copies have the same bits.
    Vertex colors are written where no texture holds the color, as glTF multiplies the two. With a normal map come the
    tangents that it is told in.
    """
    out = GltfParts()
    material = gltf_material(out, mesh.material)
    textured = mesh.uvs is not None and mesh.material is not None and np.ndim(mesh.material.base_color) == 3
    groups = _tangent_groups(mesh)
    vertices, uv_rows, faces, firsts = split_at_seams(mesh, groups)
    positions = np.ascontiguousarray(mesh.positions, dtype="<f4")[vertices]
    bounds = {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    normals = smooth_normals(mesh.positions, mesh.faces)
    attributes = {
        "POSITION": out.add_array(positions, "VEC3", FLOAT, _ARRAYS, **bounds),
        "NORMAL": out.add_array(normals[vertices].astype("<f4"), "VEC3", FLOAT, _ARRAYS),
    }
    if groups is not None:
        tangents = _tangents(mesh, normals, groups, vertices, firsts)
        attributes["TANGENT"] = out.add_array(tangents.astype("<f4"), "VEC4", FLOAT, _ARRAYS)
    if mesh.uvs is not None:
        flipped = np.asarray(mesh.uvs, dtype="<f4")[uv_rows]
        flipped[:, 1] = np.float32(1.0) - flipped[:, 1]  # glTF's v grows downward
        flipped[uv_rows < 0] = 0.0
        attributes["TEXCOORD_0"] = out.add_array(flipped, "VEC2", FLOAT, _ARRAYS)
    if mesh.colors is not None and not textured:
        # glTF's vertex colors are linear; 16 bits keep the dark ones apart, alpha pads each to a multiple of 4 bytes.
        linear = srgb_to_linear(np.nan_to_num(mesh.colors.astype(np.float64)).clip(0.0, 1.0))
        rgba = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)[vertices]
        shorts = np.rint(rgba * 65535).astype("<u2")
        attributes["COLOR_0"] = out.add_array(shorts, "VEC4", _SHORT, _ARRAYS, normalized=True)
        material["pbrMetallicRoughness"]["baseColorFactor"] = [1.0, 1.0, 1.0, 1.0]
    indices = out.add_array(faces.astype("<u4").reshape(-1), "SCALAR", _WHOLE, _INDICES)
    named = {"name": sound_text(name)} if name else {}
    document = {
        "asset": {"version": "2.0", "generator": "Galatea"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **named}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}], **named}],
        "materials": [material],
        "buffers": [{"byteLength": len(out.content)}],
        "bufferViews": out.views,
        "accessors": out.accessors,
    }
    if out.images:
        document["images"] = out.images
        document["textures"] = [texture | {"sampler": 0} for texture in out.textures]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497}]
    return pack_glb(document, out.content)


def split_at_seams(
    mesh: MeshData, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices with one texture coordinate each, and of one of the `groups` [F, 3] that corners may be in.

    Returns:
        the row of `positions` and of `uvs` (-1: none) of each new vertex, by old vertex and then by texture coordinate; the
        faces [F, 3] that name new vertices; and a corner (of F x 3) of each, -1 for vertices that no face uses.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        vertices = np.arange(len(mesh.positions))
        none = np.full(len(vertices), -1)
        return vertices, none, np.asarray(mesh.faces), none
    corners = np.stack([mesh.faces, mesh.uv_faces, np.zeros_like(mesh.faces) if groups is None else groups], axis=2)
    corners = corners.reshape(-1, 3).astype(np.int64)
    unused = np.setdiff1d(np.arange(len(mesh.positions)), mesh.faces)
    every = np.concatenate([corners, np.stack([unused, np.full(len(unused), -1), np.full(len(unused), -1)], axis=1)])
    different, first, index = np.unique(every, axis=0, return_index=True, return_inverse=True)
    firsts = np.where(first < len(corners), first, -1)
    return different[:, 0], different[:, 1], index.reshape(-1)[: len(corners)].reshape(-1, 3), firsts


def _tangent_groups(mesh: MeshData) -> np.ndarray | None:
    """Which corners share a tangent [F, 3]; None without a normal map, which alone needs them."""
    if mesh.uvs is None or mesh.uv_faces is None or mesh.material is None or mesh.material.normal is None:
        return None
    import torch

    from backend.rendering.material import tangent_corners

    arrays = (torch.from_numpy(np.ascontiguousarray(each)) for each in (mesh.faces, mesh.uvs, mesh.uv_faces))
    return tangent_corners(*arrays).numpy()


def _tangents(
    mesh: MeshData, normals: np.ndarray, groups: np.ndarray, vertices: np.ndarray, firsts: np.ndarray
) -> np.ndarray:
    """The tangents [V, 4] that the renderer has used; at vertices without any, something across the normal."""
    import torch

    from backend.rendering.material import vertex_tangents

    floats = (np.ascontiguousarray(each, dtype=np.float32) for each in (mesh.positions, normals, mesh.uvs))
    positions, of_vertices, uvs = (torch.from_numpy(each) for each in floats)
    faces, uv_faces, corners = (torch.from_numpy(np.ascontiguousarray(e)) for e in (mesh.faces, mesh.uv_faces, groups))
    of_groups = vertex_tangents(positions, faces, of_vertices, uvs, uv_faces, corners).numpy().astype(np.float64)
    tangents = np.where((firsts >= 0)[:, None], of_groups[groups.reshape(-1)[firsts]], [0.0, 0.0, 0.0, 1.0])
    normal = normals[vertices]
    across = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal), axis=1)])
    length = np.linalg.norm(tangents[:, :3], axis=1, keepdims=True)
    unit = np.where(length > 0.5, tangents[:, :3] / np.maximum(length, 0.5), across)
    tangents[:, :3] = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return tangents


def gltf_material(out: GltfParts, material: MaterialData | None) -> dict:
    """A material's entry in a document, its textures added to `out`."""
    if material is None:
        matte = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
        return {"name": "matte", "pbrMetallicRoughness": matte}
    surface: dict = _metal_and_roughness(out, material)
    if np.ndim(material.base_color) == 3:
        surface["baseColorTexture"] = out.add_texture(to_bytes(material.base_color), "base color")
    else:
        surface["baseColorFactor"] = [*_linear(material.base_color), 1.0]
    written: dict = {"pbrMetallicRoughness": surface} | ({"name": sound_text(material.name)} if material.name else {})
    if material.normal is not None:
        written["normalTexture"] = out.add_texture(normal_to_bytes(material.normal), "normal")
    if material.emission is not None and np.ndim(material.emission) == 3:
        written["emissiveTexture"] = out.add_texture(to_bytes(material.emission), "emission")
        written["emissiveFactor"] = [1.0, 1.0, 1.0]
    elif material.emission is not None:
        written["emissiveFactor"] = _linear(material.emission)
    return written


def _metal_and_roughness(out: GltfParts, material: MaterialData) -> dict:
    """glTF keeps roughness in green and metallic in blue of one image; a number becomes a factor of white texels."""
    maps = [value for value in (material.metallic, material.roughness) if np.ndim(value) >= 2]
    surface: dict = {}
    for key, value in (("metallicFactor", material.metallic), ("roughnessFactor", material.roughness)):
        surface[key] = 1.0 if np.ndim(value) >= 2 else float(np.nan_to_num(np.asarray(value)).reshape(-1)[0].clip(0.0, 1.0))
    if maps:
        height, width = max((value.shape[:2] for value in maps), key=lambda shape: shape[0] * shape[1])
        texels = np.full((height, width, 3), 255, np.uint8)
        for channel, value in ((1, material.roughness), (2, material.metallic)):
            if np.ndim(value) >= 2:
                texels[..., channel] = to_bytes(resized(np.asarray(value).reshape(value.shape[:2]), height, width))
        surface["metallicRoughnessTexture"] = out.add_texture(texels, "metallic and roughness")
    return surface


def _linear(color: np.ndarray) -> list[float]:
    displayed = np.nan_to_num(np.asarray(color, dtype=np.float64)).reshape(-1)[:3].clip(0.0, 1.0)
    return srgb_to_linear(displayed).tolist()
