"""Runs in Blender's Python, never imported by a test: what Blender makes of our mesh files, and files that it writes."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np


def exchange(paths: list[str], folder: str) -> dict:
    """What Blender reads from each of our files, and what it says is in the files that it writes into `folder`."""
    seen = {}
    for path in paths:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        seen[Path(path).name] = describe(path)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return {"seen": seen, "told": export(folder)}


def describe(path: str) -> list[dict]:
    """The objects that Blender's importer makes of a file."""
    if path.endswith(".obj"):
        bpy.ops.wm.obj_import(filepath=path)
    else:
        bpy.ops.import_scene.gltf(filepath=path)
    return [describe_object(each) for each in bpy.data.objects if each.type == "MESH"]


def describe_object(item: bpy.types.Object) -> dict:
    mesh = item.data
    uvs = mesh.uv_layers.active
    return {
        "name": item.name,
        "positions": [list(item.matrix_world @ vertex.co) for vertex in mesh.vertices],
        "polygons": [list(polygon.vertices) for polygon in mesh.polygons],
        "uvs": None if uvs is None else [list(each.uv) for each in uvs.data],
        "colors": [attribute.name for attribute in mesh.color_attributes],
        "materials": [describe_material(slot.material) for slot in item.material_slots],
    }


def describe_material(material: bpy.types.Material) -> dict:
    """The Principled BSDF's sockets: what image feeds them, through which nodes, or their own values."""
    (shader,) = (node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    sockets = ("Base Color", "Metallic", "Roughness", "Normal", "Emission Color", "Emission Strength")
    return {"name": material.name, **{name: describe_socket(shader.inputs[name]) for name in sockets}}


def describe_socket(socket: bpy.types.NodeSocket) -> dict:
    way = []
    while socket.is_linked and (link := socket.links[0]):
        way.append(f"{link.from_node.type} {link.from_socket.name}")
        if link.from_node.type == "TEX_IMAGE":
            return {"way": way, **describe_image(link.from_node.image)}
        names = ("Color", "Image")
        socket = next(each for each in link.from_node.inputs if each.name in names)
    value = socket.default_value
    return {"way": way, "value": list(value) if hasattr(value, "__len__") else value}


def describe_image(image: bpy.types.Image) -> dict:
    """Its texels as 8-bit numbers [H, W, 3], row 0 on top."""
    values = np.array(image.pixels[:], np.float32).reshape(image.size[1], image.size[0], image.channels)
    return {
        "space": image.colorspace_settings.name,
        "texels": np.rint(values[::-1, :, :3] * 255).astype(int).tolist(),
    }


def export(folder: str) -> dict:
    """Writes thing.glb and thing.obj; tells what is in them, in Blender's coordinates."""
    item = make_thing(Path(folder))
    bpy.ops.export_scene.gltf(filepath=f"{folder}/thing.glb", export_format="GLB")
    bpy.ops.wm.obj_export(
        filepath=f"{folder}/thing.obj", export_pbr_extensions=True, path_mode="RELATIVE", export_materials=True
    )
    told = describe_object(item)
    return told | {"material_of": [polygon.material_index for polygon in item.data.polygons]}


def make_thing(folder: Path) -> bpy.types.Object:
    """A house's outline with thickness: n-gons in front (concave) and behind, quads around, one of them cut in two."""
    outline = [(0, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2)]
    size = len(outline)
    vertices = [(x, depth, z) for depth in (0.0, 0.5) for x, z in outline]
    faces: list[tuple[int, ...]] = [tuple(range(size)), tuple(range(size, 2 * size))[::-1]]
    faces += [(i + 1, i, i + size, i + size + 1) for i in range(size - 1)]
    faces += [(0, size - 1, 2 * size - 1), (0, 2 * size - 1, size)]
    mesh = bpy.data.meshes.new("house mesh")
    mesh.from_pydata(vertices, [], faces)
    layer = mesh.uv_layers.new(name="UVMap")
    generator = np.random.default_rng(0)
    for loop, uv in zip(layer.data, generator.random((len(mesh.loops), 2)), strict=True):
        loop.uv = uv
    for material in (textured(folder), plain()):
        mesh.materials.append(material)
    for index, polygon in enumerate(mesh.polygons):
        polygon.material_index = int(index >= 2)
    item = bpy.data.objects.new("Häuschen", mesh)
    item.location, item.scale = (1.0, 2.0, 3.0), (2.0, 2.0, 2.0)
    bpy.context.collection.objects.link(item)
    bpy.context.view_layer.update()
    return item


def textured(folder: Path) -> bpy.types.Material:
    image = bpy.data.images.new("bricks", 4, 4)
    texels = np.random.default_rng(1).integers(0, 256, (4, 4, 4)) / 255.0
    texels[..., 3] = 1.0
    image.pixels = texels.reshape(-1).tolist()
    image.filepath_raw, image.file_format = str(folder / "bricks.png"), "PNG"
    image.save()
    material, shader = new_material("brick wall")
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    shader.inputs["Roughness"].default_value = 0.9
    return material


def plain() -> bpy.types.Material:
    material, shader = new_material("steel")
    shader.inputs["Base Color"].default_value = (0.5, 0.25, 0.1, 1.0)
    shader.inputs["Metallic"].default_value = 1.0
    shader.inputs["Roughness"].default_value = 0.3
    return material


def new_material(name: str) -> tuple[bpy.types.Material, bpy.types.ShaderNode]:
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0):
        material.use_nodes = True
    return material, next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
