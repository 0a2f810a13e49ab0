"""Materials that show a mesh's colors."""

from __future__ import annotations

import bpy
from bpy.types import Material, Node, NodeTree, Object

from .errors import SceneError

NAME = "Galatea"
BASE_COLOR = "Base Color"


def add_if_none(object: Object) -> None:
    """Gives an object without any material the one that shows its colors; others are left alone."""
    if any(slot.material for slot in object.material_slots):
        return
    material = galatea_material()
    if not object.material_slots:
        object.data.materials.append(material)
    for slot in object.material_slots:
        slot.material = material


def remove_if_unused() -> None:
    """Removes our material once nothing uses it."""
    material = bpy.data.materials.get(NAME)
    if material is not None and material.users == 0 and material.get(NAME):
        bpy.data.materials.remove(material)


def galatea_material() -> Material:
    """The material of generated objects, shared by them: Base Color is the color attribute. Made on first use."""
    material = bpy.data.materials.get(NAME)
    if material is not None and material.get(NAME) and shows_colors(material):
        return material
    material = bpy.data.materials.new(NAME)
    material[NAME] = True
    _connect(material)
    return material


def shows_colors(material: Material) -> bool:
    """Whether the color attribute goes straight into the material's Base Color."""
    shader = _principled(material.node_tree)
    links = shader.inputs[BASE_COLOR].links if shader else ()
    return any(link.from_node.bl_idname == "ShaderNodeVertexColor" for link in links)


def show_colors(object: Object) -> list[str]:
    """Lets every material of the object show its color attribute, in copies: the materials themselves stay as they are.

    Returns a sentence for each material that has no Principled BSDF and is left as it is.

    Raises:
        SceneError: the object has no mesh of its own to change, or no color attribute.
    """
    if object.type != "MESH" or object.library is not None or object.data.library is not None:
        raise SceneError(f"{object.name} is not a mesh object that can be changed here: select one that is.")
    if not len(object.data.color_attributes):
        raise SceneError(f"{object.name} has no color attribute to show: refine it first, or paint one.")
    add_if_none(object)
    left, copies = [], {}
    for slot in object.material_slots:
        material = slot.material
        if material is None or shows_colors(material):
            continue
        if not material.node_tree:
            material_copy = material.copy()
            material_copy.use_nodes = True
            copies[material] = material_copy
        if material not in copies and _principled(material.node_tree) is None:
            left.append(f"{material.name} has no Principled BSDF at its output, and was left as it is.")
            continue
        copy = copies.get(material) or material.copy()
        copies[material] = copy
        _connect(copy)
        if object.data.users > 1 and slot.link == "DATA":
            slot.link = "OBJECT"  # the others that share the mesh keep their materials
        slot.material = copy
        if material.users == 0:
            material.use_fake_user = True  # else saving would lose it
    return left


def _connect(material: Material) -> None:
    """Color Attribute -> Base Color. An empty layer name means the layer that the mesh has for rendering."""
    if not material.node_tree:
        material.use_nodes = True  # always true, and deprecated, from Blender 5 on
    tree = material.node_tree
    shader = _principled(tree)
    node = tree.nodes.new("ShaderNodeVertexColor")
    node.location = (shader.location.x - 220, shader.location.y)
    tree.links.new(node.outputs["Color"], shader.inputs[BASE_COLOR])


def _principled(tree: NodeTree | None) -> Node | None:
    """The Principled BSDF that the active output shows, or failing that any one."""
    nodes = [node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled"] if tree else []
    outputs = {link.from_node.name for node in (tree.nodes if tree else ()) if node.bl_idname == "ShaderNodeOutputMaterial"
               and node.is_active_output for link in node.inputs["Surface"].links}  # fmt: skip
    return next((node for node in nodes if node.name in outputs), nodes[0] if nodes else None)
