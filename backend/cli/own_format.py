"""A refined mesh in the file format that it came in: text and triangle formats (OBJ, OFF, STL, PLY).

The original file is rewritten, not exported anew: only vertex positions change, with what follows from them (normals)
and, where the format has room for them, colors or textures. Vertex count and order, polygons, groups, material names and
texture coordinates stay as the artist wrote them; so do the numbers of every vertex that did not move, to the last digit. glTF is in `own_format_gltf`, an OBJ file's textures in
`own_format_textures`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np

from backend.errors import InputError
from backend.representations.files.disk import lines_of
from backend.representations.files.ply_reading import TYPES
from backend.representations.mesh_data import MaterialData


@dataclass(frozen=True)
class Repainted:
    """A material some properties of which are new; `properties` are their names in `MaterialData`."""

    material: MaterialData
    properties: frozenset[str]

    @staticmethod
    def between(old: MaterialData | None, new: MaterialData | None) -> Repainted | None:
        """What is new; of a mesh that came without a material, its color alone."""
        if new is None:
            return None
        names = {"base_color", "metallic", "roughness", "normal", "emission"} if old is not None else {"base_color"}
        changed = {each for each in names if old is None or not _same(getattr(old, each), getattr(new, each))}
        if changed & {"metallic", "roughness"} and (np.ndim(new.metallic) >= 2 or np.ndim(new.roughness) >= 2):
            changed |= {"metallic", "roughness"}  # glTF keeps both in one image
        return Repainted(new, frozenset(changed)) if changed else None

    def only_new(self) -> MaterialData:
        """The material without what has not changed, so that no texture is stored for nothing."""
        plain = MaterialData(np.ones(3, np.float32), name=self.material.name)
        return replace(plain, **{each: getattr(self.material, each) for each in self.properties})


class Refined(Protocol):
    """Tells what became of the points of the original file, all in that file's own coordinates."""

    def positions(self, original: np.ndarray) -> np.ndarray:
        """Where the vertices that were at `original` [N, 3] are now: [N, 3] float64."""
        ...

    def normals(self, original: np.ndarray) -> np.ndarray:
        """Smooth unit normals there now: [N, 3] float64."""
        ...

    def colors(self, original: np.ndarray) -> np.ndarray:
        """Colors there now: [N, 3] float64 in [0, 1]."""
        ...

    def moved(self, original: np.ndarray) -> np.ndarray:
        """Whether they are elsewhere than before: bool [N]."""
        ...

    def recolored(self, original: np.ndarray) -> np.ndarray:
        """Whether they have another color than before: bool [N]."""
        ...

    def bent(self, original: np.ndarray) -> np.ndarray:
        """Whether a face around them has moved, and with it their normal: bool [N]."""
        ...

    def repainted(self) -> Repainted | None:
        """What is new of the material, for the texture coordinates that the file has; None if nothing is."""
        ...


def rewrite(source: Path, refined: Refined, stem: str) -> dict[str, bytes]:
    """The file `source` with its vertices moved, by its new name (`stem` and its ending), after what it refers to.

    Raises:
        InputError: the file uses a variant of its format that cannot be written back.
    """
    suffix = source.suffix.lower()
    if suffix in (".glb", ".gltf"):
        from backend.cli.own_format_gltf import rewrite_gltf

        return {f"{stem}{suffix}": rewrite_gltf(source, refined)}
    content, beside = _REWRITERS[suffix](source.read_bytes(), refined), {}
    if suffix == ".obj" and (repainted := refined.repainted()) is not None:
        from backend.cli.own_format_textures import repaint_obj

        content, beside = repaint_obj(content, source.parent, repainted, stem)
    return beside | {f"{stem}{suffix}": content}


def _same(one: np.ndarray | float | None, other: np.ndarray | float | None) -> bool:
    return (one is None) == (other is None) and (one is None or np.array_equal(one, other))


def _rewrite_obj(content: bytes, refined: Refined) -> bytes:
    """Normals are left out, for readers to compute: corners share them in ways that moved vertices no longer allow."""
    lines = lines_of(content)
    vertex_lines = [index for index, line in enumerate(lines) if line.split(None, 1)[:1] == ["v"]]
    original = np.array([[float(word) for word in lines[index].split()[1:4]] for index in vertex_lines])
    positions = refined.positions(original)
    moved, recolored = refined.moved(original), refined.recolored(original)
    # Some programs multiply a texture by vertex colors: there are none beside a new one.
    colors = refined.colors(original) if refined.repainted() is None else np.zeros((len(original), 0))
    for row, index in enumerate(vertex_lines):
        words = lines[index].split()
        place = [f"{value:.9g}" for value in positions[row]] if moved[row] else words[1:4]
        own = colors.shape[1] and not recolored[row] and len(words) == 7
        lines[index] = " ".join(["v", *place, *(words[4:] if own else (f"{value:.4f}" for value in colors[row]))])
    kept = [_without_normals(line) for line in lines if line.split(None, 1)[:1] != ["vn"]]
    return ("\n".join(kept) + "\n").encode("latin-1")


def _without_normals(line: str) -> str:
    words = line.split()
    if not words or words[0] != "f":
        return line
    return " ".join(["f", *("/".join(word.split("/")[:2]).rstrip("/") for word in words[1:])])


def _rewrite_off(content: bytes, refined: Refined) -> bytes:
    lines = lines_of(content)
    if not lines or lines[0].strip() != "OFF":
        raise InputError("Only plain OFF files (first line OFF) can be written back; save the mesh as OBJ or PLY.")
    data = [index for index, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")][1:]
    count = int(lines[data[0]].split()[0])
    rows = data[1 : 1 + count]
    original = np.array([[float(word) for word in lines[index].split()[:3]] for index in rows])
    for index, position, moved in zip(rows, refined.positions(original), refined.moved(original), strict=True):
        if moved:
            lines[index] = " ".join([*(f"{value:.9g}" for value in position), *lines[index].split()[3:]])
    return ("\n".join(lines) + "\n").encode("latin-1")


_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def _rewrite_stl(content: bytes, refined: Refined) -> bytes:
    binary = len(content) >= 84 and len(content) == 84 + 50 * int.from_bytes(content[80:84], "little")
    if binary:
        facets = np.frombuffer(content, _FACET, offset=84).copy()
        original = facets["corners"].reshape(-1, 3).astype(np.float64)
        corners = refined.positions(original).reshape(-1, 3, 3)
        moved = refined.moved(original).reshape(-1, 3).any(axis=1)
        facets["corners"][moved], facets["normal"][moved] = corners[moved], _facet_normals(corners[moved])
        return content[:84] + facets.tobytes()
    text = content.decode("latin-1")
    original = np.array([match.split() for match in re.findall(r"vertex\s+(\S+\s+\S+\s+\S+)", text)], float)
    corners, moved = refined.positions(original), refined.moved(original)
    normals, turned = _facet_normals(corners.reshape(-1, 3, 3)), moved.reshape(-1, 3).any(axis=1)
    text = _replaced(r"vertex\s+\S+\s+\S+\s+\S+", "vertex", text, corners, moved)
    return _replaced(r"facet normal\s+\S+\s+\S+\s+\S+", "facet normal", text, normals, turned).encode("latin-1")


def _replaced(pattern: str, keyword: str, text: str, values: np.ndarray, new: np.ndarray) -> str:
    """Each match of `pattern` with its row of `values` [N, 3] after the keyword; as it was where it is not `new` [N]."""
    row = iter(range(len(values)))

    def replacement(match: re.Match[str]) -> str:
        index = next(row)
        return f"{keyword} {_three(values[index])}" if new[index] else match.group()

    return re.sub(pattern, replacement, text)


def _three(values: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _facet_normals(corners: np.ndarray) -> np.ndarray:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


def _rewrite_ply(content: bytes, refined: Refined) -> bytes:
    """Colors are added as `red green blue` where the file has none."""
    marker = content.index(b"end_header")
    start = content.index(b"\n", marker) + 1
    header = content[:start].decode("latin-1").split("\n")[:-1]
    words = [line.split() for line in header]
    order = next(line[1] for line in words if line[:1] == ["format"])
    elements = [index for index, line in enumerate(words) if line[:1] == ["element"]]
    first = elements[0]
    last = next(index for index in range(first + 1, len(words)) if words[index][:1] in (["element"], ["end_header"]))
    properties = [line for line in words[first + 1 : last] if line[:1] == ["property"]]
    if words[first][1] != "vertex" or any(line[1] == "list" for line in properties):
        raise InputError("Only PLY files that begin with plain vertices can be written back; save the mesh as OBJ.")
    count = int(words[first][2])
    sign = ">" if order == "binary_big_endian" else "<"
    old_type = np.dtype([(line[2], sign + TYPES[line[1]]) for line in properties])
    if order == "ascii":
        rows = content[start:].decode("latin-1").split("\n")
        table = [tuple(row.split()[: len(properties)]) for row in rows[:count]]
        vertices = np.array([tuple(float(v) for v in row) for row in table], old_type)
    else:
        vertices = np.frombuffer(content, old_type, count, start)
    new_colors = [name for name in ("red", "green", "blue") if name not in old_type.names]
    new_type = np.dtype([*old_type.descr, *((name, "u1") for name in new_colors)])
    moved = np.zeros(count, new_type)
    for name in old_type.names:
        moved[name] = vertices[name]
    original = np.stack([vertices[axis] for axis in "xyz"], 1).astype(np.float64)
    _assign(moved, ("x", "y", "z"), refined.positions(original), refined.moved(original))
    if "nx" in old_type.names:
        _assign(moved, ("nx", "ny", "nz"), refined.normals(original), refined.bent(original))
    if moved["red"].dtype == np.uint8:
        recolored = refined.recolored(original) | bool(new_colors)
        _assign(moved, ("red", "green", "blue"), np.round(refined.colors(original) * 255), recolored)
    header[last:last] = [f"property uchar {name}" for name in new_colors]
    head = ("\n".join(header) + "\n").encode("latin-1")
    if order != "ascii":
        return head + moved.tobytes() + content[start + vertices.nbytes :]
    lines = [
        " ".join(word if new == old else f"{new:.9g}" for new, old, word in zip_longest(after, before, words))
        for after, before, words in zip(moved.tolist(), vertices.tolist(), table, strict=True)
    ]
    return head + "\n".join(lines + rows[count:]).encode("latin-1")


def _assign(table: np.ndarray, names: tuple[str, ...], columns: np.ndarray, rows: np.ndarray) -> None:
    """The values of `columns` [N, C] where `rows` [N]; others stay."""
    for name, column in zip(names, columns.T, strict=True):
        table[name][rows] = column[rows]


_REWRITERS: dict[str, Callable[[bytes, Refined], bytes]] = {
    ".obj": _rewrite_obj,
    ".off": _rewrite_off,
    ".stl": _rewrite_stl,
    ".ply": _rewrite_ply,
}
