"""Cutting a fine, smooth surface into pieces that each look to one side, before xatlas makes charts of them.

xatlas joins neighboring faces of nearly equal normals first and compares neighbors only: on a fine mesh the whole of a ball
becomes one "plane" to it, and it crashes. Its time also grows with the square of a chart's faces.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components

from backend.representations.mesh_regularizers import face_pairs

NEARLY_PLANAR = 0.998
"""Cosine between the normals of neighbors from which xatlas may take them for one plane, with some room."""

TURNS = 0.7
"""A region turns if its mean normal is shorter than this."""

SMOOTHINGS = 8
LEAST_FACES = 24
"""Smaller pieces join their neighbors."""

MOST_FACES = 2048
"""Larger pieces that are not flat are halved across their longest side."""

FLAT = 0.999
"""The length of the mean normal from which a piece counts as flat."""


def one_sided_pieces(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The piece of each face [F], numbered from 0: connected, of at most MOST_FACES unless flat, and where the surface is
    smooth all its faces look to about one side. `faces` [F, 3] share the vertices at their common edges.
    """
    pairs = face_pairs(torch.from_numpy(faces.astype(np.int64))).numpy()
    corners = positions.astype(np.float64)[faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    side = np.zeros(len(faces), dtype=np.int64)
    if len(faces) > 4 * MOST_FACES or _turns_smoothly(facing, pairs):
        side = _sides(facing, pairs)
    return _halved(side, corners.mean(axis=1), facing, pairs)


def _turns_smoothly(facing: np.ndarray, pairs: np.ndarray) -> bool:
    """Whether faces that are nearly coplanar with their neighbors make up a region that is not nearly planar."""
    normals = facing / np.maximum(np.linalg.norm(facing, axis=1), 1e-300)[:, None]
    smooth = (normals[pairs[0]] * normals[pairs[1]]).sum(1) > NEARLY_PLANAR
    return bool((_mean_normal_length(facing, _components(pairs[:, smooth], len(facing))) < TURNS).any())


def _mean_normal_length(facing: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Of each region: 1 if it is flat, 1/2 for a hemisphere, 0 for a ball; 1 for one without area."""
    total = np.bincount(region, np.linalg.norm(facing, axis=1))
    mean = np.stack([np.bincount(region, facing[:, axis]) for axis in range(3)], 1)
    return np.where(total > 0.0, np.linalg.norm(mean, axis=1) / np.maximum(total, 1e-300), 1.0)


def _sides(facing: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each face [F] which of the six directions of the axes its smoothed normal is closest to."""
    neighbors = _adjacency(pairs, len(facing))
    average = diags(1.0 / np.maximum(np.asarray(neighbors.sum(1)).ravel(), 1.0)) @ neighbors
    for _ in range(SMOOTHINGS):
        facing = 0.5 * facing + 0.5 * (average @ facing)
    side = np.argmax(np.concatenate([facing, -facing], axis=1), axis=1)
    for _ in range(3):
        piece = _components(_within(side, pairs), len(facing))
        small = np.bincount(piece)[piece] < LEAST_FACES
        votes = neighbors @ (np.eye(6)[side] * ~small[:, None])
        side = np.where(small & (votes.sum(1) > 0), votes.argmax(1), side)
    return side


def _halved(label: np.ndarray, centers: np.ndarray, facing: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The connected pieces of equal `label` [F], cut at the median across their longest side until none is too large."""
    while True:
        piece = _components(_within(label, pairs), len(label))
        size = np.bincount(piece)
        too_large = (size > MOST_FACES) & (_mean_normal_length(facing, piece) < FLAT)
        if not too_large.any():
            return piece
        label = 2 * piece
        for large in np.flatnonzero(too_large):
            member = np.flatnonzero(piece == large)
            along = centers[member, np.argmax(np.ptp(centers[member], axis=0))]
            label[member[np.argsort(along, kind="stable")[len(member) // 2 :]]] += 1


def _within(label: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return pairs[:, label[pairs[0]] == label[pairs[1]]]


def _adjacency(pairs: np.ndarray, count: int) -> csr_matrix:
    first, second = pairs
    ones = np.ones(2 * len(first))
    return coo_matrix((ones, (np.r_[first, second], np.r_[second, first])), shape=(count, count)).tocsr()


def _components(pairs: np.ndarray, count: int) -> np.ndarray:
    return connected_components(_adjacency(pairs, count), directed=False)[1]
