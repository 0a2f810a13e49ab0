"""How well the embedded prior reads from where a view is looked at: `python -m benchmarks.reading_sides [--seed 6]`.

For each kind a true object; for kinds with a front also the same with two fronts (its front half, and that again turned by 180 degrees)
and the same turned by 90 degrees. Prints the Janus index and what was read from the front, the right, the back and the left.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from backend.evaluation.judge_data import true_mesh
from backend.optimize.janus import ViewReading, read_views
from backend.priors import load_prior
from backend.representations.mesh_data import MeshData
from backend.representations.triangle_mesh import TriangleMesh
from backend.toybox.objects import KINDS, ObjectSpec
from protocol.settings import MeshStage


def turned(mesh: MeshData, quarters: int) -> MeshData:
    """The mesh turned by that many times 90 degrees around the vertical axis."""
    positions = mesh.positions
    for _ in range(quarters):
        positions = np.stack([positions[:, 2], positions[:, 1], -positions[:, 0]], 1)
    return MeshData(np.ascontiguousarray(positions), mesh.faces, mesh.colors)


def two_fronts(mesh: MeshData) -> MeshData:
    front = mesh.positions[mesh.faces][:, :, 2].mean(1) > 0
    half = MeshData(mesh.positions, mesh.faces[front], mesh.colors)
    other = turned(half, 2)
    faces = np.concatenate([half.faces, other.faces + len(half.positions)])
    return MeshData(np.concatenate([half.positions, other.positions]), faces, np.concatenate([half.colors, other.colors]))


def said(reading: ViewReading) -> str:
    index = "none" if reading.janus is None else f"{reading.janus:.2f}"
    return f"{index} {[int(read) for _, read in reading.views]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior, stage, rng = load_prior("toybox", "cpu", print), MeshStage(steps=1), np.random.default_rng(arguments.seed)
    print(f"{'kind':10} {'true':28} {'two fronts':28} turned")
    right = views = caught = 0
    for kind in KINDS:
        mesh = true_mesh(ObjectSpec(kind, "red", "blue"), rng)
        conditioning = prior.encode_prompt(f"a red {kind.name}", "")
        meshes = (mesh, two_fronts(mesh), turned(mesh, 1)) if kind.has_front else (mesh,)
        readings = [read_views(TriangleMesh(each, stage), stage, prior, conditioning) for each in meshes]
        print(f"{kind.name:10} {' '.join(f'{said(reading):28}' for reading in readings)}")
        if kind.has_front:
            views += 4
            right += sum(true == read for true, read in readings[0].views)
            caught += readings[1].janus is not None and readings[1].janus > 0
    print(f"with a front: {right} of {views} views of true objects read right, {caught} of {views // 4} with two fronts found")


if __name__ == "__main__":
    main()
