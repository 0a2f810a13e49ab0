"""`report.json`: everything about a finished job as plain values, from which `report.html` is drawn as well."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from backend.cli.job_history import History
from backend.representations.mesh_data import MeshData
from protocol.settings import JobSettings

REPORT_FORMAT = 1

_PACKAGES = (
    "torch", "warp-lang", "numpy", "scipy", "msgspec", "trimesh", "cholespy", "nerfacc", "diffusers", "transformers",
    "safetensors", "xatlas", "gpytoolbox", "manifold3d", "fast-simplification", "scikit-image", "pillow", "rich",
)  # fmt: skip


def make_report(
    command: str,
    settings: JobSettings,
    source: dict[str, object] | None,
    mesh: MeshData,
    history: History,
    timings: dict[str, float],
    environment: dict[str, object],
    facts: dict[str, object],
    judge: dict[str, object],
) -> dict[str, object]:
    """The report as JSON values; numbers that are not finite become null.

    Args:
        command: "generate" or "refine".
        source: where the start mesh came from, or None.
        timings: seconds by name, for the process that finished the job.
        environment: what `describe_environment` says.
        facts: what the job itself adds at its end.
        judge: the independent judge's verdict, or {"skipped": why}.
    """
    names = sorted({name for step in history.steps for name in step["numbers"]})
    columns = ("step", "stage", "seconds", "timestep", "azimuths", "elevations")
    steps: dict[str, object] = {column: [step[column] for step in history.steps] for column in columns}
    steps["numbers"] = {name: [step["numbers"].get(name) for step in history.steps] for name in names}
    report = {
        "format": REPORT_FORMAT,
        "command": command,
        "settings": msgspec.to_builtins(settings),
        "source": source,
        "result": mesh_facts(mesh),
        "judge": judge,
        "facts": facts,
        "timings": {name: round(seconds, 4) for name, seconds in timings.items()},
        "environment": environment,
        "sittings": history.sittings,
        "stages": history.stages,
        "checkpoints": history.checkpoints,
        "remeshings": history.remeshings,
        "choices": history.choices,
        "endings": history.endings,
        "diagnostics": history.diagnoses,
        "warnings": [warning["message"] for warning in history.warnings],
        "steps": steps,
    }
    return _finite(report)


def mesh_facts(mesh: MeshData) -> dict[str, object]:
    """Counts of a mesh and what `soundness` says of it."""
    from backend.representations.soundness import soundness

    facts = soundness(mesh)
    return {
        "vertices": len(mesh.positions),
        "faces": len(mesh.faces),
        **dataclasses.asdict(facts),
        "sound": facts.sound,
        "lowest": mesh.positions.min(0),
        "highest": mesh.positions.max(0),
        "colored": mesh.colors is not None,
    }


def describe_environment(device: str, threads: int) -> dict[str, object]:
    """What a result depends on beside its settings: revision, packages, device, threads, machine."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {
        "galatea": _revision(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "device": device,
        "device_name": name,
        "threads": threads,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def now() -> str:
    """The moment, in UTC, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The checkout's commit, with a plus where files differ from it; None without git."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
