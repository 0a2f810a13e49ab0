"""A refined mesh in the glTF 2.0 file that it came in (.glb, or .gltf with everything packed inside).

Positions and normals are rewritten within the file's own buffers; accessors, primitives, materials, textures, UVs and
the node tree stay. Morph targets and skins refer to the old shape and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from backend.cli.own_format import Refined, Repainted
from backend.errors import InputError
from backend.representations.files.gltf_container import (
    Gltf,
    accessor_array,
    data_uri,
    pack_glb,
    placements,
    read_gltf,
    read_uri,
    triangles,
)
from backend.representations.files.gltf_writing import GltfParts, gltf_material


def rewrite_gltf(source: Path, refined: Refined) -> bytes:
    """The file with its vertices moved, and with its new textures inside.

    Raises:
        InputError: it uses what cannot be written back (compression, sparse data, skins, morph targets, one mesh shown
            in several places).
    """
    gltf = read_gltf(source)
    _rewrite_meshes(gltf, refined)
    if (repainted := refined.repainted()) is not None:
        _repaint(gltf, repainted)
    return _glb(gltf) if gltf.binary else _gltf(gltf)


def _rewrite_meshes(gltf: Gltf, refined: Refined) -> None:
    placed: dict[int, np.ndarray] = {}
    for node, matrix in placements(gltf.document):
        if "skin" in node:
            raise InputError("The file has a skinned mesh, which refining does not support; apply its pose first.")
        if node["mesh"] in placed and not np.array_equal(placed[node["mesh"]], matrix):
            raise InputError("The file shows one mesh in several places; make each a mesh of its own to refine them.")
        placed[node["mesh"]] = matrix
    done: set[int] = set()
    for mesh, matrix in placed.items():
        for primitive in gltf.document["meshes"][mesh]["primitives"]:
            if primitive.get("targets"):
                raise InputError("The file has morph targets, which a refined shape would break; remove them first.")
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                raise InputError("The file is Draco-compressed; save it without compression to get it back.")
            where = primitive["attributes"]["POSITION"]
            if where not in done:
                done.add(where)
                _rewrite_primitive(gltf, primitive, matrix, refined)


def _rewrite_primitive(gltf: Gltf, primitive: dict, matrix: np.ndarray, refined: Refined) -> None:
    where = primitive["attributes"]["POSITION"]
    positions = _floats(gltf, where)
    original = positions.astype(np.float64)
    world = original @ matrix[:3, :3].T + matrix[:3, 3]
    moved = (refined.positions(world) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    # What stayed is copied: there and back through the node's transform its last digits would change.
    moved = np.where(refined.moved(world)[:, None], moved, original)
    positions[:] = moved
    accessor = gltf.document["accessors"][where]
    accessor["min"] = [float(value) for value in positions.min(0)]
    accessor["max"] = [float(value) for value in positions.max(0)]
    if "NORMAL" in primitive["attributes"]:
        normals = _floats(gltf, primitive["attributes"]["NORMAL"])
        faces = triangles(gltf, primitive, len(positions))
        if faces is not None:
            normals[:] = np.where(refined.bent(world)[:, None], _new_normals(original, moved, faces, normals.copy()), normals)


def _repaint(gltf: Gltf, repainted: Repainted) -> None:
    """Every material that a mesh uses gets what is new; its other properties and textures stay, unused ones too."""
    document = gltf.document
    primitives = [each for mesh in document["meshes"] for each in mesh["primitives"]]
    if any("material" not in each for each in primitives):
        document.setdefault("materials", []).append({"name": repainted.material.name})
    for each in primitives:
        each.setdefault("material", len(document["materials"]) - 1)
        if "base_color" in repainted.properties:
            each["attributes"].pop("COLOR_0", None)  # it would be multiplied with a texture made without it
    parts = GltfParts(
        document["bufferViews"],
        document["accessors"],
        document.setdefault("images", []),
        document.setdefault("textures", []),
        gltf.buffers[0],
    )
    new = gltf_material(parts, repainted.only_new())
    document["buffers"][0]["byteLength"] = len(gltf.buffers[0])
    for index in {each["material"] for each in primitives}:
        _take_over(document["materials"][index], new, repainted.properties)
    for key in ("images", "textures"):
        if not document[key]:
            del document[key]


def _take_over(material: dict, new: dict, properties: frozenset[str]) -> None:
    """Replaces what the properties are made of; a texture keeps which coordinates it uses."""
    surface, fresh = material.setdefault("pbrMetallicRoughness", {}), new["pbrMetallicRoughness"]
    places = {
        "base_color": [(surface, fresh, "baseColorFactor"), (surface, fresh, "baseColorTexture")],
        "metallic": [(surface, fresh, "metallicFactor"), (surface, fresh, "metallicRoughnessTexture")],
        "roughness": [(surface, fresh, "roughnessFactor"), (surface, fresh, "metallicRoughnessTexture")],
        "normal": [(material, new, "normalTexture")],
        "emission": [(material, new, "emissiveFactor"), (material, new, "emissiveTexture")],
    }
    base = surface.get("baseColorTexture", {})
    for old, source, key in [place for name in sorted(properties) for place in places[name]]:
        was = old.pop(key, {})
        if key not in source:
            continue
        coordinates = was if was and key.endswith("Texture") else base
        kept = {name: coordinates[name] for name in ("texCoord", "extensions") if name in coordinates}
        old[key] = {**kept, **source[key]} if key.endswith("Texture") else source[key]


def _new_normals(original: np.ndarray, moved: np.ndarray, faces: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Area-weighted, shared by the vertices that shared both position and normal: hard edges stay, UV seams do not show."""
    keys = np.concatenate([original, np.round(normals, 3)], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    corners = moved[faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros((group.max() + 1, 3))
    for corner in range(3):
        np.add.at(sums, group[faces[:, corner]], facing)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit = sums / np.maximum(lengths, 1e-30)
    return np.where(lengths[group] > 0, unit[group], normals)


def _floats(gltf: Gltf, index: int) -> np.ndarray:
    """A writable [N, 3] view of an accessor's floats."""
    values = accessor_array(gltf, index)
    if values.dtype.kind != "f":
        raise InputError("The file packs its vertices in a way that cannot be written back; save it uncompressed.")
    return values


def _glb(gltf: Gltf) -> bytes:
    document = gltf.document
    document["buffers"][0].pop("uri", None)
    for buffer, content in zip(document["buffers"][1:], gltf.buffers[1:], strict=True):
        buffer["uri"] = data_uri(content)
    return pack_glb(document, gltf.buffers[0])


def _gltf(gltf: Gltf) -> bytes:
    for buffer, content in zip(gltf.document["buffers"], gltf.buffers, strict=True):
        buffer["uri"] = data_uri(content)
    for image in gltf.document.get("images", []):
        if "uri" in image and not image["uri"].startswith("data:"):
            kind = "image/png" if image["uri"].lower().endswith(".png") else "image/jpeg"
            image["uri"] = data_uri(read_uri(image["uri"], gltf.folder), kind)
    return json.dumps(gltf.document).encode()
