"""`--minutes M`: the job's stages are planned for that time once the prior is loaded, and the plan is shown and kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from backend.cli.job_arguments import JobFile
from backend.cli.progress import duration
from backend.optimize.costs import measure_costs, recall, remember
from backend.optimize.inputs import Inputs
from backend.priors.prior import Prior
from backend.recipes.planner import Costs, Plan, corrected, plan
from protocol.settings import JobSettings

AFTER_SECONDS = 6.0
"""Assumed for pictures, report and judge until a job on this machine has shown it."""


@dataclass
class Budget:
    """A planned job, and what is needed to learn from it."""

    recipe: JobSettings
    costs: Costs
    plan: Plan
    inputs: Inputs
    prior: Prior

    def learn(self, steps: list[dict], after: float) -> None:
        """Keep what the whole job showed: `steps` are the history's, with "stage" and "seconds"; `after` as in `Costs`."""
        if len(steps) != sum(stage.steps for stage in self.plan.stages):
            return  # it ended early, or this process did only a part of it
        spent = [sum(s["seconds"] for s in steps if s["stage"] == index) for index in range(len(self.plan.stages))]
        remember(self.recipe, self.inputs, self.prior, corrected(self.costs, self.plan, spent, after))


def make_budget(
    job: JobFile, inputs: Inputs, prior: Prior, spent: Callable[[], float], say: Callable[[str], None]
) -> tuple[JobFile, Budget]:
    """The job with the stages that its minutes allow, `spent()` seconds of which have passed; shows the plan.

    Raises InputError if that is too little time.
    """
    costs = recall(job.settings, inputs, prior)
    if costs is None:
        say("Measuring what steps cost on this machine ...")
        costs = measure_costs(job.settings, inputs, prior, AFTER_SECONDS)
        remember(job.settings, inputs, prior, costs)
    stages, made = plan(job.settings.stages, costs, 60.0 * job.minutes, spent())
    say(plan_in_words(made))
    budget = Budget(job.settings, costs, made, inputs, prior)
    return replace(job, settings=replace(job.settings, stages=stages), plan=made), budget


def plan_in_words(made: Plan) -> str:
    """The plan as a table of plain text."""
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", box=None, pad_edge=False)
    for head in ("steps", "resolution", "views", "candidates", "expected"):
        table.add_column(head, justify="right")
    for number, row in enumerate(made.stages):
        cells = (str(row.steps), f"{row.side} px", str(row.views), str(row.candidates), duration(row.seconds))
        table.add_row(f"{number + 1} {row.kind}", *cells)
    table.add_row("loading, until now", "", "", "", "", duration(made.spent))
    table.add_row("previews, pictures, report", "", "", "", "", duration(made.around))
    table.add_row("in all", "", "", "", "", duration(made.expected))
    text = io.StringIO()
    Console(file=text, width=90).print(table)
    lines = [f"Plan for {duration(made.asked)}:", *(line.rstrip() for line in text.getvalue().splitlines())]
    return "\n".join([*lines, *([made.note] if made.note else [])])
