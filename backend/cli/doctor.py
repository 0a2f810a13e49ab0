"""`galatea doctor`: what this machine can do, and what to do about what is missing.

Every check stands alone: one that fails for a reason nobody thought of becomes a finding itself, so that the doctor can
speak where the rest of Galatea cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
MINIMUM_DRIVER = 580
MINIMUM_CAPABILITY = (7, 5)
GIGABYTE = 1e9


@dataclass(frozen=True)
class Finding:
    """`state`: "ok", "note" (works, could be better) or "problem" (something will fail); `advice` says what to do."""

    name: str
    state: Literal["ok", "note", "problem"]
    fact: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """0, or 1 if something is a problem."""
    findings = examine(CHECKS)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print(as_text(findings))
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def examine(checks: dict[str, Callable[[], list[Finding]]]) -> list[Finding]:
    """The findings of all checks in order; what a check raises is a finding as well."""
    findings = []
    for name, check in checks.items():
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the person must hear of it and of all the rest
            advice = "Remove the folder .venv and start Galatea again." if isinstance(error, ImportError) else ""
            findings.append(Finding(name, "problem", f"{type(error).__name__}: {error}", advice))
    return findings


def as_text(findings: list[Finding]) -> str:
    """One line per finding and one below it for advice, then a verdict."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:8} {finding.name:10} {finding.fact}")
        if finding.advice:
            lines.append(f"{'':19} -> {finding.advice}")
    problems = sum(finding.state == "problem" for finding in findings)
    lines.append(f"{problems} problem{'s' * (problems != 1)} found." if problems else "No problems found.")
    return "\n".join(lines)


def check_python() -> list[Finding]:
    version = platform.python_version()
    fact = f"{version} on {platform.system()} {platform.release()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return [Finding("python", "ok", fact)]
    return [Finding("python", "problem", fact, "Use Python 3.11, 3.12 or 3.13.")]


def check_packages() -> list[Finding]:
    """Are the pinned versions the installed ones?"""
    import tomllib
    from importlib import metadata

    wrong = []
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for requirement in requirements:
        name, wanted = requirement.split("==")
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            found = "none"
        if found != wanted:
            wrong.append(f"{name} {wanted} (here: {found})")
    if wrong:
        advice = "Remove the folder .venv and start Galatea again: it installs what is pinned."
        return [Finding("packages", "problem", "not as pinned: " + ", ".join(wrong), advice)]
    return [Finding("packages", "ok", f"{len(requirements)} packages as pinned")]


def check_memory() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    fact = f"{memory.available / GIGABYTE:.1f} GB free of {memory.total / GIGABYTE:.1f} GB, {os.cpu_count()} CPU cores"
    if memory.available < 2 * GIGABYTE:
        return [
            Finding("memory", "note", fact, "Close other programs; a job with the embedded prior needs about 2 GB.")
        ]
    return [Finding("memory", "ok", fact)]


def check_disk() -> list[Finding]:
    findings = []
    for folder, need in ((Path.cwd(), 1.0), (ROOT, 0.5)):
        free = shutil.disk_usage(folder).free / GIGABYTE
        advice = "" if free >= need else f"Free some space: {need:.1f} GB lets jobs and their checkpoints go through."
        findings.append(Finding("disk", "note" if advice else "ok", f"{free:.1f} GB free in {folder}", advice))
    return findings[:1] if Path.cwd() == ROOT else findings


def check_torch() -> list[Finding]:
    """The device that jobs will run on."""
    import torch

    build = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        return [gpu_finding(build, index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [Finding("device", "ok", f"MPS (Apple's GPU), {build}")]
    fact = f"CPU with {torch.get_num_threads()} threads, {build}"
    if torch.version.cuda or torch.version.hip:
        advice = "This torch is built for a GPU and finds none; is its driver installed? For the CPU: --torch cpu."
        return [Finding("device", "note", fact, advice)]
    if shutil.which("nvidia-smi"):
        return [
            Finding("device", "note", fact, "There is an NVIDIA GPU: start Galatea once with --torch cuda to use it.")
        ]
    if shutil.which("rocminfo"):
        return [Finding("device", "note", fact, "There is ROCm: start Galatea once with --torch rocm to use the GPU.")]
    return [Finding("device", "ok", fact)]


def gpu_finding(build: str, index: int) -> Finding:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    kind = "ROCm" if torch.version.hip else "CUDA"
    name = torch.cuda.get_device_name(index)
    fact = f"{kind} {index}: {name}, {free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB free, {build}"
    if torch.version.hip:
        return Finding("device", "note", fact, "Warp has no ROCm: rendering runs on the CPU, the prior on the GPU.")
    capability = torch.cuda.get_device_capability(index)
    if capability < MINIMUM_CAPABILITY:
        need = "{}.{}".format(*MINIMUM_CAPABILITY)
        advice = (
            f"Warp needs compute capability {need} or later (this is {capability[0]}.{capability[1]}); use --torch cpu."
        )
        return Finding("device", "problem", fact, advice)
    return Finding("device", "ok", fact)


def check_driver() -> list[Finding]:
    """NVIDIA's driver against what CUDA 13 needs, which torch and Warp are built with."""
    smi = shutil.which("nvidia-smi")
    if not smi:
        return []
    query = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20)
    if answer.returncode:
        reason = (answer.stdout + answer.stderr).strip().splitlines()[:1]
        return [
            Finding(
                "driver", "problem", f"nvidia-smi fails: {' '.join(reason)}", "Reinstall NVIDIA's driver and restart."
            )
        ]
    version = answer.stdout.split()[0]
    if int(version.split(".")[0]) < MINIMUM_DRIVER:
        return [
            Finding(
                "driver",
                "problem",
                f"NVIDIA {version}",
                f"Update it to R{MINIMUM_DRIVER} or later, or use --torch cpu.",
            )
        ]
    return [Finding("driver", "ok", f"NVIDIA {version}")]


def check_warp() -> list[Finding]:
    """Does Warp start, and are its kernels compiled already?"""
    import warp as wp

    from backend.rendering.kernels import runtime

    runtime.start()
    devices = ", ".join(str(device) for device in wp.get_devices())
    folder = Path(wp.config.kernel_cache_dir)
    compiled = any(folder.glob("*/*.o")) or any(folder.glob("*/*.ptx")) or any(folder.glob("*/*.cubin"))
    state = f"kernels compiled, in {folder}" if compiled else "kernels are compiled on first use, some seconds"
    return [Finding("warp", "ok", f"{wp.config.version} on {devices}; {state}")]


def check_toybox() -> list[Finding]:
    """Is the embedded prior there, and can it be loaded?"""
    from backend.priors.toybox import TOYBOX_FOLDER, ToyboxPrior

    if not TOYBOX_FOLDER.exists():
        advice = "Restore backend/toybox/weights from the project, or train it: python3 galatea.py train-toybox"
        return [Finding("toybox", "problem", "the embedded prior's weights are missing", advice)]
    ToyboxPrior.load(TOYBOX_FOLDER)
    size = sum(file.stat().st_size for file in TOYBOX_FOLDER.rglob("*.safetensors"))
    return [Finding("toybox", "ok", f"the embedded prior loads ({size / 1e6:.1f} MB)")]


def check_hub() -> list[Finding]:
    """Pretrained models in diffusers format that are on this machine already."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    indices = cache.glob("models--*/snapshots/*/model_index.json")
    names = sorted({index.parents[2].name.removeprefix("models--").replace("--", "/") for index in indices})
    if not names:
        return [Finding("priors", "ok", f"no pretrained models in {cache}; the embedded prior needs none")]
    return [Finding("priors", "ok", f"for --prior, from {cache}: " + ", ".join(names))]


def check_blender() -> list[Finding]:
    blender = find_blender()
    if not blender:
        return [
            Finding(
                "blender", "note", "not found", "Galatea works without it; its results open in Blender 4.2 or later."
            )
        ]
    answer = subprocess.run([blender, "--version"], capture_output=True, text=True, timeout=60)
    version = (answer.stdout.strip().splitlines() or ["does not start"])[0]
    return [Finding("blender", "note" if answer.returncode else "ok", f"{version} ({blender})")]


def find_blender() -> str | None:
    """The newest Blender on PATH or where its installers put it."""
    programs = Path(os.environ.get("PROGRAMFILES", "C:/Program Files")) / "Blender Foundation"
    places = [
        Path("/Applications/Blender.app/Contents/MacOS/Blender"),
        *sorted(programs.glob("*/blender.exe"), reverse=True),
    ]
    return shutil.which("blender") or next((str(place) for place in places if place.exists()), None)


CHECKS: dict[str, Callable[[], list[Finding]]] = {
    "python": check_python,
    "packages": check_packages,
    "memory": check_memory,
    "disk": check_disk,
    "device": check_torch,
    "driver": check_driver,
    "warp": check_warp,
    "toybox": check_toybox,
    "priors": check_hub,
    "blender": check_blender,
}
