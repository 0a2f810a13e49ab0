"""Checks within Blender: colors are seen, and the artist's materials are not touched."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import (
    JOB, artists_object, counts, differences, expect, icosphere, layers_of, refused, run_checks, snapshot, wire_mesh,
)  # fmt: skip
from galatea.bridge import finish, preview
from galatea.bridge.collect import collect
from galatea.bridge.errors import SceneError
from galatea.bridge.materials import show_colors, shows_colors
from galatea.bridge.placement import default_placement
from galatea.bridge.prepare import prepare


def main() -> dict[str, str | None]:
    return run_checks(globals())


def generate(shade: tuple[float, float, float]) -> bpy.types.Object:
    placement = default_placement()
    live = preview.begin(bpy.context, JOB, "a ball", None, placement)
    points, faces = icosphere(2)
    colors = np.broadcast_to(np.float32(shade), points.shape)
    expect(preview.apply(live, prepare(placement, snapshot(points, faces, colors))))
    return finish.accept(bpy.context, live, wire_mesh(points, faces, colors))


def rendered_center() -> np.ndarray:
    """What Cycles makes of the middle of the picture, under white light from everywhere, as displayed values."""
    scene = bpy.context.scene
    world = bpy.data.worlds.new("White")
    if not world.node_tree:
        world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    scene.world = world
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location, camera.rotation_euler = (0, -4, 0), (np.pi / 2, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising, scene.view_settings.view_transform = 16, False, "Standard"
    scene.render.resolution_x = scene.render.resolution_y = 8
    scene.render.filepath = str(Path(tempfile.mkdtemp()) / "render.png")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    return np.array(image.pixels[:]).reshape(8, 8, 4)[4, 4, :3]


def check_a_generated_object_is_rendered_in_its_colors() -> None:
    object = generate((0.8, 0.3, 0.1))
    nodes = object.material_slots[0].material.node_tree.nodes
    shader = next(node for node in nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Specular IOR Level"].default_value = 0.0  # else the white world shines back, too
    seen = rendered_center()
    expect(np.abs(seen - (0.8, 0.3, 0.1)).max() < 0.03, seen)


def check_generated_objects_share_one_material() -> None:
    first, second = generate((1, 0, 0)), generate((0, 1, 0))
    expect(first.material_slots[0].material == second.material_slots[0].material and len(bpy.data.materials) == 1)
    material = first.material_slots[0].material
    material.node_tree.links.remove(next(link for link in material.node_tree.links if link.to_socket.name == "Base Color"))
    third = generate((0, 0, 1))
    expect(third.material_slots[0].material != material, "a material that the artist has changed is the artist's")
    expect(generate((0, 0, 1)).material_slots[0].material == third.material_slots[0].material and len(bpy.data.materials) == 2)


def check_a_material_of_the_artists_that_has_our_name_is_not_taken() -> None:
    theirs = bpy.data.materials.new("Galatea")
    material = generate((1, 0, 0)).material_slots[0].material
    expect(material != theirs and shows_colors(material) and not shows_colors(theirs))


def check_show_colors_works_on_copies() -> None:
    object = artists_object()
    skin = object.material_slots[0].material
    if not skin.node_tree:
        skin.use_nodes = True
    texture = skin.node_tree.nodes.new("ShaderNodeTexImage")
    principled = next(node for node in skin.node_tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    skin.node_tree.links.new(texture.outputs["Color"], principled.inputs["Base Color"])
    bpy.ops.mesh.primitive_cube_add()
    other = bpy.context.object
    other.data.materials.append(skin)
    before, elsewhere = layers_of(object), layers_of(other)
    expect(bpy.ops.ed.undo_push(message="before") == {"FINISHED"})
    expect(show_colors(object) == [])
    expect(all(shows_colors(slot.material) for slot in object.material_slots))
    expect(differences(before, layers_of(object)) == {"slots"} and not differences(elsewhere, layers_of(other)))
    expect(not shows_colors(skin) and principled.inputs["Base Color"].links[0].from_node == texture)
    materials = [slot.material for slot in object.material_slots]
    expect(show_colors(object) == [] and [slot.material for slot in object.material_slots] == materials, "twice is once")
    expect(bpy.data.materials["Trim"].users == 1 and bpy.data.materials["Trim"].use_fake_user, "saving must not lose it")
    expect(bpy.ops.ed.undo_push(message="after") == {"FINISHED"})
    bpy.ops.ed.undo()
    expect(not differences(before, layers_of(bpy.data.objects["Cloth"])))


def check_show_colors_leaves_others_that_share_the_mesh_alone() -> None:
    object = artists_object()
    other = bpy.data.objects.new("Other", object.data)
    bpy.context.collection.objects.link(other)
    before = layers_of(other)
    show_colors(object)
    expect(not differences(before, layers_of(other)) and all(shows_colors(slot.material) for slot in object.material_slots))


def check_show_colors_says_what_it_cannot_do() -> None:
    object = artists_object()
    skin = object.material_slots[0].material
    if not skin.node_tree:
        skin.use_nodes = True
    skin.node_tree.nodes.clear()
    blocks = counts()
    (left,) = show_colors(object)
    expect("Skin" in left and object.material_slots[0].material == skin)
    expect(counts() == blocks | {"materials": blocks["materials"] + 1}, counts())
    bpy.ops.mesh.primitive_cube_add()
    refused(SceneError, "no color attribute", show_colors, bpy.context.object)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    refused(SceneError, "not a mesh", show_colors, camera)


def check_materials_of_a_refined_object_stay_in_their_slots() -> None:
    object = artists_object()
    object.material_slots[1].link = "OBJECT"
    object.material_slots[1].material = bpy.data.materials.new("Own")
    blocks = counts()
    collected = collect(object)
    live = preview.begin(bpy.context, JOB, "a cloth", object, collected.placement)
    result = (collected.mesh.positions * 0.9, None, collected.mesh.positions * 0)
    expect(preview.apply(live, prepare(collected.placement, snapshot(*result))))
    expect([slot.material.name for slot in live.material_slots] == ["Skin", "Own"])
    accepted = finish.accept(bpy.context, live, wire_mesh(*result))
    expect([(slot.material.name, slot.link) for slot in accepted.material_slots] == [("Skin", "DATA"), ("Own", "OBJECT")])
    expect(counts() == blocks)
