"""`galatea refine` as a person runs it: the artist's file comes back with its own topology, and bad meshes are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.journeys.conftest import Run


def quad_ball(path: Path) -> str:
    """A ball of quads with UVs that have a seam, 20 times too large and off center, z up; returns its text."""
    rows, columns = 9, 16
    lines = ["# a ball by hand", "mtllib ball.mtl", "o Ball"]
    for row in range(1, rows):
        for column in range(columns):
            polar, turn = np.pi * row / rows, 2 * np.pi * column / columns
            point = 20 * np.array([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)])
            lines.append("v " + " ".join(f"{value:.6f}" for value in point + (100, 50, 20)))
    lines += ["v 100 50 40", "v 100 50 0"]
    lines += [f"vt {column / columns:.4f} {row / rows:.4f}" for row in range(1, rows) for column in range(columns + 1)]
    lines += ["g middle", "usemtl paint"]
    for row in range(rows - 2):
        for column in range(columns):
            corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
            words = [f"{r * columns + c % columns + 1}/{r * (columns + 1) + c + 1}" for r, c in corners]
            lines.append("f " + " ".join(words))
    top, bottom = (rows - 1) * columns + 1, (rows - 1) * columns + 2
    last = (rows - 2) * columns
    lines.append("g caps")
    lines += [f"f {top} {column + 1} {(column + 1) % columns + 1}" for column in range(columns)]
    lines += [f"f {bottom} {last + (column + 1) % columns + 1} {last + column + 1}" for column in range(columns)]
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    return text


@pytest.fixture(scope="module")
def refined(here: Run, untrained_prior: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of a short job, and the text of the file it began with."""
    cwd = tmp_path_factory.mktemp("refined")
    text = quad_ball(cwd / "ball.obj")
    words = ("refine", "ball.obj", "a red apple", "--up", "z", "--steps", 6, "--prior", untrained_prior, "--output", "out")
    done = here(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "out", text


def lines_of(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if line.split()[0] in words]


def test_own_format_keeps_everything_but_positions(refined: tuple[Path, str]) -> None:
    folder, before = refined
    after = (folder / "ball-refined.obj").read_text()
    assert lines_of(after, "f", "vt", "g", "usemtl", "o", "mtllib", "#") == lines_of(
        before, "f", "vt", "g", "usemtl", "o", "mtllib", "#"
    )
    old = np.array([line.split()[1:4] for line in lines_of(before, "v")], float)
    new = np.array([line.split()[1:4] for line in lines_of(after, "v")], float)
    assert old.shape == new.shape
    moved = np.linalg.norm(new - old, axis=1)
    assert 0 < moved.max() < 10  # in the file's own units and place, where the ball's radius is 20


def test_glb_holds_the_same_shape_upright(refined: tuple[Path, str]) -> None:
    folder, _ = refined
    mesh = trimesh.load(folder / "mesh.glb", force="mesh", process=False)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.95, abs=0.2)
    report = json.loads((folder / "report.json").read_text())
    assert report["result"]["vertices"] == 8 * 16 + 2
    assert report["source"]["name"] == "ball.obj" and report["source"]["up"] == "z"
    assert report["command"] == "refine"


@pytest.mark.parametrize("suffix", ["stl", "glb"])
def test_other_formats_come_back_too(suffix: str, here: Run, untrained_prior: Path, tmp_path: Path) -> None:
    box = trimesh.creation.box((2, 3, 4)).subdivide()
    box.export(tmp_path / f"box.{suffix}")
    words = ("refine", f"box.{suffix}", "a red apple", "--steps", 2, "--prior", untrained_prior, "--output", "out")
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = trimesh.load(tmp_path / "out" / f"box-refined.{suffix}", force="mesh", process=False)
    before = trimesh.load(tmp_path / f"box.{suffix}", force="mesh", process=False)
    np.testing.assert_array_equal(after.faces, before.faces)
    assert 0 < np.abs(after.vertices - before.vertices).max() < 1


def write_bad_mesh(kind: str, path: Path) -> None:
    triangle = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
    content = {
        "nan": "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "flat": triangle + "v 2 0 0\nv 3 0 0\nf 1 2 4\nf 1 4 5\n",
        "no faces": triangle,
        "empty": "",
        "not a mesh": "dear diary,\n",
    }
    path.write_text(content[kind])


@pytest.mark.parametrize("kind", ["nan", "flat", "no faces", "empty", "not a mesh"])
def test_bad_mesh_is_one_sentence_and_leaves_nothing(kind: str, here: Run, untrained_prior: Path, tmp_path: Path) -> None:
    write_bad_mesh(kind, tmp_path / "bad.obj")
    done = here("refine", "bad.obj", "a mug", "--prior", untrained_prior, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("galatea: ") and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.obj"]


@pytest.mark.slow
def test_five_million_faces_are_refused(here: Run, untrained_prior: Path, tmp_path: Path) -> None:
    count = 5_000_001
    facet = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    facets = np.zeros(count, facet)
    facets["corners"] = np.random.default_rng(0).random((count, 3, 3), np.float32)
    (tmp_path / "huge.stl").write_bytes(bytes(80) + count.to_bytes(4, "little") + facets.tobytes())
    done = here("refine", "huge.stl", "a mug", "--prior", untrained_prior, cwd=tmp_path)
    assert done.returncode == 2 and "5,000,000" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["huge.stl"]
