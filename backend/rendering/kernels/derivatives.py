"""How interpolated attributes change from pixel to pixel, from the homogeneous edge functions.

With S = sum a_i and the edge functions linear in the column, a_i' = their part per column, b_i = a_i / S changes by
b_i' = (a_i' - b_i S') / S per pixel, and an attribute by sum b_i' A_i; rows likewise.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering.kernels.edges import at_point, set_up_face
from backend.rendering.kernels.runtime import kernel_module, lanes_per_row, launch, rows

module = kernel_module("derivatives")


@wp.kernel(module=module)
def find_screen_derivatives(
    attributes: wp.array(dtype=float),
    face_ids: wp.array(dtype=wp.int32),
    clip: wp.array(dtype=wp.vec4),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    attribute_faces: wp.array(dtype=wp.vec3i),
    attribute_count: int,
    attributes_per_view: int,
    channels: int,
    height: int,
    width: int,
    lanes: int,
    derivatives: wp.array(dtype=wp.vec2),
):
    thread = wp.tid()
    line = thread // lanes
    column = thread - line * lanes
    view = line // height
    vertices = view * vertex_count
    y = wp.float64(line - view * height) + wp.float64(0.5)
    while column < width:
        pixel = line * width + column
        face_id = face_ids[pixel]
        across = wp.vec3(0.0)
        down = wp.vec3(0.0)
        corners = wp.vec3i(0)
        known = face_id >= 0
        if known:
            corners = attribute_faces[face_id]
            known = wp.min(corners) >= 0 and wp.max(corners) < attribute_count
        if known:
            face = faces[face_id]
            setup = set_up_face(
                clip[vertices + face[0]], clip[vertices + face[1]], clip[vertices + face[2]], height, width
            )
            x = wp.float64(column) + wp.float64(0.5)
            a = wp.vec3d(at_point(setup.first, x, y), at_point(setup.second, x, y), at_point(setup.third, x, y))
            total = a[0] + a[1] + a[2]
            if total > wp.float64(0.0):
                b = a / total
                per_column = wp.vec3d(setup.first[0], setup.second[0], setup.third[0])
                per_row = wp.vec3d(setup.first[1], setup.second[1], setup.third[1])
                column_step = (per_column - b * (per_column[0] + per_column[1] + per_column[2])) / total
                row_step = (per_row - b * (per_row[0] + per_row[1] + per_row[2])) / total
                across = wp.vec3(float(column_step[0]), float(column_step[1]), float(column_step[2]))
                down = wp.vec3(float(row_step[0]), float(row_step[1]), float(row_step[2]))
        first = view * attributes_per_view
        i = (first + corners[0]) * channels
        j = (first + corners[1]) * channels
        k = (first + corners[2]) * channels
        for c in range(channels):
            change = wp.vec2(0.0)
            if known:
                # Differences first: what all three share must not be left of it by rounding.
                second = attributes[j + c] - attributes[i + c]
                third = attributes[k + c] - attributes[i + c]
                change = wp.vec2(across[1] * second + across[2] * third, down[1] * second + down[2] * third)
            derivatives[pixel * channels + c] = change
        column += lanes


def screen_derivatives(
    attributes: Tensor, face_ids: Tensor, clip: Tensor, faces: Tensor, attribute_faces: Tensor
) -> Tensor:
    """`[N, H, W, C, 2]`, without gradient; see `backend.rendering.screen_derivatives`."""
    attributes, clip, faces, attribute_faces = (
        tensor.detach().contiguous() for tensor in (attributes, clip, faces, attribute_faces)
    )
    (views, height, width), (attribute_count, channels) = face_ids.shape, attributes.shape[-2:]
    derivatives = torch.empty((views, height, width, channels, 2), device=clip.device)
    lanes = lanes_per_row(clip.device, width)
    launch(
        find_screen_derivatives,
        views * height * lanes,
        [attributes, face_ids, rows(clip), rows(faces), clip.shape[1], rows(attribute_faces)]
        + [attribute_count, attribute_count if attributes.dim() == 3 else 0, channels]
        + [height, width, lanes, rows(derivatives)],
    )
    return derivatives
