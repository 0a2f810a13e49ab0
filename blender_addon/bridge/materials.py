"""Materials that show a mesh's colors."""

from __future__ import annotations

from collections.abc import Iterable

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


def remove_unused(materials: Iterable[Material | None]) -> None:
    """Removes those that are ours and that nothing uses any more."""
    for material in set(materials) - {None}:
        if _is_ours(material) and material.users == 0:
            bpy.data.materials.remove(material)


def galatea_material() -> Material:
    """The material of generated objects, shared by them: Base Color is the color attribute. Made on first use."""
    for material in bpy.data.materials:
        if _is_ours(material) and shows_colors(material):
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
    left: list[str] = []
    copies: dict[Material, Material | None] = {}
    for slot in object.material_slots:
        material = slot.material
        if material is None or shows_colors(material):
            continue
        if material not in copies:
            copies[material] = _copy_with_colors(material)
            if copies[material] is None:
                left.append(f"{material.name} has no Principled BSDF, and was left as it is.")
        if copies[material] is None:
            continue
        if object.data.users > 1 and slot.link == "DATA":
            slot.link = "OBJECT"  # the others that share the mesh keep their materials
        slot.material = copies[material]
        if material.users == 0:
            material.use_fake_user = True  # else saving would lose it
    return left


def _is_ours(material: Material) -> bool:
    return material.library is None and bool(material.get(NAME))


def _copy_with_colors(material: Material) -> Material | None:
    copy = material.copy()
    if _connect(copy):
        return copy
    bpy.data.materials.remove(copy)
    return None


def _connect(material: Material) -> bool:
    """Color Attribute -> Base Color; False without a Principled BSDF.

    The node's empty layer name means the layer that the mesh has for rendering.
    """
    if not material.node_tree:
        material.use_nodes = True  # always true, and deprecated, from Blender 5 on
    tree = material.node_tree
    shader = _principled(tree)
    if shader is None:
        return False
    node = tree.nodes.new("ShaderNodeVertexColor")
    node.location = (shader.location.x - 220, shader.location.y)
    tree.links.new(node.outputs["Color"], shader.inputs[BASE_COLOR])
    return True


def _principled(tree: NodeTree | None) -> Node | None:
    """The Principled BSDF that an output shows, or failing that any one."""
    shaders = [node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled"] if tree else []
    shown = [node for node in shaders if any(link.to_socket.name == "Surface" for link in node.outputs["BSDF"].links)]
    return next(iter(shown + shaders), None)
