"""Checks within Blender: pictures and regions from the panel to the client, and what a job tells about itself.

The extension is installed; its client is a scripted one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import expect
from tests.blender.extension_scene import fresh, generate, run_checks, session, tell
from tests.blender.recording_layout import draw
from tests.blender.scripted_link import Mesh, events, m

from tests.blender.extension_parts import part  # isort: skip

panels = part("panels")


def main() -> dict[str, str | None]:
    return run_checks(globals())


def settings():
    return bpy.context.window_manager.galatea


def image(name: str, level: float = 0.5) -> bpy.types.Image:
    made = bpy.data.images.new(name, 20, 16)
    made.pixels.foreach_set(np.tile(np.float32([level, 0, 0, 1]), 20 * 16))
    return made


def cube() -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add()
    return bpy.context.object


def refusal(operator, **arguments) -> str:
    try:
        operator(**arguments)
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was not refused")


def submitted() -> tuple:
    [words] = session().client.asked("submit")
    return words[2], *session().client.attached


def clear() -> None:
    fresh()
    settings().pictures.clear()
    settings().prompt = ""


def check_generating_from_a_picture_needs_no_words() -> None:
    clear()
    expect("reference picture" in refusal(bpy.ops.galatea.generate))
    image("Mug from the left", 1.0)
    bpy.ops.galatea.add_picture(image="Mug from the left")
    settings().pictures[0].azimuth, settings().pictures[0].elevation = 90.0, 15.0
    bpy.ops.galatea.generate()
    request, mesh, pictures, masks = submitted()
    expect((request.command, request.prompt, request.regions, mesh, masks) == ("generate", "", (), None, ()))
    [reference] = request.references
    expect((reference.azimuth, reference.elevation, reference.background) == (90.0, 15.0, "auto"), reference)
    expect(pictures[0].pixels.shape == (16, 20, 4) and pictures[0].pixels[0, 0].tolist() == [255, 0, 0, 255])
    expect(bpy.context.object.name == "Mug from the left", bpy.context.object.name)
    live = next(reversed(session().jobs.values()))
    tell(events.Submitted(live.job, None))
    bpy.ops.galatea.steer()  # to no words still: the picture stays
    expect(session().client.asked("steer")[-1][2] == "")
    live.phase = "finished"
    expect("From a picture" in draw(panels.GALATEA_PT_main).texts)


def check_a_file_on_disk_is_opened_and_kept() -> None:
    clear()
    path = Path(bpy.utils.resource_path("USER")) / "boat.png"
    source = image("source")
    source.filepath_raw, source.file_format = str(path), "PNG"
    source.save()
    bpy.data.images.remove(source)
    for _ in range(2):
        bpy.ops.galatea.open_picture(filepath=str(path))
    expect([row.image for row in settings().pictures] == ["boat.png"] * 2 and len(bpy.data.images) == 1)
    expect("cannot be opened" in refusal(bpy.ops.galatea.open_picture, filepath="/nowhere/at/all.png"))
    bpy.ops.galatea.remove_picture(index=0)
    bpy.ops.ed.undo()
    expect(len(settings().pictures) == 1, "undo does not reach the fields")


def check_pictures_that_cannot_be_used_stop_nothing_else() -> None:
    clear()
    settings().prompt = "a red mug"
    bpy.ops.galatea.add_picture()
    objects = len(bpy.data.objects)
    expect("Row 1 of the reference pictures is empty" in refusal(bpy.ops.galatea.generate))
    settings().pictures[0].image = "Gone"
    expect("no image Gone any more" in refusal(bpy.ops.galatea.generate))
    bpy.data.images.new("Dot", 8, 8)
    settings().pictures[0].image = "Dot"
    expect("at least 16" in refusal(bpy.ops.galatea.generate))
    expect(not session().client.asked("submit") and len(bpy.data.objects) == objects and not session().jobs)
    for _ in range(3):
        bpy.ops.galatea.add_picture()
    expect("at most 4 pictures" in refusal(bpy.ops.galatea.add_picture))
    expect("at most 4 pictures" in refusal(bpy.ops.galatea.open_picture, filepath="/nowhere.png"))
    draw(panels.GALATEA_PT_main)


def check_refining_regions_sends_their_weights_and_words() -> None:
    clear()
    settings().prompt = "a red mug"
    original = cube()
    for name, weight in (("Top", 0.25), ("Side", 1.0)):
        original.vertex_groups.new(name=name).add([1, 3], weight, "REPLACE")
    for _ in range(2):
        bpy.ops.galatea.add_region()
    rows = original.galatea_regions
    expect([row.group for row in rows] == ["Side", ""], "the active one is offered once")
    rows[1].group, rows[1].prompt = "Top", " a golden lid "
    texts = draw(panels.GALATEA_PT_main)
    expect("Regions to Refine (2)" in texts.texts and texts.props.count("group") == 2, texts.texts)
    bpy.ops.galatea.refine()
    request, mesh, pictures, masks = submitted()
    expect(request.command == "refine" and [region.prompt for region in request.regions] == ["", "a golden lid"])
    expect(len(mesh.positions) == 8 and pictures == ())
    expect([mask.tolist() for mask in masks] == [[0, 1, 0, 1, 0, 0, 0, 0], [0, 0.25, 0, 0.25, 0, 0, 0, 0]], masks)


def check_regions_that_cannot_be_used_change_nothing() -> None:
    clear()
    settings().prompt = "a red mug"
    expect("Select a mesh object" in refusal(bpy.ops.galatea.add_region))
    original = cube()
    bpy.ops.galatea.add_region()
    expect("no vertex group: choose one" in refusal(bpy.ops.galatea.refine))
    original.galatea_regions[0].group = "Lid"
    expect("no vertex group Lid" in refusal(bpy.ops.galatea.refine))
    original.vertex_groups.new(name="Lid")
    expect("No vertex has a weight" in refusal(bpy.ops.galatea.refine))
    expect(not session().client.asked("submit") and len(bpy.data.objects) == 1 and original.visible_get())
    bpy.ops.galatea.generate()
    expect(submitted()[0].regions == (), "generating knows no regions")
    bpy.ops.galatea.discard()
    bpy.context.view_layer.objects.active = original
    for _ in range(7):
        bpy.ops.galatea.add_region()
    expect("at most 8 regions" in refusal(bpy.ops.galatea.add_region))
    expect("at most 8 regions" in refusal(bpy.ops.galatea.region_from_selection))


def check_the_selection_is_one_click_away_and_one_undo() -> None:
    clear()
    original = cube()
    bpy.ops.ed.undo_push(message="a cube")
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="DESELECT")
    expect("Nothing is selected" in refusal(bpy.ops.galatea.region_from_selection) and not original.galatea_regions)
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.galatea.region_from_selection()
    expect(original.mode == "EDIT" and [row.group for row in original.galatea_regions] == ["Region"])
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.ed.undo_push(message="Toggle Edit Mode")  # as Tab does
    bpy.ops.galatea.remove_region(index=0)
    expect(not original.galatea_regions and "Region" in original.vertex_groups)
    bpy.ops.ed.undo()
    expect([row.group for row in bpy.data.objects["Cube"].galatea_regions] == ["Region"])


def check_regions_are_saved_with_their_object() -> None:
    clear()
    settings().prompt = "a red mug"
    original = cube()
    original.vertex_groups.new(name="Lid").add([0], 1.0, "REPLACE")
    bpy.ops.galatea.add_region()
    original.galatea_regions[0].prompt = "a golden lid"
    path = str(Path(bpy.utils.resource_path("USER")) / "regions.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    [row] = bpy.data.objects["Cube"].galatea_regions
    expect((row.group, row.prompt) == ("Lid", "a golden lid"))


def check_a_region_survives_preview_and_accept() -> None:
    """Only what is inside has moved; the regions are still the object's, and the preview has left nothing."""
    clear()
    settings().prompt = "a red mug"
    original = cube()
    original.location, original.rotation_euler, original.scale = (3, -1, 2), (0.3, 1.0, 0.2), (1.0, 0.3, 2.0)
    original.vertex_groups.new(name="Lid").add([1, 3], 1.0, "REPLACE")
    bpy.ops.galatea.add_region()
    before = np.array([vertex.co for vertex in original.data.vertices], np.float32)
    bpy.ops.galatea.refine()
    job, (request, mesh, _, masks) = next(reversed(session().jobs)), submitted()
    positions = mesh.positions.copy()
    positions[masks[0] > 0] *= np.float32(0.7)
    session().client.result(Mesh(positions, mesh.faces, None), job)
    tell()
    bpy.ops.galatea.accept()
    after = np.array([vertex.co for vertex in original.data.vertices], np.float32)
    moved = (after != before).any(axis=1)
    expect(moved.tolist() == [False, True, False, True, False, False, False, False], moved)
    expect(after[~moved].tobytes() == before[~moved].tobytes() and [row.group for row in original.galatea_regions] == ["Lid"])


def check_a_job_tells_about_itself() -> None:
    live = generate()
    controls = settings().jobs[live.job]
    expect(not any("Diagnosis" in text for text in draw(panels.GALATEA_PT_main).texts))
    shares = {"distillation": 0.7, "reference_color": 0.12, "laplacian": 0.08, "a": 0.04, "b": 0.03, "c": 0.02, "d": 0.01}
    told = m.Diagnosis(120, {"distillation": 1.0}, shares, {"positions": 0.1}, (1,) * 12, 0.5, (1,) * 10, 0.04, 0.25)
    progress = m.Progress(live.job, "running", "optimizing", 120, 400, 0, None, 0.1, 1.0, {}, told)
    tell(events.ProgressMade(progress))
    folded = draw(panels.GALATEA_PT_main).texts
    expect("Diagnosis after step 120" in folded and "25%" not in folded, folded)
    controls.diagnosis = True
    texts = draw(panels.GALATEA_PT_main).texts
    for what, value in (("Views that look wrong", "25%"), ("Saturated colors", "4%"), ("Moved by distillation", "70%"),
                        ("Moved by reference color", "12%"), ("Moved by the rest", "3%")):  # fmt: skip
        expect(texts[texts.index(what) + 1] == value, texts)
    tell(events.ProgressMade(m.Progress(live.job, "running", "optimizing", 121, 400, 0, None, 0.1, 1.0)))
    expect("Saturated colors" in draw(panels.GALATEA_PT_main).texts, "what was told last stays")
    session().client.happen(m.Warned("The camera is inside the mesh."), m.Warned("The camera is inside the mesh."), job=live.job)
    tell()
    texts = draw(panels.GALATEA_PT_main).texts
    expect(texts.count("The camera is inside the mesh.") == 1, texts)
    told = m.Diagnosis(130, {}, {}, {}, (0,) * 12, 1.0, (0,) * 10, 0.0, None)
    tell(events.ProgressMade(m.Progress(live.job, "running", "optimizing", 130, 400, 0, None, 0.1, 1.0, {}, told)))
    expect("Views that look wrong" not in draw(panels.GALATEA_PT_main).texts, "nobody could read them")


def check_the_strength_says_what_it_means() -> None:
    for holder in (settings(), generate() and settings().jobs[0]):
        text = type(holder).bl_rna.properties["strength"].description
        expect("0 leaves it as it is" in text and "0.2 only its colors" in text and "at 1 it is free" in text, text)
