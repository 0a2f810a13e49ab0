"""Checks within Blender: a job's way through the scene, with undo, other files and deletions on it.

The extension is installed; its client is a scripted one, everything else is real.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import expect, icosphere, positions_of
from tests.blender.extension_parts import part
from tests.blender.extension_scene import fresh, generate, pump, run_checks, session, tell
from tests.blender.scripted_link import Mesh, events, m

find = part("bridge.preview").find


def main() -> dict[str, str | None]:
    return run_checks(globals())


def frame(live, step: int, scale: float = 1.0, subdivisions: int = 1) -> np.ndarray:
    """The client hands out a sphere; returns its positions as they are in Blender."""
    points, faces = icosphere(subdivisions)
    mesh = Mesh((points * scale).astype(np.float32), faces.astype(np.int32), np.full_like(points, 0.5, np.float32))
    arrived = events.SnapshotArrived(live.job, step, step, 1, mesh, True)
    prepared = session().client.prepare(live.job, arrived)
    tell(events.SnapshotArrived(live.job, step, step, 1, mesh, True, prepared))
    return placed(mesh)


def placed(mesh) -> np.ndarray:
    x, y, z = mesh.positions.T
    return np.stack([x, -z, y], axis=1)


def result(live, scale: float, subdivisions: int = 1) -> np.ndarray:
    points, faces = icosphere(subdivisions)
    mesh = Mesh((points * scale).astype(np.float32), faces.astype(np.int32), np.full_like(points, 0.5, np.float32))
    session().client.happen(m.Finished(step=40, seconds=1.0, vertices=len(points), faces=len(faces)), job=live.job)
    session().client.result(mesh, job=live.job)
    pump()
    return placed(mesh)


def shows(live, positions: np.ndarray) -> bool:
    shown = find(live.job)
    return shown is not None and np.allclose(positions_of(shown), positions, atol=1e-6)


def names() -> list[str]:
    return sorted(object.name for object in bpy.data.objects)


def cube() -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Add Cube")
    return bpy.context.object


def refine(prompt: str = "a red cube"):
    """A refine job on a new cube."""
    fresh()
    cube()
    bpy.context.window_manager.galatea.prompt = prompt
    bpy.ops.galatea.refine()
    pump()
    return next(reversed(session().jobs.values()))


def check_one_undo_takes_back_what_was_generated() -> None:
    cube()
    live = generate()
    for step in range(1, 8):
        frame(live, step, 1.0 - step / 20)
    expected = result(live, 0.4)
    expect(shows(live, expected))
    bpy.ops.galatea.accept()
    expect(names() == ["Cube", "a red mug"] and not session().jobs)
    bpy.ops.ed.undo()
    pump()
    expect(names() == ["Cube"], names())
    bpy.ops.ed.redo()
    pump()
    expect(names() == ["Cube", "a red mug"])
    expect(np.allclose(positions_of(bpy.data.objects["a red mug"]), expected, atol=1e-6))
    expect(not session().jobs)


def check_undo_while_a_job_runs_takes_back_the_job_and_nothing_else() -> None:
    cube()
    bpy.data.objects["Cube"].location.x = 3.0
    bpy.ops.ed.undo_push(message="Move")
    live = generate()
    frame(live, 1)
    bpy.ops.ed.undo()
    bpy.context.view_layer.update()
    frame(live, 2)
    expect(names() == ["Cube"] and bpy.data.objects["Cube"].location.x == 3.0, "the move stays")
    expect(not live.has_preview and not live.problem and not session().problem, (live.problem, session().problem))
    bpy.ops.galatea.reattach(job=live.job)
    expected = frame(live, 3, 0.7)
    expect(live.has_preview and shows(live, expected))


def check_undo_of_something_else_keeps_the_newest_frame() -> None:
    live = generate()
    frame(live, 1)
    cube()
    old = frame(live, 2, 0.9)
    bpy.data.objects["Cube"].location.x = 3.0
    bpy.ops.ed.undo_push(message="Move")
    newest = frame(live, 3, 0.5)
    bpy.ops.ed.undo()
    expect(bpy.data.objects["Cube"].location.x == 0.0)
    pump()
    expect(shows(live, newest) and not shows(live, old), "undo had brought back an older update")
    bpy.ops.ed.redo()
    pump()
    expect(shows(live, newest))


def check_undo_across_a_new_topology() -> None:
    live = generate()
    frame(live, 1, 1.0, subdivisions=1)
    cube()
    newest = frame(live, 2, 0.5, subdivisions=2)
    bpy.ops.ed.undo()
    pump()
    if find(live.job) is not None:
        expect(shows(live, newest))
    bpy.ops.ed.redo()
    pump()
    expect(shows(live, newest), "also with other faces than the scene had then")


def check_accepting_can_be_undone_where_other_steps_lie_between() -> None:
    live = generate()
    frame(live, 1)
    cube()
    last = result(live, 0.6)
    bpy.ops.galatea.accept()
    for _ in range(2):
        bpy.ops.ed.undo()
        pump()
        expect(names() == ["Cube"] and not session().jobs, "the artist's own step stays, the preview does not")
        bpy.ops.ed.redo()
        pump()
        expect(names() == ["Cube", "a red mug"] and not session().jobs)
        expect(np.allclose(positions_of(bpy.data.objects["a red mug"]), last, atol=1e-6))


def check_all_of_it_undone_and_redone() -> None:
    cube()
    live = generate()
    frame(live, 1)
    last = result(live, 0.6)
    bpy.ops.galatea.accept()
    for _ in range(3):
        seen = []
        for step in (bpy.ops.ed.undo, bpy.ops.ed.undo, bpy.ops.ed.redo, bpy.ops.ed.redo):
            step()
            bpy.context.view_layer.update()
            pump()
            seen.append(names())
        expect(seen == [["Cube"], ["Cube"], ["Cube"], ["Cube", "a red mug"]], seen)
        expect(np.allclose(positions_of(bpy.data.objects["a red mug"]), last, atol=1e-6))
    expect(not session().jobs and not session().problem)


def check_undoing_discard_brings_the_preview_and_its_job_back() -> None:
    live = refine()
    bpy.ops.galatea.discard()
    expect(names() == ["Cube"])
    bpy.ops.ed.undo()
    pump()
    expect(names() == ["Cube", "Cube refined"] and list(session().jobs) == [live.job])
    expect(("watch", live.job) in session().client.said and bpy.data.objects["Cube"].hide_get())


def check_refining_ends_in_one_undo_step() -> None:
    live = refine()
    original = bpy.data.objects["Cube"]
    before = positions_of(original)
    expect(original.hide_get() and names() == ["Cube", "Cube refined"])
    submitted = session().client.asked("submit")[-1]
    expect(submitted[2].command == "refine" and submitted[2].prompt == "a red cube")
    points = before * 0.5
    wire = np.ascontiguousarray(np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1), np.float32)
    mesh = Mesh(wire, np.array([[0, 1, 2]], np.int32), None)
    session().client.happen(m.Finished(step=9, seconds=1.0, vertices=8, faces=12), job=live.job)
    session().client.result(mesh, job=live.job)
    pump()
    bpy.ops.galatea.accept()
    accepted = positions_of(bpy.data.objects["Cube"])
    expect(not np.allclose(accepted, before) and names() == ["Cube"] and not bpy.data.objects["Cube"].hide_get())
    bpy.ops.ed.undo()
    pump()
    expect(names() == ["Cube"] and not bpy.data.objects["Cube"].hide_get())
    expect((positions_of(bpy.data.objects["Cube"]) == before).all(), "bit for bit")


def check_discarding_shows_the_original_and_stops_the_job() -> None:
    live = refine()
    session().client.said.clear()
    bpy.ops.galatea.discard()
    expect(names() == ["Cube"] and not bpy.data.objects["Cube"].hide_get() and not session().jobs)
    expect(session().client.asked("cancel") == [("cancel", live.job)])
    expect(bpy.context.view_layer.objects.active == bpy.data.objects["Cube"])


def check_a_copy_is_kept_beside_the_original() -> None:
    live = refine()
    bpy.ops.galatea.keep_copy()
    expect(names() == ["Cube", "Cube refined"] and not bpy.data.objects["Cube"].hide_get())
    expect(live.job not in session().jobs)


def check_a_deleted_preview_leaves_its_job_to_be_shown_again_or_discarded() -> None:
    live = refine()
    bpy.data.objects.remove(bpy.data.objects["Cube refined"])
    session().client.snapshot(3, job=live.job)
    pump()
    expect(not live.has_preview and not live.problem)
    bpy.ops.galatea.discard()
    expect(not bpy.data.objects["Cube"].hide_get() and not session().jobs)


def check_what_cannot_be_sent_leaves_the_scene_as_it_was() -> None:
    fresh()
    cube()

    def refuse(*arguments: object) -> None:
        raise part("protocol.codec").WireError("too_large", "The mesh is too large to send.")

    session().client.submit = refuse
    bpy.context.window_manager.galatea.prompt = "a red cube"
    for operator in (bpy.ops.galatea.refine, bpy.ops.galatea.generate):
        try:
            operator()
        except RuntimeError as error:
            expect("too large to send" in str(error))
        expect(names() == ["Cube"] and not session().jobs, names())
        expect(not bpy.data.objects["Cube"].hide_get() and list(bpy.data.objects["Cube"].keys()) == [])


def check_a_mesh_with_shape_keys_is_refused_in_words() -> None:
    fresh()
    cube().shape_key_add(name="Basis")
    bpy.context.window_manager.galatea.prompt = "a red cube"
    try:
        bpy.ops.galatea.refine()
    except RuntimeError as error:
        expect("shape keys" in str(error))
    expect(names() == ["Cube"] and session().client.asked("submit") == [])


def check_notes_about_the_object_are_in_the_job_box() -> None:
    fresh()
    cube().modifiers.new("Bevel", "BEVEL")
    bpy.context.window_manager.galatea.prompt = "a red cube"
    bpy.ops.galatea.refine()
    live = next(reversed(session().jobs.values()))
    expect(any("Bevel" in note for note in live.notes), live.notes)


def check_the_fields_become_the_request() -> None:
    fresh()
    settings = bpy.context.window_manager.galatea
    settings.prompt, settings.negative_prompt, settings.seed, settings.steps, settings.strength = " a mug ", " blur ", 7, 0, 0.25
    bpy.ops.galatea.generate()
    request = session().client.asked("submit")[-1][2]
    expect(request == m.JobRequest(command="generate", prompt="a mug", negative_prompt="blur", seed=7, strength=0.25), request)
    settings.steps = 12
    bpy.ops.galatea.generate()
    expect(session().client.asked("submit")[-1][2].steps == 12)


def check_steering_sends_what_was_typed() -> None:
    live = generate()
    fields = bpy.context.window_manager.galatea.jobs[live.job]
    expect((fields.prompt, fields.strength) == ("a red mug", 0.5))
    fields.prompt, fields.negative_prompt = "a blue mug ", "red"
    bpy.ops.galatea.steer(job=live.job)
    expect(session().client.asked("steer") == [("steer", live.job, "a blue mug", "red", None)])
    session().client.happen(m.Started(step=0, device="cpu"), m.Steered(3, "a blue mug", "red", 0.5), job=live.job)
    pump()
    expect((live.prompt, live.negative_prompt) == ("a blue mug", "red"))
    fields = bpy.context.window_manager.galatea.jobs[live.job]
    fields.strength = 0.8
    expect(live.wanted_strength is not None and abs(live.wanted_strength - 0.8) < 1e-6)
    for verb in ("pause", "resume", "cancel"):
        getattr(bpy.ops.galatea, verb)(job=live.job)
        expect(session().client.said[-1] == (verb, live.job))


def check_another_file_and_back() -> None:
    folder = Path(bpy.utils.resource_path("USER"))
    live = generate()
    frame(live, 1)
    first = session()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "job.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    expect(session() is first and not first.jobs and ("unwatch", live.job) in first.client.said)
    pump()
    expect(len(bpy.context.window_manager.galatea.jobs) == 0)

    bpy.ops.wm.open_mainfile(filepath=str(folder / "job.blend"))
    expect(list(first.jobs) == [live.job], "its preview is in the file")
    again = first.jobs[live.job]
    expect(("follow", live.job) in first.client.said)
    newest = frame(again, 5, 0.6)
    expect(shows(again, newest))
    tell(events.JobsListed(1, (m.JobSummary(live.job, "running", "generate", "a red mug", 5, 40, 0.0, 2),)))
    expect(again.prompt == "a red mug" and bpy.context.window_manager.galatea.jobs[live.job].prompt == "a red mug")
    expected = result(again, 0.3)
    bpy.ops.galatea.accept()
    expect(names() == ["a red mug"] and np.allclose(positions_of(bpy.data.objects["a red mug"]), expected, atol=1e-6))


def check_a_preview_is_taken_up_when_the_extension_comes_back() -> None:
    live = generate()
    frame(live, 1)
    opened = fresh()
    expect(list(opened.jobs) == [live.job])
    newest = frame(opened.jobs[live.job], 4, 0.8)
    expect(shows(live, newest))


def check_a_job_of_the_service_is_shown_in_a_scene_that_never_had_it() -> None:
    opened = fresh()
    job = "d" * 32
    tell(events.JobsListed(1, (m.JobSummary(job, "paused", "refine", "a blue boat", 5, 40, 0.0, 2),)))
    bpy.ops.galatea.reattach(job=job)
    live = opened.jobs[job]
    expect((live.phase, live.prompt, live.command) == ("paused", "a blue boat", "refine"))
    newest = frame(live, 5, 0.9)
    expect(shows(live, newest) and find(job).name == "a blue boat")


def check_an_update_waits_while_its_preview_is_edited() -> None:
    live = generate()
    frame(live, 1)
    bpy.ops.object.mode_set(mode="EDIT")
    newest = frame(live, 2, 0.5)
    expect("Edit Mode" in live.obstacle and live.frame is not None, live.obstacle)
    bpy.ops.object.mode_set(mode="OBJECT")
    live.try_again = 0.0
    pump()
    expect(live.obstacle == "" and shows(live, newest))


def check_accepting_at_any_time_takes_what_is_shown() -> None:
    live = generate()
    seen = frame(live, 3, 0.8)
    bpy.ops.galatea.accept(job=live.job)
    expect(session().client.asked("cancel") == [("cancel", live.job)])
    expect(np.allclose(positions_of(bpy.data.objects["a red mug"]), seen, atol=1e-6) and not session().jobs)
