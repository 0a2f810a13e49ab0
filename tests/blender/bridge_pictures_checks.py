"""Checks within Blender: images of every kind become pictures for the wire, and vertex groups masks."""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from pathlib import Path

import bpy
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))
from tests.blender.bridge_scene import (
    JOB, artists_object, differences, expect, layers_of, positions_of, refused, run_checks, wire_mesh,
)  # fmt: skip
from galatea.bridge import finish, preview
from galatea.bridge.collect import collect
from galatea.bridge.errors import SceneError
from galatea.bridge.pictures import read_picture
from galatea.bridge.regions import group_from_selection, read_masks


def main() -> dict[str, str | None]:
    return run_checks(globals())


def colorful(width: int, height: int, dtype: type = np.uint8) -> np.ndarray:
    """[H, W, 4], row 0 on top, no two rows or columns alike."""
    dice = np.random.default_rng(width)
    return dice.integers(0, np.iinfo(dtype).max, (height, width, 4), dtype, endpoint=True)


def saved(pixels: np.ndarray, name: str = "picture.png") -> Path:
    """A PNG of 8 or 16 bits, written by hand."""
    path = Path(tempfile.mkdtemp()) / name
    rows = b"".join(b"\0" + row.astype(f">u{pixels.itemsize}").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 6, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def check_a_file_comes_as_it_is_bit_for_bit() -> None:
    pixels = colorful(40, 23)
    image = bpy.data.images.load(str(saved(pixels)))
    expect((read_picture(image).pixels == pixels).all(), "straight alpha, row 0 on top, nothing rounded away")
    image.pack()
    Path(bpy.path.abspath(image.filepath)).unlink()
    expect((read_picture(image).pixels == pixels).all(), "packed into the file")


def check_alpha_that_is_not_meant_as_such_is_left_out() -> None:
    pixels = colorful(20, 20)
    for mode in ("NONE", "CHANNEL_PACKED"):
        image = bpy.data.images.load(str(saved(pixels)))
        image.alpha_mode = mode
        seen = read_picture(image).pixels
        expect((seen[..., :3] == pixels[..., :3]).all() and (seen[..., 3] == 255).all(), mode)


def check_sixteen_bits_and_floats_come_as_displayed() -> None:
    pixels = colorful(20, 20, np.uint16)
    pixels[..., 3] = np.maximum(pixels[..., 3], 20_000)
    image = bpy.data.images.load(str(saved(pixels)))
    expect(image.is_float)
    off = np.abs(read_picture(image).pixels - pixels / 257.0)
    expect(off.max() < 1.0, off.max())
    floats = bpy.data.images.new("Floats", 16, 16, alpha=True, float_buffer=True)
    values = np.zeros((16, 16, 4), np.float32)
    values[:] = (0.5 * 0.21404114, 9.0, np.nan, 0.5)  # premultiplied, linear; brighter than white, and not a number
    floats.pixels.foreach_set(values.ravel())
    expect(read_picture(floats).pixels[5, 5].tolist() == [128, 255, 0, 128], read_picture(floats).pixels[5, 5])


def check_unsaved_and_generated_images() -> None:
    painted = bpy.data.images.new("Painted", 24, 16, alpha=False)
    values = np.zeros((16, 24, 4), np.float32)
    values[..., 3], values[0, 3, 0] = 1.0, 1.0  # Blender's row 0 is at the bottom
    painted.pixels.foreach_set(values.ravel())
    seen = read_picture(painted).pixels
    expect(seen.shape == (16, 24, 4) and seen[15, 3].tolist() == [255, 0, 0, 255] and seen[..., 0].sum() == 255)
    grid = bpy.data.images.new("Grid", 64, 32)
    grid.generated_type = "UV_GRID"
    expect(len(np.unique(read_picture(grid).pixels[..., 0])) > 1)


def check_large_pictures_are_made_smaller() -> None:
    """Averages of squares; what is transparent does not bleed."""
    large = bpy.data.images.new("Large", 2050, 1030, alpha=True)
    values = np.zeros((1030, 2050, 4), np.float32)
    values[:, :, :] = (0.0, 1.0, 0.0, 0.0)
    values[:, 1000:] = (1.0, 0.0, 0.0, 1.0)
    values[300:600, 1200:1500, :3] = np.indices((300, 300)).sum(0)[..., None] % 2
    large.pixels.foreach_set(values.ravel())
    seen = read_picture(large).pixels
    expect(seen.shape == (343, 683, 4), seen.shape)
    border = seen[5, 333]  # of three columns, the first transparent
    expect(border.tolist() == [255, 0, 0, 170], f"no green from the transparent half: {border}")
    expect(seen[:, 400:][..., 3].min() == 255 and seen[:, :330][..., 3].max() == 0)
    board = seen[-195:-105, 405:495, 0] / 255.0  # rows count from the top here
    expect(abs(board.mean() - 0.5) < 0.06 and 0.4 < board.min() and board.max() < 0.6, (board.min(), board.max()))


def check_what_cannot_be_shown_says_why() -> None:
    refused(SceneError, "at least 16", read_picture, bpy.data.images.new("Dot", 15, 40))
    refused(SceneError, "at least 16", read_picture, bpy.data.images.new("Line", 2060, 20))
    refused(SceneError, "scale it down", read_picture, bpy.data.images.new("Huge", 8192, 4097))
    clear = bpy.data.images.new("Clear", 16, 16, alpha=True)
    clear.pixels.foreach_set(np.zeros(16 * 16 * 4, np.float32))
    refused(SceneError, "transparent everywhere", read_picture, clear)
    lost = bpy.data.images.load(str(saved(colorful(20, 20))))
    lost.filepath = "/nowhere/lost.png"
    lost.reload()
    refused(SceneError, "/nowhere/lost.png", read_picture, lost)
    movie = bpy.data.images.load(str(saved(colorful(20, 20))))
    movie.source = "SEQUENCE"
    refused(SceneError, "a sequence", read_picture, movie)
    bpy.data.images.new("keeps the list from being empty", 16, 16)
    bpy.ops.object.camera_add()
    result = bpy.data.images.get("Render Result") or bpy.data.images.new("Render Result", 1, 1)
    if result.source == "VIEWER":
        refused(SceneError, "save it", read_picture, result)


def check_vertex_groups_become_masks() -> None:
    cloth = artists_object()
    expected = np.zeros((2, len(cloth.data.vertices)), np.float32)
    for row, (name, seed) in enumerate((("Lid", 1), ("Rim", 2))):
        group = cloth.vertex_groups.new(name=name)
        dice = np.random.default_rng(seed)
        for vertex in dice.permutation(len(cloth.data.vertices))[:30].tolist():
            expected[row, vertex] = np.float32(dice.random())
            group.add([vertex], float(expected[row, vertex]), "REPLACE")
    masks = read_masks(cloth, ["Rim", "Lid"])
    expect((np.stack(masks) == expected[::-1]).all() and masks[0].dtype == np.float32)
    expect(read_masks(cloth, []) == ())
    refused(SceneError, "no vertex group Handle", read_masks, cloth, ["Rim", "Handle"])
    refused(SceneError, "has no vertex group:", read_masks, cloth, [""])
    cloth.vertex_groups.new(name="Empty")
    refused(SceneError, "No vertex has a weight", read_masks, cloth, ["Empty"])


def check_the_selection_becomes_a_vertex_group() -> None:
    cloth = artists_object()
    before = layers_of(cloth)
    chosen = np.zeros(len(cloth.data.polygons), bool)
    chosen[[3, 4, 10]] = True
    corners = {vertex for face in (3, 4, 10) for vertex in cloth.data.polygons[face].vertices}
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_mode(type="FACE")
    bpy.ops.mesh.select_all(action="DESELECT")
    refused(SceneError, "Nothing is selected", group_from_selection, cloth)
    bpy.ops.object.mode_set(mode="OBJECT")
    cloth.data.polygons.foreach_set("select", chosen)
    bpy.ops.object.mode_set(mode="EDIT")
    name = group_from_selection(cloth)
    expect(cloth.mode == "EDIT" and name == "Region", name)
    bpy.ops.object.mode_set(mode="OBJECT")
    [mask] = read_masks(cloth, [name])
    expect(set(np.flatnonzero(mask).tolist()) == corners and set(mask.tolist()) == {0.0, 1.0})
    expect(group_from_selection(cloth) == "Region.001", "in Object Mode the last selection counts; names stay unique")
    moved = {layer for layer in differences(before, layers_of(cloth)) if "group" not in layer.lower() and "select" not in layer.lower()}
    expect(not moved, moved)


def check_outside_of_a_region_accept_leaves_every_bit() -> None:
    """Positions, and colors in place, of vertices that came back as they were sent; though the object hangs askew."""
    cloth = artists_object()
    layer = cloth.data.color_attributes.new("Tint", "FLOAT_COLOR", "POINT")
    values = np.random.default_rng(2).random((len(cloth.data.vertices), 4)).astype(np.float32)
    layer.data.foreach_set("color", values.ravel())
    cloth.data.color_attributes.active_color = layer
    cloth.vertex_groups.new(name="Lid").add([5, 6, 7, 20], 1.0, "REPLACE")
    before, local = layers_of(cloth), positions_of(cloth).astype(np.float32)
    collected = collect(cloth)
    [mask] = read_masks(cloth, ["Lid"])
    inside = mask > 0
    positions, colors = collected.mesh.positions.copy(), collected.mesh.colors.copy()
    positions[inside] += 0.05
    colors[inside] = (0.2, 0.6, 0.1)
    live = preview.begin(bpy.context, JOB, "a cloth", cloth, collected.placement)
    finish.accept(bpy.context, live, wire_mesh(positions, None, colors))
    after = positions_of(cloth).astype(np.float32)
    tint = np.empty(values.size, np.float32)
    cloth.data.color_attributes["Tint"].data.foreach_get("color", tint)
    expect(after[~inside].tobytes() == local[~inside].tobytes() and (after[inside] != local[inside]).any(axis=1).all())
    expect(tint.reshape(-1, 4)[~inside].tobytes() == values[~inside].tobytes())
    expect((tint.reshape(-1, 4)[inside, :3] != values[inside, :3]).any(axis=1).all())
    changed = differences(before, layers_of(cloth))
    expect(changed <= {"POINT FLOAT_COLOR Tint", "colors", "POINT FLOAT_VECTOR position", "positions"}, changed)
