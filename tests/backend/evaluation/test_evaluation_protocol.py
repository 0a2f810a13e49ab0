"""The evaluation: true objects pass, others fail; runs resume and split; records become tables and pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.evaluation.evaluate import (
    BASELINE,
    CONTROLS,
    RESULT,
    WRONG_PROMPT,
    Trial,
    baseline_trials,
    control_trials,
    held_out_specs,
    prompt_for,
    read_records,
    result_trials,
    run_trials,
)
from backend.evaluation.evaluation_report import contact_sheet, markdown, targets, write_report
from backend.evaluation.judge import AZIMUTH_BINS, WEIGHTS, JudgeNet, angle_between, azimuth_targets, likely_azimuth
from backend.evaluation.judge import Reading, shipped_judge
from backend.evaluation.judge_data import make_judge_data, true_mesh
from backend.evaluation.silhouettes import overlap, overlap_with_kinds, yaw_picture_errors
from backend.evaluation.train_judge import accuracy
from backend.evaluation.verdict import evaluate_mesh, verdict_on_prompt
from backend.evaluation.views import azimuth_right, look, unseen_cameras, yaw_scores
from backend.representations.mesh_data import MeshData
from backend.toybox.captions import parse
from backend.toybox.objects import HELD_OUT, KINDS, ObjectSpec, kind_named


def fresh(name: str, main: str = "red", second: str = "white", size: str = "", seed: int = 40) -> MeshData:
    return true_mesh(ObjectSpec(kind_named(name), main, second, size), np.random.default_rng(seed))


def turned(mesh: MeshData, quarter_turns: int) -> MeshData:
    positions = mesh.positions
    for _ in range(quarter_turns):
        positions = positions[:, [2, 1, 0]] * np.array([1, 1, -1], dtype=np.float32)
    return MeshData(np.ascontiguousarray(positions), mesh.faces, mesh.colors)


def test_the_shipped_judge_is_small_and_reads_true_objects():
    assert WEIGHTS.stat().st_size < 2_000_000
    assert sum(parameter.numel() for parameter in JudgeNet().parameters()) <= 1_000_000
    read = accuracy(shipped_judge(), make_judge_data(seed=77, objects=60, views=3, degraded_share=0.5))
    assert read["kind"] > 0.9 and read["main color"] > 0.85 and read["second color"] > 0.7
    assert read["azimuth within 45 degrees"] > 0.65  # 25 objects with a front; .86 over many


def test_a_true_object_passes_and_another_does_not():
    spec = ObjectSpec(kind_named("car"), "red", "white")
    verdict = evaluate_mesh(fresh("car"), spec, seed=3)
    assert verdict.kind > 0.9 and verdict.main > 0.8 and verdict.kind_read == "car" and verdict.main_read == "red"
    assert verdict.overlap_rank == 1 and verdict.yaw_right and verdict.overlap > 0.75
    assert verdict.true_azimuth_right > 0.6 and verdict.azimuth_right > 0.6
    other = evaluate_mesh(fresh("house", "green", "blue"), spec, seed=3)
    assert other.kind < 0.1 and other.main < 0.2 and other.overlap_rank > 1
    json.dumps(other.to_json(), allow_nan=False)
    assert replace(verdict, yaw=[0.4, 0.1, 0.35, 0.1]).yaw_right is False, "two fronts"
    assert replace(verdict, yaw_pictures=[0.2, 0.3, 0.1, 0.3]).yaw_right is False, "the pictures disagree"


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_object_fails_the_yaw_test(turns):
    mesh = turned(fresh("duck", "yellow", "red"), turns)
    reading, azimuth = look(mesh, seed=1)
    assert int(np.argmax(yaw_scores(reading, azimuth))) == turns
    assert int(np.argmin(yaw_picture_errors(mesh, ObjectSpec(kind_named("duck"), "yellow", "red")))) == turns


def test_azimuths_are_read_right_of_a_true_object_and_not_of_one_that_is_turned_or_has_two_fronts():
    duck = fresh("duck", "yellow", "red")
    true = azimuth_right(*look(duck, seed=1))
    assert true > 0.7
    assert azimuth_right(*look(turned(duck, 2), seed=1)) < 0.3
    front = duck.positions[duck.faces][:, :, 2].mean(1) > 0.0
    half = MeshData(duck.positions, duck.faces[front], duck.colors)
    back = turned(half, 2)
    janus = MeshData(
        np.concatenate([half.positions, back.positions]),
        np.concatenate([half.faces, back.faces + len(half.positions)]),
        np.concatenate([half.colors, back.colors]),
    )
    assert azimuth_right(*look(janus, seed=1)) < true - 0.25


def test_yaw_scores_follow_the_probabilities():
    """A judge that is sure of the azimuth of an object turned by 90 degrees gives all to yaw 90."""
    azimuth = unseen_cameras(5).azimuth
    sure = azimuth_targets((azimuth - 90.0) % 360.0, spread=1.0)
    nothing = torch.zeros(len(azimuth), 1)
    assert yaw_scores(Reading(nothing, nothing, nothing, sure), azimuth) == pytest.approx([0, 1, 0, 0], abs=1e-3)


def test_azimuth_bins_wrap_and_read_back():
    azimuth = torch.tensor([0.0, 7.0, 181.0, 355.0, 352.6])
    assert azimuth_targets(azimuth).sum(1) == pytest.approx(torch.ones(5))
    assert angle_between(likely_azimuth(azimuth_targets(azimuth)), azimuth).max() < 2.0
    assert azimuth_targets(azimuth).shape == (5, AZIMUTH_BINS)
    assert angle_between(torch.tensor(350.0), torch.tensor(15.0)) == 25.0


def test_overlap_of_known_shapes():
    a, b = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    a[0, :, :2], b[0, :, 1:3] = 1.0, 1.0
    assert overlap(a, b).item() == pytest.approx(1 / 3)
    assert overlap(a, a).item() == 1.0


@pytest.mark.parametrize("name, size", [("chair", ""), ("vase", ""), ("boat", "wide")])
def test_silhouettes_rank_the_right_kind_first(name, size):
    overlaps = overlap_with_kinds(fresh(name, size=size), size)
    assert max(overlaps, key=overlaps.get) == name


def test_picture_errors_are_smallest_at_the_true_yaw():
    spec = ObjectSpec(kind_named("house"), "red", "white")
    errors = yaw_picture_errors(fresh("house"), spec)
    assert errors[0] < 0.7 * min(errors[1:])


def test_a_prompt_with_open_colors_is_judged_by_what_is_seen():
    verdict = verdict_on_prompt(fresh("mushroom", "green", "white"), "a mushroom", seed=0)
    assert verdict.kind > 0.9 and verdict.main_read == "green" and verdict.main > 0.6
    assert {"title", "value", "note"} == set(verdict.summary()[0])


def test_trials_cover_every_kind_with_held_out_colors():
    specs = held_out_specs()
    assert [spec.kind for spec in specs] == list(KINDS)
    assert all((spec.kind.name, spec.main) in HELD_OUT and spec.second != spec.main for spec in specs)
    assert held_out_specs() == specs
    for spec in specs:
        parsed = parse(prompt_for(spec))
        assert (parsed.kind, parsed.main, parsed.second, parsed.size) == (spec.kind, spec.main, spec.second, spec.size)
    trials = result_trials() + baseline_trials() + [trial for role in CONTROLS for trial in control_trials(role)]
    assert len({trial.name for trial in trials}) == len(trials)
    assert all(prompt_for(trial.spec) != trial.prompt for trial in control_trials(WRONG_PROMPT))


def test_a_run_resumes_splits_and_ends_in_a_report(tmp_path):
    specs = [spec for spec in held_out_specs() if spec.kind.name in ("mug", "duck")]
    trials = [Trial(role, spec, prompt_for(spec), 0) for role in (RESULT, BASELINE) for spec in specs]
    trials += [Trial(WRONG_PROMPT, specs[0], "a red house with a white roof", 0)]
    made: list[str] = []

    def generate(prompt: str, seed: int) -> MeshData:
        made.append(prompt)
        asked = parse(prompt)
        return fresh(asked.kind.name, asked.main, asked.second, asked.size, seed)

    first = list(run_trials(trials, generate, tmp_path, share=(0, 2)))
    assert [record.kind for record in first] == ["mug", "mug", "mug"] and len(made) == 3
    assert len(list(run_trials(trials, generate, tmp_path, share=(1, 2)))) == 2 and len(made) == 5
    again = list(run_trials(trials, generate, tmp_path))
    assert len(made) == 5 and again[0] == first[0]
    records = read_records(tmp_path)
    assert len(records) == 5

    reached = {target.what: target for target in targets(records)}
    assert reached["kind, median probability"].reached and reached["control, wrong prompt"].reached
    assert reached["kinds judged"].reached is False
    assert not reached["median IoU above the prior's own 3D guess"].reached
    assert contact_sheet(records, tmp_path).size[1] > 200
    write_report(records, tmp_path, tmp_path / "docs" / "evaluation.md", tmp_path / "docs" / "pictures" / "sheet.png")
    text = (tmp_path / "docs" / "evaluation.md").read_text()
    assert "(pictures/sheet.png)" in text and specs[0].kind.name in text
    assert markdown(records, "x.png").count("\n| a") == 2
