"""What a job has said so far, kept on disk so that a report covers every step even if the job was killed and resumed.

`job/history.jsonl` takes one line per event that the report needs; `job/frames/` keeps pictures of the object at steps
spread over the job. Both are cut back to the checkpoint that a resumed job goes on from.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from backend.cli.pictures import spread
from backend.optimize.events import (
    CheckpointSaved,
    Chosen,
    Diagnosed,
    EndedEarly,
    Event,
    Remeshed,
    StageStarted,
    StepDone,
    Warned,
)

FRAMES_KEPT = 48
"""Beyond it, the frame goes whose absence leaves the smallest gap, so that the rest stay evenly spread."""


@dataclass
class History:
    """The lines of a job by kind, each a plain dictionary, in the order they were said."""

    stages: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    checkpoints: list[dict] = field(default_factory=list)
    remeshings: list[dict] = field(default_factory=list)
    choices: list[dict] = field(default_factory=list)
    endings: list[dict] = field(default_factory=list)
    """Stages that ended early."""
    diagnoses: list[dict] = field(default_factory=list)
    warnings: list[dict] = field(default_factory=list)
    sittings: list[dict] = field(default_factory=list)
    """One for each time the job was started or resumed."""


class HistoryLog:
    """Writes the history of the job in `folder` and reads it back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "history.jsonl"
        self._frames = folder / "frames"
        self._frames.mkdir(exist_ok=True)
        self._last_step = 0
        self._settled = False  # until the first step says where a resumed job goes on from
        self._sitting: dict[str, object] = {}
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        self._file = self._path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def sitting(self, facts: dict[str, object]) -> None:
        """Says what is true of this process (machine, moment); noted with the first step it makes."""
        self._sitting = facts

    def add(self, event: Event) -> None:
        """Notes an event, if the report needs it."""
        if isinstance(event, StepDone):
            if not self._settled:
                self._cut_back(event.step)
                self._append({"kind": "sittings", "after_step": event.step - 1, **self._sitting})
                self._settled = True
            self._last_step = event.step
            self._append(
                {
                    "kind": "steps",
                    "step": event.step,
                    "stage": event.stage,
                    "seconds": round(event.seconds, 6),
                    "timestep": event.timestep,
                    "azimuths": [round(angle, 3) for angle in event.azimuths],
                    "elevations": [round(angle, 3) for angle in event.elevations],
                    "numbers": {name: _plain(value) for name, value in event.numbers.items()},
                }
            )
        elif isinstance(event, StageStarted):
            stage = {"index": event.index, "count": event.count, "type": event.kind, "steps": event.steps}
            self._append({"kind": "stages", "after_step": self._last_step, **stage})
        elif isinstance(event, CheckpointSaved):
            self._append({"kind": "checkpoints", "after_step": event.step, "seconds": round(event.seconds, 6)})
        elif isinstance(event, Remeshed):
            counts = {"vertices": event.vertices, "faces": event.faces}
            self._append({"kind": "remeshings", "after_step": event.step, **counts})
        elif isinstance(event, Chosen):
            choice = {"stage": event.stage, "chosen": event.chosen, "errors": [_plain(error) for error in event.errors]}
            self._append({"kind": "choices", "after_step": event.step, **choice, "sentence": event.sentence()})
        elif isinstance(event, EndedEarly):
            left_out = {"stage": event.stage, "steps_left_out": event.steps_left_out}
            self._append({"kind": "endings", "after_step": event.step, **left_out, "sentence": event.sentence()})
        elif isinstance(event, Diagnosed):
            self._append({"kind": "diagnoses", **_rounded(asdict(event))})
        elif isinstance(event, Warned):
            self._append({"kind": "warnings", "after_step": self._last_step, "message": event.message})

    def add_frame(self, step: int, rgba: np.ndarray) -> None:
        """Keeps a picture [H, W, 4] u8 of the object at `step`."""
        Image.fromarray(rgba).save(self._frames / f"{step:08d}.png", compress_level=1)
        kept = sorted(self._frames.glob("*.png"))
        if len(kept) > FRAMES_KEPT:
            steps = [int(file.stem) for file in kept]
            least_missed = min(range(1, len(kept) - 1), key=lambda i: steps[i + 1] - steps[i - 1])
            kept[least_missed].unlink()

    def frames(self, at_most: int = FRAMES_KEPT) -> list[tuple[int, np.ndarray]]:
        """(step, picture [H, W, 4] u8), oldest first, evenly spread over the job."""
        files = spread(sorted(self._frames.glob("*.png")), at_most)
        return [(int(file.stem), np.asarray(Image.open(file))) for file in files]

    def read(self) -> History:
        """Everything noted so far. What a resumed job says again (its stage, its warnings) is listed once, and of what is told
        of one step the last."""
        history = History()
        said: set[tuple[str, object]] = set()
        for line in self._lines():
            kind = line.pop("kind")
            stage = line.get("stage")
            once = {"stages": line.get("index"), "warnings": line.get("message"), "choices": stage, "endings": stage}.get(kind)
            if once is not None and (kind, once) in said:
                continue
            said.add((kind, once))
            if kind == "diagnoses" and history.diagnoses and history.diagnoses[-1]["step"] == line["step"]:
                history.diagnoses.pop()
            getattr(history, kind).append(line)
        return history

    def close(self) -> None:
        self._file.close()

    def _append(self, line: dict) -> None:
        self._file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def _lines(self) -> list[dict]:
        lines = []
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue  # the line that was being written when the process was killed
        return lines

    def _cut_back(self, next_step: int) -> None:
        """Forgets the steps from `next_step` on: they were made after the checkpoint and are about to be made again."""
        kept = [
            line
            for line in self._lines()
            if line["kind"] in ("sittings", "warnings") or line.get("step", line.get("after_step", 0)) < next_step
        ]
        self._file.close()
        beside = self._path.with_suffix(".new")
        beside.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept), encoding="utf-8")
        beside.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        for file in self._frames.glob("*.png"):
            if int(file.stem) >= next_step:
                file.unlink()


def _rounded(value: object) -> object:
    """Numbers of a nested value with six digits, None where they are not finite; keys and structure as they are."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return _plain(value) if isinstance(value, float) else value


def _plain(value: float) -> float | None:
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
