"""Checks within Blender: what the panel shows in every state. The extension is installed; its client is a scripted one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import expect
from tests.blender.extension_scene import fresh, generate, run_checks, session, tell
from tests.blender.recording_layout import Context, draw
from tests.blender.scripted_link import Mesh, events, m

from tests.blender.extension_parts import part  # isort: skip

panels, drawing = part("panels"), part("drawing")
ServiceState = part("service_process").ServiceState
WELCOME = m.Welcome(2, "0.1.0", "0" * 32, "1" * 32, ("toybox", "sd15"), ("generate",), ("cpu",))


def main() -> dict[str, str | None]:
    return run_checks(globals())


def all_panels(width: int = 300) -> list:
    return [draw(panel, width) for panel in panels.CLASSES]


def words(layout) -> str:
    return " ".join(layout.texts)


def preferences():
    return part("preferences").preferences(bpy.context)


def check_every_state_of_the_connection_has_words_and_something_to_do() -> None:
    checkout = Path(bpy.utils.resource_path("USER")) / "checkout"
    checkout.mkdir(exist_ok=True)
    (checkout / "galatea.py").touch()
    preferences().checkout = str(checkout)
    opened = fresh()
    stopped = ServiceState("stopped")
    searching = events.ConnectionChanged("searching", "No service is running.")
    refused = events.ConnectionChanged("refused", "The token is another one. Delete the file, then start the service.")
    lost = events.ConnectionChanged("lost", "The connection broke off; trying again.")
    connected = events.ConnectionChanged("connected", "", WELCOME)
    states = [
        (None, stopped, "Looking for the service", "galatea.start_service"),
        (searching, stopped, "not running", "galatea.start_service"),
        (searching, ServiceState("starting", "installing torch: 12 of 192 MB", 1), "12 of 192 MB", "galatea.stop_service"),
        (searching, ServiceState("stopping", "Saving the running job", 1), "Saving the running job", None),
        (searching, ServiceState("died", "galatea: No space left on device."), "No space left", "galatea.start_service"),
        (searching, ServiceState("died", "galatea: No space left on device."), "ended by itself", "galatea.open_log"),
        (refused, ServiceState("running", "", 1), "token is another one", "galatea.stop_service"),
        (lost, ServiceState("running", "", 1), "broke off", "galatea.stop_service"),
        (connected, stopped, "Connected", "galatea.stop_service"),
    ]
    for connection, service, text, button in states:
        opened.connection, opened.service = connection, service
        for layout in (draw(panels.GALATEA_PT_main), draw(preferences())):
            expect(text in words(layout), (text, layout.texts))
            expect(button is None or button in layout.buttons(), (button, layout.buttons()))
        all_panels()
    opened.problem = "A defect, told."
    expect("A defect, told." in words(draw(panels.GALATEA_PT_main)))


def check_without_a_folder_start_leads_to_the_preferences() -> None:
    for folder, text in (("", "Choose the folder"), (str(Path(__file__).parent), "holds no galatea.py")):
        preferences().checkout = folder
        fresh()
        layout = draw(panels.GALATEA_PT_main)
        expect("galatea.open_preferences" in layout.buttons() and "galatea.start_service" not in layout.buttons())
        expect(text in words(draw(preferences())), draw(preferences()).texts)
        expect(not bpy.ops.galatea.start_service.poll())


def check_the_preferences_are_found() -> None:
    """There is no window to show them in; but Blender gets as far as to choose them."""
    fresh()
    bpy.context.preferences.active_section = "INTERFACE"
    refusal(bpy.ops.galatea.open_preferences)
    expect(bpy.context.preferences.active_section == "ADDONS" and bpy.context.window_manager.addon_search == "Galatea")


def check_every_phase_of_a_job_offers_what_fits() -> None:
    live = generate()
    tell(events.ConnectionChanged("connected", "", WELCOME))
    mesh = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    frame = part("live_job").Frame(3, None, 3, False)
    running, ended = {"galatea.pause", "galatea.cancel", "galatea.steer"}, set()
    paused = running - {"galatea.pause"} | {"galatea.resume"}
    endings = {"galatea.accept", "galatea.keep_copy"}
    cases = [
        ("sending", {}, "Sending", running),
        ("queued", {}, "Waiting for its turn", running),
        ("running", {}, "Starting", running),
        ("running", {"what": "optimizing the mesh", "shown": frame}, "Optimizing the mesh", running | endings),
        ("paused", {"shown": frame}, "Paused", paused | endings),
        ("finished", {}, "fetching the result", ended),
        ("finished", {"result": mesh}, "Finished", endings),
        ("failed", {"resumable": True, "problem": "The worker was killed."}, "The worker was killed.", {"galatea.resume"}),
        ("failed", {"shown": frame}, "Failed", endings),
        ("cancelled", {"shown": frame, "resumable": True}, "Cancelled", endings | {"galatea.resume"}),
        ("refused", {"problem": "I do not know the word xylophone."}, "xylophone", ended),
    ]
    plain = {"what": "", "shown": None, "result": None, "resumable": False, "problem": "", "total": 40, "step": 10}
    for phase, fields, text, expected in cases:
        for name, value in (plain | {"phase": phase} | fields).items():
            setattr(live, name, value)
        layout = draw(panels.GALATEA_PT_main)
        expect(text in words(layout), (phase, layout.texts))
        of_the_job = {idname for idname, values in layout.operators if getattr(values, "job", "") == live.job}
        expect(of_the_job == expected | {"galatea.discard"}, (phase, of_the_job))
        expect(("strength" in layout.props) == (not live.ended), "the slider is for jobs that go on")
    live.has_preview = False
    layout = draw(panels.GALATEA_PT_main)
    expect("not in the scene any more" in words(layout) and "galatea.reattach" in layout.buttons())
    expect("galatea.accept" not in layout.buttons())


def check_progress_time_left_and_age_are_shown() -> None:
    live = generate()
    live.phase, live.step, live.total, live.seconds_left, live.heard = "running", 120, 400, 12.4, -1e9
    live.device, live.megabytes = "cpu", 812.0
    shown = words(draw(panels.GALATEA_PT_main))
    expect("120 of 400, 12 s left" in shown and "812 MB on cpu" in shown and "ago" in shown, shown)
    session().connection = events.ConnectionChanged("lost", "The connection broke off.")
    expect("Waiting for the connection" in words(draw(panels.GALATEA_PT_main)))


def check_long_sentences_are_wrapped_whole() -> None:
    live = generate()
    live.phase = "failed"
    live.problem = "The prompt has words that toybox does not know, " + "and many more words follow here " * 8
    for width in (160, 300, 900):
        layout = draw(panels.GALATEA_PT_main, width)
        fits = drawing.characters(Context(width))
        begin = next(index for index, text in enumerate(layout.texts) if text.startswith("The prompt"))
        lines = []
        while len(" ".join(lines).split()) < len(live.problem.split()):
            lines.append(layout.texts[begin + len(lines)])
        expect(" ".join(lines).split() == live.problem.split(), lines)
        expect(all(len(line) <= fits for line in lines), (fits, lines))
        all_panels(width)


def check_other_jobs_of_the_service_can_be_reattached() -> None:
    live = generate()
    tell(events.ConnectionChanged("connected", "", WELCOME))
    other = m.JobSummary("c" * 32, "running", "generate", "a blue boat", 5, 40, 0.0, 2)
    mine = m.JobSummary(live.job, "running", "generate", "a red mug", 5, 40, 0.0, 2)
    tell(events.JobsListed(1, (other, mine)))
    layout = draw(panels.GALATEA_PT_service_jobs)
    expect([values.job for _, values in layout.operators] == ["c" * 32], layout.operators)
    expect("a blue boat (5 of 40)" in words(layout), layout.texts)


def check_the_priors_are_those_of_the_service() -> None:
    fresh()
    settings = bpy.context.window_manager.galatea
    expect(settings.prior == "toybox")
    tell(events.ConnectionChanged("connected", "", WELCOME))
    settings.prior = "sd15"
    expect(settings.prior == "sd15")
    draw(panels.GALATEA_PT_settings)


def check_buttons_say_why_they_are_disabled() -> None:
    fresh()
    settings = bpy.context.window_manager.galatea
    settings.prompt = " "
    for operator, text in ((bpy.ops.galatea.generate, "Type a prompt"), (bpy.ops.galatea.pause, "no job")):
        expect(not operator.poll() and text in refusal(operator))
    settings.prompt = "a red mug"
    expect(bpy.ops.galatea.generate.poll() and not bpy.ops.galatea.refine.poll())
    expect("Select a mesh object" in refusal(bpy.ops.galatea.refine))
    bpy.ops.object.camera_add()
    expect("Select a mesh object" in refusal(bpy.ops.galatea.refine))
    bpy.ops.mesh.primitive_cube_add()
    expect(bpy.ops.galatea.refine.poll())
    bpy.ops.object.mode_set(mode="EDIT")
    expect("Cube is in Edit Mode" in refusal(bpy.ops.galatea.generate))
    bpy.ops.object.mode_set(mode="VERTEX_PAINT")
    expect("Vertex Paint Mode: switch to Object Mode" in refusal(bpy.ops.galatea.refine))
    bpy.ops.object.mode_set(mode="OBJECT")
    tell(events.ConnectionChanged("searching", "No service is running."))
    expect("press Start" in refusal(bpy.ops.galatea.generate))
    tell(events.ConnectionChanged("refused", "The versions differ: update one."))
    expect("The versions differ" in refusal(bpy.ops.galatea.generate))
    tell(events.ConnectionChanged("lost", "The connection broke off."))
    expect(bpy.ops.galatea.generate.poll(), "it is sent when the connection is there again")


def refusal(operator) -> str:
    try:
        operator()
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was not refused")


def check_earlier_prompts_are_kept_newest_first() -> None:
    fresh()
    history = part("prompt_history")
    for number in range(25):
        history.remember(f"prompt {number % 22}")
    kept = history.read()
    expect(len(kept) == history.KEPT and kept[:4] == ["prompt 2", "prompt 1", "prompt 0", "prompt 21"], kept)
    layout = draw(bpy.types.GALATEA_MT_prompts)
    expect([values.prompt for _, values in layout.operators] == kept)
    bpy.ops.galatea.use_prompt(prompt=kept[3])
    expect(bpy.context.window_manager.galatea.prompt == "prompt 21")
    history._file().write_text("not JSON")
    expect(history.read() == [])
    history.remember("after")
    expect(history.read() == ["after"])
    folder = Path(bpy.utils.resource_path("USER"))
    expect(folder in history._file().parents, "within Blender's user folder")


def check_colors_in_solid_view_come_with_the_first_job_and_can_be_put_back() -> None:
    fresh()
    shadings = [space.shading for _, space in part("solid_colors").views()]
    expect(len(shadings) >= 3)
    for shading in shadings:
        shading.type, shading.color_type = "SOLID", "MATERIAL"
    shadings[1].color_type = "TEXTURE"
    before = [(shading.type, shading.light) for shading in shadings]

    def colors() -> list[str]:
        return [shading.color_type for shading in shadings]

    bpy.context.window_manager.galatea.prompt = "a red mug"
    bpy.ops.galatea.generate()
    expect(colors() == ["VERTEX", "TEXTURE"] + ["VERTEX"] * (len(shadings) - 2), "what the artist has chosen stays")
    shadings[0].color_type = "OBJECT"
    bpy.ops.galatea.generate()
    expect(shadings[0].color_type == "OBJECT", "once is enough")
    bpy.ops.galatea.solid_colors()
    expect(set(colors()) == {"VERTEX"}, "asked for")
    bpy.ops.galatea.solid_colors()
    expect(colors() == ["OBJECT", "TEXTURE"] + ["MATERIAL"] * (len(shadings) - 2), colors())
    expect([(shading.type, shading.light) for shading in shadings] == before)


def check_the_random_seed_is_another() -> None:
    settings = bpy.context.window_manager.galatea
    seeds = set()
    for _ in range(8):
        bpy.ops.galatea.random_seed()
        seeds.add(settings.seed)
    expect(len(seeds) > 6)


def check_the_connection_test_says_what_was_found() -> None:
    opened = fresh()
    bpy.ops.galatea.test_connection()
    deadline = time.monotonic() + 20
    while opened.test_report == ("Testing ...",) and time.monotonic() < deadline:
        time.sleep(0.02)
    said = " ".join(opened.test_report)
    expect("no service has written" in said and "Press Start" in said and str(opened.process.folder) in said, said)
    expect(any("no service has written" in text for text in [words(draw(preferences(), 2000))]))


def check_starting_may_not_go_online_on_its_own() -> None:
    opened = fresh()
    checkout = Path(bpy.utils.resource_path("USER")) / "checkout"
    checkout.mkdir(exist_ok=True)
    (checkout / "galatea.py").write_text("raise SystemExit('it was started')")
    preferences().checkout = str(checkout)
    expect(not bpy.app.online_access)
    expect("Allow Online Access" in refusal(bpy.ops.galatea.start_service) and "Allow Online Access" in opened.problem)
    expect(opened.process.state().kind == "stopped" and not (opened.process.folder / "start.log").exists())


