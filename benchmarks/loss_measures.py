"""What is measured of the results that losses are shown on: plain numpy in float64, which shares no code with the losses."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from backend.evaluation.verdict import evaluate_mesh
from backend.representations.mesh_data import MeshData
from benchmarks.judged_trials import color_facts, score
from benchmarks.loss_jobs import LossJob


def judged_score(mesh: MeshData, job: LossJob) -> float:
    """The evaluation's judge on views that no step saw, as one number in [0, 1] (`judged_trials.score`)."""
    return score(evaluate_mesh(mesh, job.spec, 0).to_json())


def saturation(mesh: MeshData, job: LossJob) -> float:
    """Mean over pixels of eight unlit views of the largest less the smallest channel."""
    return color_facts(mesh, job.spec, 0)["saturation"]


def color_error(mesh: MeshData, job: LossJob) -> float:
    """Mean distance of pixels to the nearest color of true objects (`judged_trials.color_facts`)."""
    return color_facts(mesh, job.spec, 0)["color_error"]


def edge_spread(mesh: MeshData, job: LossJob) -> float:
    """Standard deviation of the edges' lengths in units of their mean."""
    ends = _edges(mesh)
    lengths = np.linalg.norm(np.diff(mesh.positions.astype(np.float64)[ends], axis=1)[:, 0], axis=1)
    return float(lengths.std() / lengths.mean())


def smallest_angle(mesh: MeshData, job: LossJob) -> float:
    """The fifth percentile of the faces' smallest angles, in degrees."""
    corners = mesh.positions.astype(np.float64)[mesh.faces]
    angles = []
    for k in range(3):
        u, v = corners[:, k - 1] - corners[:, k], corners[:, k - 2] - corners[:, k]
        cosine = (u * v).sum(1) / np.maximum(np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1), 1e-30)
        angles.append(np.degrees(np.arccos(cosine.clip(-1.0, 1.0))))
    return float(np.percentile(np.min(angles, axis=0), 5.0))


def bend(mesh: MeshData, job: LossJob) -> float:
    """Mean angle between the normals of faces that share an edge, in degrees."""
    normals = _normals(mesh)
    pairs = _neighbors(mesh)
    return float(np.degrees(np.arccos((normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1).clip(-1.0, 1.0))).mean())


def asymmetry_x(mesh: MeshData, job: LossJob) -> float:
    """Mean distance of 4000 points of the surface, mirrored in x = 0, to the nearest of 100,000 others, in percent of the extent."""
    points, other = _sample(mesh, 1, 4000)[0], _sample(mesh, 2, 100_000)[0]
    distance = cKDTree(other).query(points * [-1.0, 1.0, 1.0])[0]
    return float(100.0 * distance.mean() / np.ptp(other, axis=0).max())


def color_asymmetry_x(mesh: MeshData, job: LossJob) -> float:
    """Mean distance in RGB of the colors of such points and of those nearest to their mirror images."""
    (points, own), (other, theirs) = _sample(mesh, 1), _sample(mesh, 2)
    nearest = cKDTree(other).query(points * [-1.0, 1.0, 1.0])[1]
    return float(np.linalg.norm(own - theirs[nearest], axis=1).mean())


def color_changes(mesh: MeshData, job: LossJob) -> float:
    """Median distance in RGB between the ends of an edge."""
    return float(np.median(np.linalg.norm(np.diff(mesh.colors.astype(np.float64)[_edges(mesh)], axis=1)[:, 0], axis=1)))


def _edges(mesh: MeshData) -> np.ndarray:
    """[E, 2], each once."""
    sides = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    return np.unique(np.sort(sides, axis=1), axis=0)


def _normals(mesh: MeshData) -> np.ndarray:
    a, b, c = (mesh.positions.astype(np.float64)[mesh.faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


def _neighbors(mesh: MeshData) -> np.ndarray:
    """Pairs of faces [P, 2] with a common edge."""
    sides = np.sort(np.concatenate([mesh.faces[:, [k, (k + 1) % 3]] for k in range(3)]), axis=1)
    order = np.lexsort(sides.T)
    same = (sides[order][1:] == sides[order][:-1]).all(axis=1)
    face = order % len(mesh.faces)
    return np.stack([face[:-1][same], face[1:][same]], axis=1)


def _sample(mesh: MeshData, seed: int, count: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    """Points and colors, evenly spread over the surface."""
    rng = np.random.default_rng(seed)
    a, b, c = (mesh.positions.astype(np.float64)[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1.0 - u, u * (1.0 - v), u * v], axis=1)
    return tuple(np.einsum("pk,pkc->pc", weights, each[mesh.faces[face]]) for each in (mesh.positions, mesh.colors))
