"""`--minutes`: what is refused, what is planned and shown, and what a finished job teaches the next one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace

from backend.cli import budget, generate
from backend.cli.job_arguments import JobFile, hold_to_stored, read_job_file
from backend.cli.job_history import HistoryLog
from backend.cli.job_session import JobSession
from backend.cli.output_folder import OutputFolder, begin
from backend.cli.progress import PlainProgress
from backend.errors import InputError
from backend.optimize import costs as costs_module
from backend.optimize.costs import recall
from backend.optimize.events import Finished
from backend.optimize.inputs import Inputs
from backend.priors.analytic import Component, GaussianMixturePrior, linear_alphas_cumprod
from backend.recipes import load_recipe
from backend.recipes.planner import Costs, StageCost
from backend.representations.primitives import icosphere
from protocol.settings import JobSettings

COST = StageCost(0.1, 0.0, 0.02, 0.0, 0.2, 0.5, 4, 32, 4, 32)
COSTS = Costs((COST, COST), after=5.0, aside=0.05)
STAGES = load_recipe("generate").stages
JOB = JobFile("generate", JobSettings("a mug", STAGES), minutes=1.0)


@pytest.fixture
def prior() -> GaussianMixturePrior:
    return GaussianMixturePrior({"a mug": Component(torch.zeros(4, 3, 8, 8), 0.3)}, linear_alphas_cumprod())


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[JobSettings]:
    """Nothing is really measured; the settings that would have been."""
    asked: list[JobSettings] = []

    def measure(settings: JobSettings, mesh: object, prior: object, after: float) -> Costs:
        asked.append(settings)
        return COSTS

    monkeypatch.setattr(budget, "measure_costs", measure)
    monkeypatch.setattr(costs_module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return asked


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a mug", "--minutes", "2", "--steps", "9"], "--minutes and --steps were both given"),
        (["a mug", "--minutes", "0"], "--minutes is 0; give the time"),
        (["a mug", "--minutes", "-3"], "--minutes is -3; give the time"),
        (["a mug", "--minutes", "nan"], "--minutes is nan; give the time"),
    ],
)
def test_minutes_that_make_no_sense_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        generate.run(parsed(*words))
    assert list(tmp_path.iterdir()) == []


def test_the_method_of_all_stages_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    settings = generate._new_settings(parsed("a mug", "--method", "multi-view-sds"))
    assert {stage.guidance.method.__struct_config__.tag for stage in settings.stages} == {"multi-view sds"}
    with pytest.raises(SystemExit):
        parsed("a mug", "--method", "soup")
    assert "multi-scale-sds" in capsys.readouterr().err
    stored = JobFile("generate", settings)
    hold_to_stored(parsed("--method", "multi-view-sds"), "generate", stored, Path("out"))
    with pytest.raises(InputError, match="method 'multi-view-sds', not 'sds'"):
        hold_to_stored(parsed("--method", "sds"), "generate", stored, Path("out"))


def test_the_plan_is_shown_and_fixed_in_the_job(prior: GaussianMixturePrior, measured: list[JobSettings]) -> None:
    said: list[str] = []
    job, _ = budget.make_budget(JOB, Inputs(), prior, lambda: 3.0, said.append)
    assert measured == [JOB.settings] and said[0].startswith("Measuring")
    assert [stage.steps for stage in job.settings.stages] == [row.steps for row in job.plan.stages]
    assert replace(job.settings, stages=STAGES) == JOB.settings
    assert job.plan.expected == pytest.approx(60, abs=2)
    shown = said[-1]
    for word in ("Plan for 1 min 00 s", "1 grid", "2 mesh", "32 px", "loading, until now", "in all", str(job.plan.stages[1].steps)):
        assert word in shown
    assert max(len(line) for line in shown.splitlines()) <= 90


def test_costs_that_are_known_are_not_measured_again(prior: GaussianMixturePrior, measured: list[JobSettings]) -> None:
    for _ in range(2):
        budget.make_budget(JOB, Inputs(), prior, lambda: 3.0, lambda message: None)
    assert len(measured) == 1


def test_less_than_the_shortest_job_is_refused(prior: GaussianMixturePrior) -> None:
    with pytest.raises(InputError, match="0.1 minutes are too short"):
        budget.make_budget(replace(JOB, minutes=0.1), Inputs(), prior, lambda: 3.0, lambda message: None)


def test_the_next_plan_knows_what_the_whole_job_took(prior: GaussianMixturePrior) -> None:
    job, made = budget.make_budget(JOB, Inputs(), prior, lambda: 3.0, lambda message: None)
    steps = [{"stage": index, "seconds": 0.24} for index, row in enumerate(job.plan.stages) for _ in range(row.steps)]
    made.learn(steps[:-1], 9.0)
    assert recall(JOB.settings, Inputs(), prior) == COSTS, "a job that ended early says nothing of its last steps"
    made.learn(steps, 9.0)
    learned = recall(JOB.settings, Inputs(), prior)
    assert learned.after == 9.0 and learned.stages[1].step(4, 32) == pytest.approx(0.24)
    again, _ = budget.make_budget(JOB, Inputs(), prior, lambda: 3.0, lambda message: None)
    assert again.plan.stages[0].steps < 0.4 * job.plan.stages[0].steps


@pytest.fixture
def session(tmp_path: Path) -> Iterator[JobSession]:
    folder: OutputFolder = begin(tmp_path / "out", "galatea generate")
    folder.write("job/job.json", msgspec.json.encode(JOB))
    session = JobSession(JOB, folder, HistoryLog(folder.job), PlainProgress())
    yield session
    session.close()
    folder.close()


def test_a_resumed_job_has_the_planned_settings(session: JobSession, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    session._plan(None, prior)
    stored = read_job_file(tmp_path / "out")
    assert stored == session.job and stored.plan is not None
    assert session.total == sum(stage.steps for stage in stored.settings.stages) != sum(stage.steps for stage in STAGES)
    hold_to_stored(parsed("--minutes", "1"), "generate", stored, tmp_path)
    with pytest.raises(InputError, match="minutes 1.0, not 2.0"):
        hold_to_stored(parsed("--minutes", "2"), "generate", stored, tmp_path)


def test_the_plan_is_in_the_report(session: JobSession, prior: GaussianMixturePrior, tmp_path: Path) -> None:
    session._plan(None, prior)
    session.job = replace(session.job, settings=replace(session.job.settings, prior="analytic"))  # which has no judge
    session.write_results(Finished(2, icosphere(1), 0.1), {"packages": {}, "device": "cpu"}, None)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["facts"]["plan"] == json.loads(msgspec.json.encode(session.job.plan))
    assert "plan" in report["timings"]
