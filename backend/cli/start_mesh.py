"""A mesh file that a job begins with: read, turned upright, fitted into the unit sphere, and later written back.

Jobs work on objects that fit the unit sphere around the origin, y up (docs/architecture.md); files come in any size, at
any place, and often z up. The placement is undone for the file that the artist gets back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from backend.cli.job_arguments import JobFile, MeshSource
from backend.cli.own_format import Repainted, rewrite
from backend.errors import InputError
from backend.representations.files.surface import smooth_normals
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_io import ImportedMesh

FILL = 0.95
"""The share of the unit sphere's radius that a fitted mesh takes, as in the data of the embedded prior."""

_UPRIGHT = {"y": np.eye(3), "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
"""File axes to ours; an object with z up faces -y, as in Blender."""


@dataclass(frozen=True)
class Placement:
    """ours = (file - center) @ turn.T * scale."""

    turn: np.ndarray  # [3, 3]
    center: np.ndarray  # [3]
    scale: float

    def apply(self, positions: np.ndarray) -> np.ndarray:
        return (positions - self.center) @ self.turn.T * self.scale

    def undo(self, positions: np.ndarray) -> np.ndarray:
        return (positions / self.scale) @ self.turn + self.center


@dataclass(frozen=True)
class StartMesh:
    """`mesh` is fitted; `original` [V, 3] float64 are its vertices as they are in the file, in the same order.

    `parts` are the file's objects and materials by name, each the faces [F] that belong to it. `notes` says what is unusual.
    """

    source: MeshSource
    mesh: MeshData
    original: np.ndarray
    placement: Placement
    notes: tuple[str, ...]
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def read(path: Path, up: str) -> StartMesh:
        """Raises InputError if the file is missing, cannot be read or holds no sound triangles."""
        from backend.representations import load_mesh

        loaded = load_mesh(path)
        digest = hashlib.sha256(loaded.positions.tobytes() + loaded.faces.tobytes())
        original = loaded.positions
        center = (original.min(0) + original.max(0)) / 2
        radius = np.linalg.norm(original - center, axis=1).max()
        placement = Placement(_UPRIGHT[up], center, FILL / radius)
        fitted = MeshData(
            placement.apply(original).astype(np.float32),
            loaded.faces,
            loaded.colors,
            loaded.uvs,
            loaded.uv_faces,
            loaded.material(),
        )
        source = MeshSource(str(path.resolve()), up, digest.hexdigest()[:32])
        return StartMesh(source, fitted, original, placement, loaded.notes, _parts(loaded))

    @staticmethod
    def read_again(source: MeshSource) -> StartMesh:
        """The mesh of a job that is resumed. Raises InputError if its file is gone or holds another mesh now."""
        path = Path(source.path)
        if not path.is_file():
            raise InputError(f"The job began with {path}, which is not there any more; put it back to go on.")
        start = StartMesh.read(path, source.up)
        if start.source.fingerprint != source.fingerprint:
            raise InputError(f"{path} has changed since the job began with it; put the old file back or start anew.")
        return start

    def obstacle(self) -> str | None:
        """Why the file cannot be written back, found by writing it unchanged; None if it can."""
        try:
            rewrite(Path(self.source.path), _Moved(self, self.mesh), "unchanged")
        except InputError as error:
            return str(error)
        return None

    def write_result(self, result: MeshData, folder: Path) -> None:
        """Writes `<name>-refined.<ending>` into `folder`: the artist's file with its vertices moved.

        New textures are inside a GLB or glTF file and beside an OBJ file; those for other texture coordinates than the
        file's (of a mesh that had to be unwrapped) are left out.

        Raises:
            InputError: what `obstacle` says.
        """
        path, moved = Path(self.source.path), _Moved(self, result)
        stem = f"{path.stem}-refined"
        files = rewrite(path, moved, stem) if moved.changed else {f"{stem}{path.suffix.lower()}": path.read_bytes()}
        for name, content in files.items():
            (folder / name).write_bytes(content)


def _parts(loaded: ImportedMesh) -> dict[str, np.ndarray]:
    """Faces [F] by the name of their object or material; what is called the same is one part."""
    parts: dict[str, np.ndarray] = {}
    for names, of_face in ((loaded.objects, loaded.face_object), ([each.name for each in loaded.materials], loaded.face_material)):
        for number, name in enumerate(names):
            if of_face is not None and name:
                parts[name] = parts.get(name, False) | (of_face == number)
    return parts


class _Moved:
    """`Refined` for a start mesh and what a job made of it: points are found again by their original position."""

    def __init__(self, start: StartMesh, result: MeshData) -> None:
        self._original = start.original
        self._tree = cKDTree(start.original)
        self._moves = (result.positions != start.mesh.positions).any(1)
        self._bends = np.zeros(len(self._moves), dtype=bool)
        self._bends[result.faces[self._moves[result.faces].any(axis=1)]] = True
        # What did not move is copied: scaling it there and back would change its last digits.
        undone = start.placement.undo(result.positions.astype(np.float64))
        self._positions = np.where(self._moves[:, None], undone, start.original)
        self._colors = np.full_like(self._positions, 0.8) if result.colors is None else result.colors
        known = start.mesh.colors is not None and result.colors is not None
        self._recolors = (result.colors != start.mesh.colors).any(1) if known else np.full(len(self._moves), result.colors is not None)
        self._normals = smooth_normals(self._positions, result.faces)
        own_coordinates = start.mesh.uvs is not None and _equal(result.uvs, start.mesh.uvs)
        own_coordinates = own_coordinates and _equal(result.uv_faces, start.mesh.uv_faces)
        self._repainted = Repainted.between(start.mesh.material, result.material) if own_coordinates else None

    def positions(self, original: np.ndarray) -> np.ndarray:
        index = self._index(original)
        return np.where((index < 0)[:, None], original, self._positions[index])

    def normals(self, original: np.ndarray) -> np.ndarray:
        return self._normals[self._index(original)]

    def colors(self, original: np.ndarray) -> np.ndarray:
        return self._colors[self._index(original)]

    def moved(self, original: np.ndarray) -> np.ndarray:
        return self._of_read(self._moves, original)

    def recolored(self, original: np.ndarray) -> np.ndarray:
        return self._of_read(self._recolors, original)

    def bent(self, original: np.ndarray) -> np.ndarray:
        return self._of_read(self._bends, original)

    def repainted(self) -> Repainted | None:
        return self._repainted

    @property
    def changed(self) -> bool:
        """Whether the file has anything new to hold."""
        return bool(self._moves.any() or self._recolors.any()) or self._repainted is not None

    def _of_read(self, values: np.ndarray, original: np.ndarray) -> np.ndarray:
        index = self._index(original)
        return values[index] & (index >= 0)

    def _index(self, original: np.ndarray) -> np.ndarray:
        """The mesh's vertex at each point, -1 for a point that no face uses and that was therefore not read."""
        distance, index = self._tree.query(original)
        return np.where(distance <= 1e-5 * np.ptp(self._original, axis=0).max(), index, -1)


def check_same_mesh(path: Path | None, up: str | None, job: JobFile, folder: Path) -> None:
    """Checks a mesh and axis given beside --resume against those the job was begun with; None is fine.

    Raises:
        InputError: they differ.
    """
    known = None if job.mesh is None else job.mesh.path
    if path is not None and str(path.resolve()) != known:
        raise InputError(f"The job in {folder} was begun with {known or 'no mesh'}, not {path}; leave it out to go on.")
    if up is not None and (job.mesh is None or up != job.mesh.up):
        raise InputError(f"The job in {folder} was not begun with --up {up}; leave that out to go on.")


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)
