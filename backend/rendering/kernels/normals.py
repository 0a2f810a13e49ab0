"""Area-weighted vertex normals and their gradient."""

import torch
import warp as wp
from torch import Tensor

from backend.rendering import constants
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("normals")

SMALLEST_NORMAL = wp.constant(constants.SMALLEST_NORMAL)


@wp.kernel(module=module)
def sum_face_normals(
    vertices: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    sums: wp.array(dtype=wp.vec3),
):
    face = faces[wp.tid()]
    if wp.min(face) < 0 or wp.max(face) >= vertex_count:
        return
    p = vertices[face[0]]
    normal = wp.cross(vertices[face[1]] - p, vertices[face[2]] - p)
    if not wp.isfinite(normal):
        return
    wp.atomic_add(sums, face[0], normal)
    wp.atomic_add(sums, face[1], normal)
    wp.atomic_add(sums, face[2], normal)


@wp.kernel(module=module)
def normalize_rows(sums: wp.array(dtype=wp.vec3), normals: wp.array(dtype=wp.vec3)):
    vertex = wp.tid()
    total = sums[vertex]
    length = wp.length(total)
    if length > SMALLEST_NORMAL and wp.isfinite(length):
        normals[vertex] = total / length
    else:
        normals[vertex] = wp.vec3(0.0)


@wp.kernel(module=module)
def normalize_rows_backward(
    sums: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    grad_normals: wp.array(dtype=wp.vec3),
    grad_sums: wp.array(dtype=wp.vec3),
):
    vertex = wp.tid()
    length = wp.length(sums[vertex])
    if length > SMALLEST_NORMAL and wp.isfinite(length):
        normal = normals[vertex]
        grad = grad_normals[vertex]
        grad_sums[vertex] = (grad - normal * wp.dot(normal, grad)) / length
    else:
        grad_sums[vertex] = wp.vec3(0.0)


@wp.kernel(module=module)
def sum_face_normals_backward(
    vertices: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    vertex_count: int,
    grad_sums: wp.array(dtype=wp.vec3),
    grad_vertices: wp.array(dtype=wp.vec3),
):
    face = faces[wp.tid()]
    if wp.min(face) < 0 or wp.max(face) >= vertex_count:
        return
    p = vertices[face[0]]
    if not wp.isfinite(wp.cross(vertices[face[1]] - p, vertices[face[2]] - p)):
        return
    grad = grad_sums[face[0]] + grad_sums[face[1]] + grad_sums[face[2]]
    # n = e1 x e2, hence dL/de1 = e2 x g and dL/de2 = g x e1.
    grad_first = wp.cross(vertices[face[2]] - p, grad)
    grad_second = wp.cross(grad, vertices[face[1]] - p)
    wp.atomic_add(grad_vertices, face[0], -(grad_first + grad_second))
    wp.atomic_add(grad_vertices, face[1], grad_first)
    wp.atomic_add(grad_vertices, face[2], grad_second)


class _VertexNormals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vertices: Tensor, faces: Tensor) -> Tensor:
        vertices, faces = vertices.contiguous(), faces.contiguous()
        sums, normals = torch.zeros_like(vertices), torch.empty_like(vertices)
        launch(sum_face_normals, faces.shape[0], [rows(vertices), rows(faces), vertices.shape[0], rows(sums)])
        launch(normalize_rows, vertices.shape[0], [rows(sums), rows(normals)])
        ctx.save_for_backward(vertices, faces, sums, normals)
        return normals

    @staticmethod
    def backward(ctx, grad_normals: Tensor) -> tuple[Tensor, None]:
        vertices, faces, sums, normals = ctx.saved_tensors
        grad_sums, grad_vertices = torch.empty_like(sums), torch.zeros_like(vertices)
        launch(
            normalize_rows_backward,
            vertices.shape[0],
            [rows(sums), rows(normals), rows(grad_normals.contiguous()), rows(grad_sums)],
        )
        launch(
            sum_face_normals_backward,
            faces.shape[0],
            [rows(vertices), rows(faces), vertices.shape[0], rows(grad_sums), rows(grad_vertices)],
        )
        return grad_vertices, None


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """`[V, 3]` unit normals; see `backend.rendering.vertex_normals`."""
    return _VertexNormals.apply(vertices, faces)
