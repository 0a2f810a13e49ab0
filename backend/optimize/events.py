"""What a running job says. The command line, the service, tests and notebooks all consume these same values.

Arrays in events are copies (or are never written to again): a consumer may keep them. `Preview.render` and
`Preview.mesh` are evaluated lazily by whoever wants them, before the generator is advanced, and draw none of the job's
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backend.representations.mesh_data import MeshData


@dataclass(frozen=True)
class Loading:
    """Something slow is being prepared (the prior, a start mesh); `what` is a phrase for a person."""

    what: str


@dataclass(frozen=True)
class StageStarted:
    """Stage `index` of `count` begins; `kind` is the tag of its settings: "grid", "field", "tetrahedra" or "mesh"."""

    index: int
    count: int
    kind: str
    steps: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. `step` counts from 1 over the whole job up to `total`; `numbers` are scalars to plot.

    `total` becomes smaller where a stage ends early.
    """

    step: int
    total: int
    stage: int
    seconds: float
    seconds_left: float
    numbers: dict[str, float]
    azimuths: tuple[float, ...] = ()
    elevations: tuple[float, ...] = ()
    timestep: float = 0.0


@dataclass(frozen=True)
class Preview:
    """The object as it is now. `mesh()` is its current surface; `render(azimuths, elevation, size)` gives [N, S, S, 4] u8 RGBA."""

    step: int
    mesh: Callable[[], MeshData]
    render: Callable[[list[float], float, int], np.ndarray]


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint of `step` is on disk, complete and synced, before this is said."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Remeshed:
    """The mesh has a new topology."""

    step: int
    vertices: int
    faces: int


@dataclass(frozen=True)
class Chosen:
    """Of several objects that `stage` optimized side by side, number `chosen` goes on alone after `step`.

    `errors` are the prior's errors of all of them, by which it was chosen: the lowest.
    """

    step: int
    stage: int
    chosen: int
    errors: tuple[float, ...]

    def sentence(self) -> str:
        """For people."""
        errors = ", ".join(f"{error:.4g}" for error in self.errors)
        return (
            f"Of {len(self.errors)} objects in stage {self.stage + 1}, number {self.chosen + 1} goes on: the prior likes it best "
            f"(errors {errors})."
        )


@dataclass(frozen=True)
class EndedEarly:
    """`stage` ends after `step`, `steps_left_out` before its end: the prior's error had stopped falling."""

    step: int
    stage: int
    steps_left_out: int

    def sentence(self) -> str:
        """For people."""
        return f"Stage {self.stage + 1} ends {self.steps_left_out} steps early: the prior's error had stopped falling."


@dataclass(frozen=True)
class Steered:
    """The steps after `step` work toward these values."""

    step: int
    prompt: str
    negative_prompt: str
    strength: float


@dataclass(frozen=True)
class Warned:
    """Something a person should know, but the job goes on."""

    message: str


@dataclass(frozen=True)
class Diagnosed:
    """What the job tells about itself after `step`, every so often; shares add up to 1 (or are empty before the first sample)."""

    step: int
    stage: int
    loss_shares: dict[str, float]
    """Of each term in the sum of their absolute values; "distillation" and the terms that are on."""
    gradient_shares: dict[str, float]
    """Of each term in the sum of the norms of their gradients on what is optimized."""
    update_norms: dict[str, float]
    """Root mean square of the last update of each parameter group."""
    azimuths: tuple[int, ...]
    """Views over the job so far by slices of 30 degrees, the first from 0 to 30."""
    azimuth_uniformity: float
    """p-value of a chi-squared test that they are uniform."""
    timesteps: tuple[int, ...]
    """By tenths of the prior's noise schedule, over the job so far."""
    saturation: float
    """Share of the object's pixels with a color channel at its limit, in the renders that the prior saw last."""
    janus: float | None
    """Share of views that the prior reads wrong by more than 45 degrees; None where it was not asked or cannot read them."""
    read_azimuths: tuple[tuple[float, float], ...] = ()
    """True and read azimuth of each view that was judged for `janus`, in degrees."""


@dataclass(frozen=True)
class Finished:
    """The result, the full settings' seconds spent, and extra facts for the report."""

    step: int
    mesh: MeshData
    seconds: float
    facts: dict[str, object] = field(default_factory=dict)


Event = (
    Loading
    | StageStarted
    | StepDone
    | Preview
    | CheckpointSaved
    | Remeshed
    | Chosen
    | EndedEarly
    | Steered
    | Warned
    | Diagnosed
    | Finished
)
