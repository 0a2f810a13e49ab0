"""Runs in Blender's Python: renders shots with Cycles, as linear light; knows nothing of our renderer.

`render(folder, samples)` renders every `NAME.npz` of a folder to `NAME.npy`, `[R, R, 4]` premultiplied, row 0 on top.
A shot's arrays, with y up (they are turned to Blender's z up here):
    camera_to_world [4, 4], fov (degrees), resolution
    environment [H, W, 3] linear, or uniform radiance [3]; optionally sun [3] toward it and sun_strength (irradiance)
    for each object K from 0: K.positions [V, 3], K.normals [V, 3], K.faces [F, 3], optionally K.uvs [F, 3, 2];
    K.base_color, K.metallic, K.roughness and optionally K.normal and K.emission: one value, or a picture [H, W, 3] with
    the values that a file has. Objects neither shade nor mirror each other.
"""

from __future__ import annotations

import time
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def render(folder: str, samples: int) -> float:
    """Returns the seconds that it took."""
    start = time.perf_counter()
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as arrays:
            np.save(path.with_suffix(".npy"), picture(dict(arrays), samples, path.with_suffix(".exr")))
    return time.perf_counter() - start


def picture(shot: dict[str, np.ndarray], samples: int, file: Path) -> np.ndarray:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    for index in range(sum(name.endswith(".faces") for name in shot)):
        prefix = f"{index}."
        add_mesh(scene, {name.removeprefix(prefix): value for name, value in shot.items() if name.startswith(prefix)})
    add_camera(scene, shot)
    add_light(scene, shot)
    configure(scene, int(shot["resolution"]), samples, file)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(file))
    pixels = np.empty(len(image.pixels), dtype=np.float32)
    image.pixels.foreach_get(pixels)
    return pixels.reshape(image.size[1], image.size[0], 4)[::-1]


def configure(scene: bpy.types.Scene, resolution: int, samples: int, file: Path) -> None:
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x = render.resolution_y = resolution
    render.resolution_percentage = 100
    render.film_transparent = True
    render.threads_mode, render.threads = "FIXED", 1
    render.filepath = str(file)
    render.image_settings.file_format = "OPEN_EXR"
    render.image_settings.color_mode = "RGBA"
    render.image_settings.color_depth = "32"
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples, cycles.use_adaptive_sampling, cycles.use_denoising = samples, False, False
    cycles.seed = 0
    cycles.pixel_filter_type, cycles.filter_width = "BOX", 0.01
    cycles.sample_clamp_direct = cycles.sample_clamp_indirect = cycles.blur_glossy = 0.0


def add_mesh(scene: bpy.types.Scene, part: dict[str, np.ndarray]) -> None:
    mesh = bpy.data.meshes.new("part")
    mesh.from_pydata((part["positions"] @ Z_UP.T).tolist(), [], part["faces"].tolist())
    if "uvs" in part:
        layer = mesh.uv_layers.new(name="UVMap")
        layer.uv.foreach_set("vector", part["uvs"].astype(np.float32).ravel())
    mesh.shade_smooth()
    mesh.normals_split_custom_set_from_vertices((part["normals"] @ Z_UP.T).tolist())
    mesh.materials.append(principled(part))
    placed = bpy.data.objects.new("part", mesh)
    placed.visible_diffuse = placed.visible_glossy = placed.visible_transmission = placed.visible_shadow = False
    scene.collection.objects.link(placed)


def principled(part: dict[str, np.ndarray]) -> bpy.types.Material:
    material = bpy.data.materials.new("part")
    material.use_nodes = True
    material.cycles.use_bump_map_correction = bool(part.get("bump_correction", True))
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    shader, output = nodes.new("ShaderNodeBsdfPrincipled"), nodes.new("ShaderNodeOutputMaterial")
    links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    for name, socket in (("base_color", "Base Color"), ("metallic", "Metallic"), ("roughness", "Roughness")):
        values = part[name]
        if values.ndim == 3:
            links.new(textured(nodes, name, values, name == "base_color"), shader.inputs[socket])
        else:
            shader.inputs[socket].default_value = (*from_srgb(values), 1.0) if name == "base_color" else float(values)
    if "normal" in part:
        normal_map = nodes.new("ShaderNodeNormalMap")
        normal_map.uv_map = "UVMap"
        links.new(textured(nodes, "normal", part["normal"], False), normal_map.inputs["Color"])
        links.new(normal_map.outputs["Normal"], shader.inputs["Normal"])
    if "emission" in part:
        shader.inputs["Emission Color"].default_value = (*from_srgb(part["emission"]), 1.0)
        shader.inputs["Emission Strength"].default_value = 1.0
    return material


def textured(nodes, name: str, picture: np.ndarray, is_color: bool):
    """The color output of a picture with 8 bits a channel, as files have."""
    node = nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.new(name, picture.shape[1], picture.shape[0], alpha=False)
    node.image.colorspace_settings.name = "sRGB" if is_color else "Non-Color"
    fill(node.image, picture)
    node.image.pack()
    return node.outputs["Color"]


def fill(image: bpy.types.Image, picture: np.ndarray) -> None:
    opaque = np.ones((*picture.shape[:2], 4), dtype=np.float32)
    opaque[..., :3] = picture
    image.pixels.foreach_set(opaque[::-1].ravel())
    image.update()


def from_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def add_camera(scene: bpy.types.Scene, shot: dict[str, np.ndarray]) -> None:
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    turned = np.eye(4)
    turned[:3] = Z_UP @ shot["camera_to_world"][:3]
    camera.matrix_world = Matrix(turned.tolist())
    camera.data.angle = float(np.radians(shot["fov"]))
    scene.collection.objects.link(camera)
    scene.camera = camera


def add_light(scene: bpy.types.Scene, shot: dict[str, np.ndarray]) -> None:
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    nodes, links = scene.world.node_tree.nodes, scene.world.node_tree.links
    nodes.clear()
    background, output = nodes.new("ShaderNodeBackground"), nodes.new("ShaderNodeOutputWorld")
    links.new(background.outputs["Background"], output.inputs["Surface"])
    environment = shot["environment"]
    if environment.ndim == 1:
        background.inputs["Color"].default_value = (*environment, 1.0)
    else:
        node = nodes.new("ShaderNodeTexEnvironment")
        height, width = environment.shape[:2]
        node.image = bpy.data.images.new("environment", width, height, alpha=False, float_buffer=True, is_data=True)
        fill(node.image, environment)
        node.image.pack()
        links.new(node.outputs["Color"], background.inputs["Color"])
        # Left to itself, Cycles takes a second to look at the picture in fine detail, to know where it is bright.
        scene.world.cycles.sampling_method, scene.world.cycles.sample_map_resolution = "MANUAL", 128
    if "sun" in shot:
        sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
        sun.data.energy, sun.data.angle = float(shot["sun_strength"]), 0.0
        sun.rotation_mode = "QUATERNION"
        sun.rotation_quaternion = Vector((Z_UP @ shot["sun"]).tolist()).to_track_quat("Z", "Y")
        scene.collection.objects.link(sun)
