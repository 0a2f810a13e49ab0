"""What a job tells about itself, gathered over its steps; it looks on, and nothing of it changes the result.

Every step is counted (views, timesteps, losses); one in `EVERY` is observed closely, and far fewer are followed by the
question from where the prior sees the object. All of it is in the checkpoint, so that a resumed job tells what an undisturbed
one does, and warns of nothing twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from backend.optimize import checks
from backend.optimize.events import Diagnosed, StepDone, Warned
from backend.optimize.janus import AZIMUTHS, ViewReading, read_views
from backend.optimize.objectives import Job
from backend.optimize.observation import DISTILLATION, Observation
from backend.optimize.stages import RunningStage
from backend.optimize.step import StepRecord
from backend.optimize.strength import has_start_mesh
from backend.optimize.uniformity import ViewCounts
from backend.optimize.views import view_count
from backend.priors.prior import Conditioning, Prior
from protocol.settings import Stage

EVERY = 25
"""Steps of a stage between two that are observed, the first one among them."""

ASKED_VIEWS = len(AZIMUTHS) ** 2
"""Predictions for single views that reading the sides takes; a step makes two for each of its views, and more besides."""

COST = 0.0125
"""Share of the predictions of all steps that reading the sides may take, at most."""

MOMENTS = 5
"""How often the sides are read in a long job."""

TENTHS = 10


class Diagnostics:
    """Of one job, over all of its stages."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._views = ViewCounts()
        self._timesteps = [0] * TENTHS
        self._losses: dict[str, float] = {}  # sums of absolute values since the last Diagnosed
        self._loss_shares: dict[str, float] = {}
        self._gradient_shares: dict[str, float] = {}
        self._updates: dict[str, float] = {}
        self._saturation = 0.0
        self._first_saturation: float | None = None  # of the stage
        self._rows: dict[str, int] = {}
        self._reading: ViewReading | None = None
        self._asked_after = 0
        self._warned: list[str] = []

    @staticmethod
    def is_due(within: int) -> bool:
        """Whether step `within` (from 0) of a stage is to be observed."""
        return within % EVERY == 0

    def before(self) -> Iterator[Warned]:
        """Warnings that need no step."""
        job = self._job
        yield from self._new(checks.of_settings(job.settings, has_start_mesh(job), job.prior))

    def begin_stage(self) -> None:
        self._first_saturation, self._rows = None, {}

    def add(
        self, done: StepDone, record: StepRecord, running: RunningStage, conditioning: Conditioning
    ) -> Iterator[Warned | Diagnosed]:
        """Take in a step; what there is to tell after it."""
        stage = running.stage
        self._views.add(done.azimuths)
        self._timesteps[min(TENTHS - 1, int(TENTHS * done.timestep))] += 1
        for name, value in record.losses.items():
            self._losses[name] = self._losses.get(name, 0.0) + abs(value)
        yield from self._new(checks.of_step(record.numbers, stage))
        if record.observation is not None:
            self._take(record.observation)
            yield from self._new(self._of_observation(record.observation, stage))
            apart = steps_between_readings(stage, self._job.prior)
            if done.step - self._asked_after >= done.total / MOMENTS and done.total - done.step >= apart:
                self._ask(done.step, running, conditioning)
            yield self._diagnosed(done.step, done.stage)

    def end_stage(
        self, step: int, index: int, running: RunningStage, conditioning: Conditioning
    ) -> Iterator[Warned | Diagnosed]:
        """What there is to tell after the last step of stage `index`."""
        self._ask(step, running, conditioning)
        if index == len(self._job.settings.stages) - 1:
            yield from self._new(checks.of_views(self._views))
            if self._reading is not None and self._asked_after == step:
                yield from self._new(checks.of_reading(self._reading))
        yield self._diagnosed(step, index)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that is told later on."""
        return {
            "views": self._views.state_dict(),
            "timesteps": list(self._timesteps),
            "losses": dict(self._losses),
            "loss_shares": dict(self._loss_shares),
            "gradient_shares": dict(self._gradient_shares),
            "updates": dict(self._updates),
            "saturation": (self._saturation, self._first_saturation),
            "rows": dict(self._rows),
            "reading": None if self._reading is None else (self._reading.views, self._reading.hears_cameras),
            "asked_after": self._asked_after,
            "warned": list(self._warned),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._views.load_state_dict(state["views"])
        self._timesteps, self._losses = list(state["timesteps"]), dict(state["losses"])
        self._loss_shares, self._gradient_shares = dict(state["loss_shares"]), dict(state["gradient_shares"])
        self._updates, self._rows = dict(state["updates"]), dict(state["rows"])
        self._saturation, self._first_saturation = state["saturation"]
        self._reading = None if state["reading"] is None else ViewReading(*state["reading"])
        self._asked_after, self._warned = state["asked_after"], list(state["warned"])

    def _take(self, seen: Observation) -> None:
        pulls = {name: norm for name, norm in seen.gradients.items() if math.isfinite(norm)}
        self._gradient_shares = _shares(pulls)
        self._updates = seen.updates
        if seen.saturation is not None:
            self._saturation = seen.saturation
            if self._first_saturation is None:
                self._first_saturation = seen.saturation
        for cause, holds in (
            ("dominates", checks.dominating(self._gradient_shares) is not None),
            ("no gradient", not any(seen.gradients.values())),
        ):
            self._rows[cause] = self._rows.get(cause, 0) + 1 if holds else 0

    def _of_observation(self, seen: Observation, stage: Stage) -> Iterator[checks.Told]:
        yield from checks.of_observation(seen, stage, self._job.prior)
        dominating = checks.dominating(self._gradient_shares) or DISTILLATION
        yield from checks.of_row(self._rows, self._gradient_shares.get(dominating, 0.0), dominating)
        if seen.saturation is not None:
            yield from checks.of_saturation(self._first_saturation, seen.saturation)

    def _ask(self, step: int, running: RunningStage, conditioning: Conditioning) -> None:
        """Let the prior read the sides, if it hears cameras and enough steps have passed to pay for it."""
        prior, stage = self._job.prior, running.stage
        deaf = self._reading is not None and not self._reading.hears_cameras
        if deaf or step - self._asked_after < steps_between_readings(stage, prior):
            return
        with running.averaged() as representation:
            self._reading = read_views(representation, stage, prior, conditioning)
        self._asked_after = step

    def _diagnosed(self, step: int, stage: int) -> Diagnosed:
        if self._losses:
            self._loss_shares, self._losses = _shares(self._losses), {}
        reading = self._reading
        return Diagnosed(
            step,
            stage,
            self._loss_shares,
            self._gradient_shares,
            self._updates,
            tuple(int(count) for count in self._views.counts),
            self._views.uniformity(),
            tuple(self._timesteps),
            self._saturation,
            None if reading is None else reading.janus,
            () if reading is None else reading.views,
        )

    def _new(self, told: Iterable[checks.Told]) -> Iterator[Warned]:
        for cause, sentence in told:
            if cause not in self._warned:
                self._warned.append(cause)
                yield Warned(sentence)


def steps_between_readings(stage: Stage, prior: Prior) -> int:
    """So many steps pay for reading the sides once."""
    return math.ceil(ASKED_VIEWS / (2 * view_count(stage.cameras.views, 1.0, prior.views_per_group) * COST))


def _shares(values: dict[str, float]) -> dict[str, float]:
    """Of each in the sum of all; none of nothing."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    total = sum(finite.values())
    return {name: value / total for name, value in finite.items()} if total else {}
