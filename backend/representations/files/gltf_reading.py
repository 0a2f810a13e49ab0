"""glTF 2.0 files, binary or not: triangles, texture coordinates and metal-rough materials with their textures.

Read by ourselves: trimesh keeps a material's colors to 8 bits only, and forgets which texture coordinates its textures use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import read_beside
from backend.representations.files.file_mesh import FileMesh, joined
from backend.representations.files.gltf_container import (
    Gltf,
    accessor_array,
    accessor_floats,
    placements,
    read_gltf,
    read_uri,
    triangles,
    view_bytes,
)
from backend.representations.files.images import (
    MAX_BYTES,
    ImageShelf,
    channel,
    linear_to_srgb,
    normal_from_bytes,
    tinted,
)
from backend.representations.mesh_data import MaterialData

MAX_PRIMITIVES = 100_000
_UNREAD_TEXTURES = ("KHR_texture_basisu", "MSFT_texture_dds")


def read_gltf_mesh(path: Path, max_faces: int) -> FileMesh:
    """Raises InputError for what cannot be used, anything for a damaged file."""
    gltf = read_gltf(path)
    shelf = ImageShelf()
    document = gltf.document
    materials = [_material(gltf, index, material, shelf) for index, material in enumerate(document.get("materials", []))]
    parts, faces = [], 0
    for node, matrix in placements(document):
        mesh = document["meshes"][node["mesh"]]
        name = str(node.get("name") or mesh.get("name") or "")
        for primitive in mesh["primitives"]:
            part = _part(gltf, primitive, matrix, materials, name, shelf.notes)
            if part is None:
                continue
            faces += len(part.sizes)
            if faces > max_faces or len(parts) >= MAX_PRIMITIVES:
                raise InputError(f"The file has more than {max_faces:,} faces; decimate the mesh first.")
            parts.append(part)
        if "skin" in node:
            shelf.notes.append(f"“{name}” is read as it was before its skeleton posed it.")
    result = joined(parts)
    result.notes = list(dict.fromkeys(shelf.notes))
    result.up, result.meters, result.colors_tint = "y", 1.0, True
    return result


def _part(
    gltf: Gltf, primitive: dict, matrix: np.ndarray, materials: list[MaterialData], name: str, notes: list[str]
) -> FileMesh | None:
    if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
        raise InputError("The file is Draco-compressed; save it without compression.")
    attributes = primitive["attributes"]
    if "POSITION" not in attributes:
        return None
    positions = accessor_floats(gltf, attributes["POSITION"])[:, :3]
    faces = triangles(gltf, primitive, len(positions))
    if faces is None:
        notes.append(f"The lines or points of “{name}” are left out.")
        return None
    positions = positions @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0.0:
        faces = faces[:, ::-1]
    material = primitive.get("material", -1)
    part = FileMesh(
        positions,
        np.full(len(faces), 3),
        faces.reshape(-1),
        materials=materials,
        polygon_material=np.full(len(faces), material),
        objects=[name],
    )
    described = gltf.document["materials"][material] if material >= 0 else {}
    coordinates = attributes.get(f"TEXCOORD_{_coordinate_set(described)}")
    if coordinates is not None:
        part.uvs = _uvs(gltf, coordinates, described, notes)
        part.uv_corners = part.corners
    if "COLOR_0" in attributes:
        part.colors = linear_to_srgb(_colors(gltf, attributes["COLOR_0"]).clip(0.0, 1.0))
    return part


def _uvs(gltf: Gltf, index: int, material: dict, notes: list[str]) -> np.ndarray:
    """Texture coordinates with v upward; float32 stays what it is wherever 1 - v is exact."""
    stored = accessor_array(gltf, index)
    uvs = (stored if stored.dtype.kind == "f" else accessor_floats(gltf, index)).astype(np.float32)
    transform = _base_texture(material).get("extensions", {}).get("KHR_texture_transform")
    if transform is not None:
        angle, scale = float(transform.get("rotation", 0.0)), np.array(transform.get("scale", (1, 1)), float)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        uvs = ((uvs * scale) @ turn.T + transform.get("offset", (0, 0))).astype(np.float32)
        notes.append("The offset, scale and rotation of the base color's texture are applied to the texture coordinates.")
    uvs[:, 1] = np.float32(1.0) - uvs[:, 1]
    return uvs


def _colors(gltf: Gltf, index: int) -> np.ndarray:
    stored = accessor_array(gltf, index)[:, :3]
    return stored / (1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max))


def _base_texture(material: dict) -> dict:
    return material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})


def _coordinate_set(material: dict) -> int:
    texture = _base_texture(material)
    own = texture.get("extensions", {}).get("KHR_texture_transform", {})
    return int(own.get("texCoord", texture.get("texCoord", 0)))


def _material(gltf: Gltf, index: int, material: dict, shelf: ImageShelf) -> MaterialData:
    name = str(material.get("name", ""))
    surface = material.get("pbrMetallicRoughness", {})
    slots = {
        "base color": surface.get("baseColorTexture"),
        "metallic and roughness": surface.get("metallicRoughnessTexture"),
        "normal": material.get("normalTexture"),
        "emission": material.get("emissiveTexture"),
    }
    images = {}
    for slot, reference in slots.items():
        images[slot] = None if reference is None else _image(gltf, reference, shelf)
        if reference is not None and int(reference.get("texCoord", 0)) != _coordinate_set(material):
            shelf.notes.append(f"The {slot} texture of “{name}” uses other texture coordinates; one set is read.")
            images[slot] = None
    if material.get("alphaMode", "OPAQUE") != "OPAQUE":
        shelf.notes.append(f"The material “{name}” is transparent in places; it is read as opaque.")
    factor = np.array(surface.get("baseColorFactor", (1, 1, 1, 1)), float)[:3]
    glow = np.array(material.get("emissiveFactor", (0, 0, 0)), float)[:3]
    strength = material.get("extensions", {}).get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
    if strength != 1.0 and glow.any():
        shelf.notes.append(f"The emission of “{name}” is {strength:g} times as strong; what exceeds 1 is cut off.")
    metal_rough = images["metallic and roughness"]
    normal = images["normal"]
    scale = float((material.get("normalTexture") or {}).get("scale", 1.0))
    return MaterialData(
        tinted(images["base color"], factor),
        channel(metal_rough, 2, float(surface.get("metallicFactor", 1.0))),
        channel(metal_rough, 1, float(surface.get("roughnessFactor", 1.0))),
        None if normal is None else normal_from_bytes(normal, scale),
        tinted(images["emission"], glow * float(strength)) if glow.any() else None,
        name,
    )


def _image(gltf: Gltf, reference: dict, shelf: ImageShelf) -> np.ndarray | None:
    texture = gltf.document["textures"][reference["index"]]
    extensions = texture.get("extensions", {})
    index = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
    if index is None:
        shelf.notes.append("A texture is in a format that cannot be read and is left out.")
        return None
    sampler = gltf.document.get("samplers", [{}])[texture["sampler"]] if "sampler" in texture else {}
    if any(sampler.get(wrap, 10497) != 10497 for wrap in ("wrapS", "wrapT")):
        shelf.notes.append("A texture is mirrored or held at its border; it is read as repeating.")
    image = gltf.document["images"][index]
    name = str(image.get("name") or image.get("uri", "")[:60] or index)
    return shelf.decode(index, f"“{name}”", lambda: _image_bytes(gltf, image))


def _image_bytes(gltf: Gltf, image: dict) -> bytes | None:
    if "bufferView" in image:
        return view_bytes(gltf, image["bufferView"])
    uri = image.get("uri", "")
    return read_uri(uri, gltf.folder) if uri.startswith("data:") else read_beside(gltf.folder, uri, MAX_BYTES)
