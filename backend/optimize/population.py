"""The objects that a stage optimizes side by side: one, several candidates of which one goes on, or VSD's particles.

Candidates (`Selection`) all move in every step of the stage's trial phase, each by draws of its own; then the one that the
prior likes best goes on alone. Particles (`Vsd`, Wang et al. 2023, algorithm 1) share the method's network for the whole
stage; one of them, at random, moves in each step, and the one that the prior likes best is the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backend.errors import InputError
from backend.optimize.liking import prior_error
from backend.optimize.objectives import Job
from backend.optimize.plateau import PlateauWatch
from backend.optimize.regions import Regions
from backend.optimize.stages import Auxiliary, RunningStage, begin_stage, make_auxiliary, restore_stage
from backend.optimize.starts import vary
from backend.optimize.step import StepRecord, distill_step
from backend.priors.prior import Conditioning, Prior
from backend.representations.mesh_data import MeshData
from protocol.settings import Stage, Vsd


@dataclass
class Member:
    """An object that is optimized, and the generator of its draws: its own, or None for the job's."""

    running: RunningStage
    generator: torch.Generator | None = None


class Population:
    """A stage under way. `members` is never empty; the first one is shown."""

    def __init__(self, stage: Stage, members: list[Member], auxiliary: Auxiliary | None) -> None:
        self.stage = stage
        self.members = members
        self.auxiliary = auxiliary
        self.watch = PlateauWatch(stage)
        for member in members:
            member.running.auxiliary = auxiliary

    @property
    def shown(self) -> RunningStage:
        return self.members[0].running

    def step(
        self,
        within: int,
        strength: float,
        prior: Prior,
        conditioning: Conditioning,
        generator: torch.Generator,
        of_regions: Mapping[str, Conditioning] | None = None,
        observed: bool = False,
    ) -> tuple[StepRecord, bool]:
        """Step `within` (from 0) of the stage, and whether the stage should end with it. `observed`: see `distill_step`.

        The record is that of the member that moved, of several the first's. Whatever is not a candidate's own is drawn
        from `generator`.
        """
        idle = self.auxiliary is not None and self.auxiliary.warming_up
        records = []
        for member in self._moving(generator):
            member.running.pace = self.watch.pace
            draws = member.generator or generator
            progress = within / self.stage.steps
            watched = observed and not records
            records.append(
                distill_step(member.running, progress, strength, prior, conditioning, draws, of_regions, watched)
            )
        record = records[0]
        record.numbers.update(self.watch.numbers())
        # Candidates are watched when they have been chosen from; an object that waits for its network does not fall.
        if idle or len(records) > 1:
            return record, False
        return record, self.watch.should_end(record.timestep, record.numbers["x0_error"])

    def remesh(self, step: int) -> bool:
        """Renew the topology of all members where that is due after `step` steps; whether the shown one's was."""
        renewed = [member.running.remesh(step) for member in self.members]
        return renewed[0]

    def is_to_choose(self, step: int) -> bool:
        """Whether one of several goes on alone after `step` steps."""
        return len(self.members) > 1 and step >= trial_steps(self.stage)

    def choose(self, within: int, prior: Prior, conditioning: Conditioning) -> tuple[int, tuple[float, ...]]:
        """Go on with the member that the prior likes best: its number and the prior's error of each, the lowest the best."""
        errors = []
        for member in self.members:
            with member.running.averaged() as representation:
                errors.append(prior_error(representation, self.stage, within / self.stage.steps, prior, conditioning))
        best = errors.index(min(errors))
        self.members = [self.members[best]]
        return best, tuple(errors)

    def close(self) -> None:
        """Take out of the prior what the stage put into it."""
        if self.auxiliary is not None:
            self.auxiliary.close()

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that a resumed run needs."""
        members = [
            member.running.state_dict() | {"generator": None if member.generator is None else member.generator.get_state()}
            for member in self.members
        ]
        return {
            "members": members,
            "auxiliary": None if self.auxiliary is None else self.auxiliary.state_dict(),
            "watch": self.watch.state_dict(),
        }

    def _moving(self, generator: torch.Generator) -> Iterator[Member]:
        if len(self.members) > 1 and particles(self.stage) > 1:
            drawn = torch.randint(len(self.members), (), generator=generator, device=generator.device)
            yield self.members[int(drawn)]
        else:
            yield from self.members


def particles(stage: Stage) -> int:
    """How many objects share the method's network; 1 if it trains none."""
    method = stage.guidance.method
    return method.particles if isinstance(method, Vsd) else 1


def trial_steps(stage: Stage) -> int:
    """Steps after which one of several is chosen; 0 if there is but one."""
    if particles(stage) > 1:
        return stage.steps
    return round(stage.selection.until * stage.steps) if stage.selection.candidates > 1 else 0


def work_left(stage: Stage, within: int) -> int:
    """How often an object is still to be moved in a stage that has made `within` steps."""
    moving = 1 if particles(stage) > 1 else stage.selection.candidates
    return stage.steps - within + (moving - 1) * max(0, trial_steps(stage) - within)


def begin_population(
    stage: Stage, index: int, mesh: MeshData | None, job: Job, regions: Regions | None = None
) -> Population:
    """Stage `index` of a job at its first step: the first member as `begin_stage` makes it, others varied.

    Raises:
        InputError: both candidates and particles are asked for, or the stage cannot begin (see `begin_stage`).
    """
    count, candidates = particles(stage), stage.selection.candidates
    if count > 1 and candidates > 1:
        raise InputError(
            f"The stage has {candidates} candidates and VSD {count} particles; only one of the two can be more than 1. Set "
            "selection.candidates or the method's particles to 1."
        )
    prior, seed = job.prior, job.settings.seed
    device = prior.alphas_cumprod.device
    members = []
    for number in range(max(count, candidates)):
        member = Member(begin_stage(stage, mesh, device, job=job, regions=regions))
        own = torch.Generator().manual_seed(_derived(seed, index, number))
        if number:
            vary(member.running.representation, own)
        member.generator = own if candidates > 1 else None
        members.append(member)
    return Population(stage, members, make_auxiliary(stage, prior, _derived(seed, index, len(members))))


def restore_population(stage: Stage, index: int, state: dict[str, Any], job: Job) -> Population:
    """Stage `index` exactly as it was when `state_dict()` was taken."""
    prior, seed = job.prior, job.settings.seed
    device = prior.alphas_cumprod.device
    members = []
    for each in state["members"]:
        generator = None if each["generator"] is None else torch.Generator()
        if generator is not None:
            generator.set_state(each["generator"])
        members.append(Member(restore_stage(stage, each, device, job), generator))
    auxiliary = make_auxiliary(stage, prior, _derived(seed, index, len(members)))
    if auxiliary is not None:
        auxiliary.load_state_dict(state["auxiliary"])
    population = Population(stage, members, auxiliary)
    population.watch.load_state_dict(state["watch"])
    return population


def _derived(*numbers: int) -> int:
    """A seed that depends on all of `numbers` and looks like none of them."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "big") >> 1
