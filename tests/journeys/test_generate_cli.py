"""`galatea generate` as a person runs it: its results, Ctrl-C, a kill and a resume, and every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trimesh
from PIL import Image

from protocol.settings import JobSettings
from tests.journeys.conftest import COMMAND, Run

PROMPT = "a red mushroom with a white stem"


@pytest.fixture(scope="module")
def finished(galatea: Run, untrained_prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one job of 14 steps has run."""
    cwd = tmp_path_factory.mktemp("finished")
    done = galatea("generate", PROMPT, "--seed", 5, "--steps", 14, "--prior", untrained_prior, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "mesh.glb" in done.stdout and "report.html" in done.stdout
    return cwd / "output" / "a-red-mushroom-with-a-white-stem-5"


def test_output_folder_holds_the_results_and_nothing_else(finished: Path) -> None:
    names = {"mesh.glb", "preview.png", "preview.webp", "report.html", "report.json", "turntable.png"}
    assert {path.name for path in finished.iterdir()} == names


def test_mesh_is_sound_and_colored(finished: Path) -> None:
    content = (finished / "mesh.glb").read_bytes()
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert "COLOR_0" in document["meshes"][0]["primitives"][0]["attributes"]
    mesh = trimesh.load(finished / "mesh.glb", force="mesh", process=False)
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert welded.is_watertight and welded.is_winding_consistent and welded.volume > 0
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.2


def test_pictures_show_something(finished: Path) -> None:
    with Image.open(finished / "turntable.png") as sheet:
        assert sheet.width == 2 * sheet.height >= 1000
        for view in np.split(np.asarray(sheet).reshape(2, sheet.height // 2, 4, sheet.width // 4, 3), 2):
            assert view.std() > 3
    with Image.open(finished / "preview.webp") as animation:
        assert animation.is_animated and animation.n_frames >= 24
    with Image.open(finished / "preview.png") as strip:
        assert strip.width == 768


def test_report_is_complete(finished: Path, untrained_prior: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    settings = msgspec.convert(report["settings"], JobSettings)
    assert (settings.prompt, settings.seed, settings.prior) == (PROMPT, 5, str(untrained_prior))
    assert report["steps"]["step"] == list(range(1, 15))
    assert all(len(values) == 14 for values in report["steps"]["numbers"].values())
    assert all(len(views) == 4 for views in report["steps"]["azimuths"])
    assert report["environment"]["packages"]["torch"] and report["environment"]["device"] in ("cpu", "cuda")
    assert {"prior", "previews", "results", "first_preview", "total"} <= report["timings"].keys()
    assert report["result"]["watertight"] and "skipped" in report["judge"]


def test_page_needs_nothing_beside_itself(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert PROMPT in page
    assert not re.findall(r"https?://", page)
    assert all(match.startswith("data:") for match in re.findall(r'src="([^"]*)"', page))


def test_same_seed_gives_the_same_mesh_in_a_new_folder(finished: Path, here: Run, untrained_prior: Path) -> None:
    cwd = finished.parents[1]
    done = here("generate", PROMPT, "--seed", 5, "--steps", 14, "--prior", untrained_prior, cwd=cwd)
    again = finished.with_name(finished.name + "-2")
    assert done.returncode == 0, done.stderr
    assert (again / "mesh.glb").read_bytes() == (finished / "mesh.glb").read_bytes()


def wait_for_steps(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    log = folder / "job" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_text().count('"kind":"steps"') < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_interrupted_and_killed_job_ends_like_an_uninterrupted_one(
    finished: Path, untrained_prior: Path, environment: dict[str, str], here: Run, tmp_path: Path
) -> None:
    words = [PROMPT, "--seed", "5", "--steps", "14", "--prior", str(untrained_prior), "--output", "out"]

    def start(*more: str) -> subprocess.Popen[str]:
        command = [*COMMAND, "generate", *words, *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes)

    interrupted = start()
    wait_for_steps(tmp_path / "out", 3, interrupted)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 130
    stopped_after = int(re.search(r"Stopped after step (\d+) of 14", said)[1])
    assert "generate --resume --output out" in said
    assert not (tmp_path / "out" / "mesh.glb").exists()

    refused = here("generate", *words, cwd=tmp_path)
    assert refused.returncode == 2 and "unfinished job" in refused.stderr

    killed = start("--resume")
    wait_for_steps(tmp_path / "out", stopped_after + 2, killed)
    killed.kill()
    killed.communicate()

    done = here("generate", "--resume", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "mesh.glb").read_bytes() == (finished / "mesh.glb").read_bytes()
    whole = json.loads((finished / "report.json").read_text())["steps"]
    pieced = json.loads((tmp_path / "out" / "report.json").read_text())["steps"]
    for column in ("step", "stage", "timestep", "azimuths", "elevations", "numbers"):
        assert pieced[column] == whole[column]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["   "], "prompt is empty"),
        (["a red dragon"], "dragon"),
        (["a mug", "--negative", "a dragon"], "dragon"),
        (["a mug", "--prior", "no/such/prior"], "no/such/prior"),
        (["a mug", "--start-mesh", "missing.obj"], "missing.obj"),
        (["a mug", "--output", "taken/out"], "Cannot write to taken/out"),
        (["a mug", "--output", "taken"], "is a file"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    words: list[str], said: str, here: Run, untrained_prior: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    prior = [] if "--prior" in words else ["--prior", untrained_prior]
    done = here("generate", *words, *prior, "--steps", 4, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(os.name == "nt", reason="sets a limit that Windows lacks")
def test_disk_that_fills_up_is_one_sentence_and_the_job_can_go_on(
    untrained_prior: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same places."""
    words = ["generate", "a mug", "--steps", "4", "--prior", str(untrained_prior), "--output", "out"]
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000));"
        f"sys.argv = ['galatea', *{words!r}]; runpy.run_module('backend.cli', run_name='__main__')"
    )
    full = subprocess.run(
        [COMMAND[0], "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert full.returncode == 2, full.stderr
    assert "Cannot write to out" in full.stderr and "Traceback" not in full.stderr
    assert not (tmp_path / "out").exists() or {path.name for path in (tmp_path / "out").iterdir()} <= {"job", "preview.png"}
