"""The evaluation protocol: held-out prompts, several seeds, a baseline, negative controls; resumable, in shares.

Nothing here knows how a mesh is made: whoever runs it passes a function from prompt and seed to a mesh. Every answer is
stored as soon as it is known (mesh, picture, then the record), and what is stored is not done again, so a run can be
killed at any time and several processes can work on shares of one list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from backend.cameras import Cameras
from backend.evaluation.degrade import degraded
from backend.evaluation.judge_data import SEED_SPACE, true_mesh
from backend.evaluation.verdict import evaluate_mesh
from backend.rendering import render_mesh
from backend.representations.mesh_data import MeshData
from backend.toybox.captions import captions, parse
from backend.toybox.objects import HELD_OUT, KINDS, ObjectSpec
from backend.toybox.palette import COLORS

PROMPT_SEED = 2
SEEDS = (0, 1, 2)
RESULT, BASELINE, TRUE_OBJECT, WRONG_PROMPT, EMPTY_PROMPT, RANDOM_WEIGHTS = (
    "result", "baseline", "true object", "wrong prompt", "empty prompt", "random weights",
)  # fmt: skip
CONTROLS = (WRONG_PROMPT, EMPTY_PROMPT, RANDOM_WEIGHTS)
CONTROL_KINDS = ("mushroom", "mug", "chair", "car", "duck", "house")
PICTURE_AZIMUTHS = (0.0, 90.0, 180.0, 270.0)
PICTURE_SIZE = 96

Generate = Callable[[str, int], MeshData]
"""generate(prompt, seed) -> mesh. The prompt may be empty (a control)."""


@dataclass(frozen=True)
class Trial:
    """One mesh to make and to judge: `prompt` is what is asked for, `spec` what it is judged by."""

    role: str
    spec: ObjectSpec
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        """A file name without suffix, unique within a run."""
        return f"{self.role}-{self.spec.kind.name}-{self.seed}".replace(" ", "-")


@dataclass(frozen=True)
class Record:
    """A judged trial as it is stored; `verdict` is `Verdict.to_json()`."""

    role: str
    kind: str
    main: str
    second: str
    size: str
    prompt: str
    seed: int
    seconds: float
    verdict: dict[str, object]


def held_out_specs() -> list[ObjectSpec]:
    """One description of every kind whose kind and main color no training object has; always the same ones."""
    rng = np.random.default_rng([SEED_SPACE, 12, PROMPT_SEED])
    specs = []
    for kind in KINDS:
        allowed = sorted(color for name, color in HELD_OUT if name == kind.name)
        main = allowed[int(rng.integers(len(allowed)))]
        others = [color for color in COLORS if color != main]
        second = others[int(rng.integers(len(others)))]
        specs.append(ObjectSpec(kind, main, second, ("", "", "", "tall", "wide")[int(rng.integers(5))]))
    return specs


def prompt_for(spec: ObjectSpec) -> str:
    """"a tall red mushroom with a white stem"."""
    return captions(spec, np.random.default_rng(0))[0][1]


def result_trials(seeds: tuple[int, ...] = SEEDS) -> list[Trial]:
    """Every kind's held-out prompt with every seed; all kinds with the first seed come first."""
    specs = held_out_specs()
    return [Trial(RESULT, spec, prompt_for(spec), seed) for seed in seeds for spec in specs]


def baseline_trials() -> list[Trial]:
    """The same prompts once each, for what the prior guesses by itself without distillation."""
    return [Trial(BASELINE, spec, prompt_for(spec), 0) for spec in held_out_specs()]


def ceiling_trials() -> list[Trial]:
    """The same prompts, to be answered by true objects: what the protocol says where nothing is wrong."""
    return [Trial(TRUE_OBJECT, spec, prompt_for(spec), 0) for spec in held_out_specs()]


def true_object(prompt: str, seed: int) -> MeshData:
    """A fresh true object of a complete prompt, degraded as optimization would; answers `ceiling_trials`."""
    asked = parse(prompt)
    rng = np.random.default_rng([SEED_SPACE, 13, seed, KINDS.index(asked.kind)])
    return degraded(true_mesh(ObjectSpec(asked.kind, asked.main, asked.second, asked.size), rng), rng)


def control_trials(role: str) -> list[Trial]:
    """Trials that must fail. With the wrong prompt, the kind eleven places further on is asked for instead."""
    specs = held_out_specs()
    trials = []
    for number, spec in enumerate(specs):
        if spec.kind.name in CONTROL_KINDS:
            asked = {WRONG_PROMPT: prompt_for(specs[(number + 11) % len(specs)]), EMPTY_PROMPT: ""}
            trials.append(Trial(role, spec, asked.get(role, prompt_for(spec)), 0))
    return trials


def run_trials(
    trials: list[Trial], generate: Generate, folder: Path, share: tuple[int, int] = (0, 1)
) -> Iterator[Record]:
    """Makes, judges and stores the trials that `folder` does not have yet; yields every record, stored ones too.

    With `share` = (i, n) only trials i, i + n, i + 2 n, ... are done, so that n processes can split the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for trial in trials[share[0] :: share[1]]:
        path = folder / f"{trial.name}.json"
        record = read_record(path) if path.exists() else None
        if record is None or record.prompt != trial.prompt:
            begun = time.monotonic()
            mesh = generate(trial.prompt, trial.seed)
            record = judged_trial(trial, mesh, time.monotonic() - begun)
            store(trial, mesh, record, folder)
        yield record


def judged_trial(trial: Trial, mesh: MeshData, seconds: float) -> Record:
    """The record of a mesh that took `seconds`; views, lights and backgrounds depend on kind and seed alone."""
    spec = trial.spec
    verdict = evaluate_mesh(mesh, spec, 1000 * trial.seed + KINDS.index(spec.kind))
    said = (trial.role, spec.kind.name, spec.main, spec.second, spec.size, trial.prompt, trial.seed)
    return Record(*said, round(seconds, 2), verdict.to_json())


def store(trial: Trial, mesh: MeshData, record: Record, folder: Path) -> None:
    """Mesh and picture first, the record last and at once: what has a record is complete."""
    colors = None if mesh.colors is None else (mesh.colors * 255.0).round().astype(np.uint8)
    shape = trimesh.Trimesh(mesh.positions, mesh.faces, vertex_colors=colors, process=False)
    shape.export(folder / f"{trial.name}.glb")
    Image.fromarray(picture(mesh)).save(folder / f"{trial.name}.png")
    part = folder / f"{trial.name}.json.part"
    part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    part.replace(folder / f"{trial.name}.json")


def read_record(path: Path) -> Record:
    """A stored record."""
    return Record(**json.loads(path.read_text(encoding="utf-8")))


def read_records(folder: Path) -> list[Record]:
    """All stored records, in the order of roles, kinds and seeds."""
    order = {kind.name: number for number, kind in enumerate(KINDS)}
    records = [read_record(path) for path in folder.glob("*.json")]
    return sorted(records, key=lambda record: (record.role, order[record.kind], record.seed))


def picture(mesh: MeshData) -> np.ndarray:
    """Four views side by side, [96, 384, 3] u8: front, +x, back, -x, seen slightly from above, lit from the camera."""
    colors = None if mesh.colors is None else torch.from_numpy(mesh.colors)
    cameras = Cameras.orbit(list(PICTURE_AZIMUTHS), 18.0)
    with torch.no_grad():
        rendered = render_mesh(
            torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces), colors, cameras, PICTURE_SIZE, supersample=2
        )
    pixels = (rendered.composite(0.94).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return np.concatenate(list(pixels.numpy()), axis=1)
