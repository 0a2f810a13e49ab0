"""The doctor: every check speaks for itself, broken ones too, and old drivers are named with what to do."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

from backend.cli import doctor
from backend.cli.main import main

POSIX = pytest.mark.skipif(os.name == "nt", reason="stands a shell script in for nvidia-smi")


def test_a_broken_check_is_a_finding_and_stops_no_other() -> None:
    def broken() -> list[doctor.Finding]:
        return importlib.import_module("a_module_that_does_not_exist").findings()

    found = doctor.examine({"warp": broken, "disk": doctor.check_disk})
    assert found[0].name == "warp" and found[0].state == "problem"
    assert "a_module_that_does_not_exist" in found[0].fact and ".venv" in found[0].advice
    assert found[1].name == "disk"


def test_this_machine_can_run_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """What the suite itself needs is found; whether the rest is there is the machine's affair."""
    code = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    states = {finding["name"]: finding["state"] for finding in findings}
    assert states["python"] == states["packages"] == states["warp"] == "ok"
    assert {"memory", "disk", "device", "toybox", "priors", "blender"} <= set(states)
    assert code == int("problem" in states.values())
    assert all(finding["advice"] for finding in findings if finding["state"] == "problem")


def test_text_says_what_to_do() -> None:
    text = doctor.as_text(
        [doctor.Finding("python", "ok", "3.12"), doctor.Finding("driver", "problem", "old", "Update.")]
    )
    assert text.splitlines() == [
        "ok       python     3.12",
        "problem  driver     old",
        "                    -> Update.",
        "1 problem found.",
    ]


@POSIX
@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("echo 580.95.05", "ok"),
        ("echo 570.211.01", "problem"),
        ("echo 'couldn'\"'\"'t communicate with the NVIDIA driver'; exit 9", "problem"),
    ],
)
def test_nvidia_drivers_are_held_to_what_cuda_13_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (finding,) = doctor.check_driver()
    assert finding.state == state
    assert bool(finding.advice) == (state == "problem")


def test_models_of_the_hub_cache_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--acme--tiny-sd" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (tmp_path / "models--acme--only-text" / "snapshots" / "abc").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (finding,) = doctor.check_hub()
    assert finding.fact.endswith(": acme/tiny-sd")


def test_other_versions_than_the_pinned_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy==0.1", "no-such-package==1.0"]\n')
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (finding,) = doctor.check_packages()
    assert finding.state == "problem"
    assert "numpy 0.1 (here: " in finding.fact and "no-such-package 1.0 (here: none)" in finding.fact
