"""Several seeds side by side: how far they agree is what it is by hand, and finished ones are not made again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from backend.cli import generate, stability
from backend.cli.agreement import agreement, views_of
from backend.cli.main import parse
from backend.cli.stability_page import summary
from backend.errors import InputError
from backend.representations import write_glb
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere


def ball(radius: float, color: tuple[float, float, float]) -> MeshData:
    mesh = icosphere(2, radius)
    return MeshData(mesh.positions, mesh.faces, np.tile(np.float32(color), (len(mesh.positions), 1)))


def test_agreement_is_what_it_is_by_hand() -> None:
    large, small = np.zeros((8, 4, 4, 4), np.uint8), np.zeros((8, 4, 4, 4), np.uint8)
    large[:, :, :, 3], small[:, :2, :, 3] = 255, 255  # half of the picture
    large[..., 0] = 255
    small[..., 2] = 255
    found = agreement([large, small, large])
    assert found.overlap == pytest.approx(np.array([[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]]))
    assert found.color == pytest.approx(np.array([[0, 2, 0], [2, 0, 2], [0, 2, 0]]) / 3)
    assert summary(found, ["mug", "mug", "cake"]) == pytest.approx({"mean_overlap": 2 / 3, "mean_color": 4 / 9, "kind_agreement": 2 / 3})
    assert summary(found, [None] * 3)["kind_agreement"] is None


def test_balls_overlap_by_their_areas() -> None:
    found = agreement([views_of(ball(radius, (0.8, 0.2, 0.2))) for radius in (0.6, 0.5)])
    # Perspective at distance 3: a ball of radius r is seen within the angle asin(r / 3).
    areas = [np.tan(np.arcsin(radius / 3)) ** 2 for radius in (0.6, 0.5)]
    assert found.overlap[0, 1] == pytest.approx(areas[1] / areas[0], rel=0.03)
    assert found.color[0, 1] < 0.05


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Seeds that were made, and whether as a job that is resumed; each a ball larger by a little."""
    done: list[tuple[int, bool]] = []

    def run(arguments: argparse.Namespace) -> int:
        done.append((arguments.seed, arguments.resume))
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_glb(ball(0.5 + 0.05 * arguments.seed, (0.8, 0.2, 0.2)), arguments.output / "mesh.glb")
        report = {"settings": {"prompt": arguments.prompt, "seed": arguments.seed}, "judge": {"kind_read": "<ball>", "azimuth_right": None}}
        (arguments.output / "report.json").write_text(json.dumps(report))
        return 0

    monkeypatch.setattr(generate, "run", run)
    return done


def test_each_seed_is_made_once_and_compared(made: list, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["stability", "a ball", "--seeds", "2", "--seed", "3", "--output", str(tmp_path / "all")]
    assert stability.run(parse(arguments)) == 0
    assert made == [(3, False), (4, False)] and "2 seeds: silhouettes overlap by 0.8" in capsys.readouterr().out
    told = json.loads((tmp_path / "all" / "stability.json").read_text())
    assert told["seeds"] == [3, 4] and told["kind_agreement"] == 1.0 and 0.8 < told["mean_overlap"] < 0.9
    page = (tmp_path / "all" / "stability.html").read_text()
    assert "seed-4/report.html" in page and "<ball>" not in page and "&lt;ball&gt;" in page

    arguments[3] = "3"
    assert stability.run(parse(arguments)) == 0
    assert made == [(3, False), (4, False), (5, False)]
    with pytest.raises(InputError, match="holds “a ball” by seed 3"):
        stability.run(parse(["stability", "a cube", *arguments[2:]]))


def test_an_interrupted_seed_is_gone_on_with(made: list, tmp_path: Path) -> None:
    (tmp_path / "seed-0" / "job").mkdir(parents=True)
    (tmp_path / "seed-0" / "job" / "job.json").write_text("{}")
    stability.run(parse(["stability", "a ball", "--seeds", "2", "--output", str(tmp_path)]))
    assert made == [(0, True), (1, False)]


@pytest.mark.parametrize("seeds", ["1", "33"])
def test_one_seed_is_not_enough(seeds: str) -> None:
    with pytest.raises(InputError, match="2 to 32"):
        stability.run(parse(["stability", "a ball", "--seeds", seeds]))
