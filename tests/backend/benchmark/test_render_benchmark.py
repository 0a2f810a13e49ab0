"""The rendering benchmark: everybody draws the same picture, and it runs where there is only torch and Warp."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
import torch

from backend.benchmark import device_agreement
from backend.benchmark.contestants import contestants
from backend.benchmark.render_report import as_svg, as_text
from backend.benchmark.render_table import Case, time_case
from backend.benchmark.scene import sphere
from backend.benchmark.timing import peak_megabytes
from backend.cli.main import main
from backend.rendering import reference, vertex_normals

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


@pytest.mark.parametrize("asked", [20, 320, 5_000])
def test_spheres_are_closed_and_as_fine_as_asked(asked) -> None:
    scene = sphere(asked, CPU)
    vertices, edges, faces = len(scene.vertices), len(scene.topology.edges), len(scene.faces)
    assert abs(faces - asked) <= 0.05 * asked and vertices - edges + faces == 2
    assert (scene.topology.opposite >= 0).all()
    a, b, c = scene.vertices[scene.faces.long()].unbind(1)
    assert (torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(1).min() > 0.0, "faces look outward"
    assert torch.allclose(scene.vertices.norm(dim=1), torch.tensor(0.8))


def test_everybody_draws_the_same_picture() -> None:
    present, absent = contestants(CPU)
    row = time_case(Case(320, 24, 2), present, CPU, 0.0)
    results = row["results"]
    assert list(results) == [contestant.name for contestant in present]
    assert results["galatea"]["ratio"] == 1.0 and results["plain torch"]["agrees"] == 1.0
    assert all(figures["agrees"] > 0.97 and figures["forward_ms"] > 0.0 for figures in results.values())
    assert "nvdiffrast" in absent, "it draws on GPUs only"


def stand_in(pixel_offset: float) -> types.ModuleType:
    """DRTK's documented calls, drawn by the plain-torch twin; its pixel centers lie at `pixel_offset`."""
    module = types.ModuleType("drtk")

    def rasterize(pixels, faces, height, width):
        x = (pixels[..., 0] + 0.5 - pixel_offset) / (0.5 * width) - 1.0
        y = 1.0 - (pixels[..., 1] + 0.5 - pixel_offset) / (0.5 * height)
        z = pixels[..., 2]
        clip = torch.stack([x * z, y * z, z - 1.0, z], dim=-1)
        module.drawn = reference.rasterize(clip, faces, height, width)
        return module.drawn[0]

    def interpolate(attributes, faces, ids, barycentrics):
        assert attributes.dim() == 3 and barycentrics.shape[1] == 3
        image = reference.interpolate(attributes, barycentrics.permute(0, 2, 3, 1), ids, faces)
        return image.permute(0, 3, 1, 2)

    module.rasterize = rasterize
    module.render = lambda pixels, faces, ids: (module.drawn[3], module.drawn[1].permute(0, 3, 1, 2))
    module.interpolate = interpolate
    module.edge_grad_estimator = lambda v_pix, vi, bary_img, img, index_img: img
    return module


@pytest.mark.parametrize(("offset", "same"), [(0.0, True), (4.0, False)])
def test_drtk_is_asked_as_its_documentation_says(monkeypatch, offset, same) -> None:
    monkeypatch.setitem(sys.modules, "drtk", stand_in(offset))
    present, _ = contestants(CPU)
    agrees = time_case(Case(320, 48, 2), present, CPU, 0.0)["results"]["DRTK"]["agrees"]
    assert (agrees > 0.98) == same


def test_another_package_named_drtk_is_not_taken_for_the_renderer(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "drtk", types.ModuleType("drtk"))
    present, absent = contestants(CPU)
    assert "DRTK" not in [contestant.name for contestant in present]
    assert "another package" in absent["DRTK"]


def test_peak_memory_sees_what_is_given_back_at_once() -> None:
    measured = peak_megabytes(lambda: torch.ones(32 * 2**20).sum(), CPU)
    assert measured is None or 120.0 < measured < 180.0


def test_a_device_that_computes_something_else_is_found_out(monkeypatch) -> None:
    """The other device is the CPU as well, but some of its operators are spoiled."""
    agreed = device_agreement.disagreement(CPU)
    assert set(agreed) == set(device_agreement.OPERATORS)
    assert all(figure == 0.0 for figures in agreed.values() for figure in figures.values())
    calls = iter(range(100))

    def spoiled(inputs):
        return vertex_normals(inputs.vertices, inputs.faces) * (1.0 if next(calls) == 0 else 1.01)

    monkeypatch.setattr(device_agreement, "OPERATORS", {"rasterize": device_agreement.OPERATORS["rasterize"], "normals": spoiled})
    found = device_agreement.disagreement(CPU)
    assert found["rasterize"]["values"] == 0.0
    assert found["normals"]["values"] > 0.005 and found["normals"]["gradients"] > 0.005


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_gpu_computes_what_the_cpu_computes() -> None:
    table = device_agreement.disagreement(torch.device("cuda"))
    assert table["rasterize"]["ids"] == 0.0
    assert all(figures["values"] < 1e-4 and figures["gradients"] < 1e-3 for figures in table.values()), table


BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from backend.benchmark import render_table
render_table.QUICK = [render_table.Case(80, 16, 4), render_table.Case(320, 16, 4)]
render_table.OPERATOR_CASE = render_table.QUICK[0]
from backend.cli.main import main
sys.exit(main(["bench", "render", "--quick", "--json", "table.json", "--plot", "plot.svg"]))
"""


def test_it_runs_with_torch_and_warp_alone(tmp_path: Path) -> None:
    blocked = {"msgspec", "msgpack", "zmq", "nerfacc", "jaxtyping", "scipy", "skimage", "trimesh", "matplotlib", "rich"}
    blocked |= {"cholespy", "gpytoolbox", "diffusers", "transformers", "PIL", "psutil", "xatlas", "fast_simplification"}
    script = BARE.format(blocked=blocked)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home()), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert as_text(table) in done.stdout and "antialias" in done.stdout
    assert (tmp_path / "plot.svg").read_text() == as_svg(table)
    drawing = xml.fromstring(as_svg(table))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "galatea, 16 px" in texts and "plain torch, 16 px" in texts


def test_bad_arguments_are_told_before_anything_is_measured(capsys, tmp_path: Path) -> None:
    assert main(["bench", "render", "--json", str(tmp_path / "nowhere" / "table.json")]) == 2
    assert "no folder" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["bench", "render", "--device", "cuda"]) == 2
        assert "torch finds no CUDA device" in capsys.readouterr().err
