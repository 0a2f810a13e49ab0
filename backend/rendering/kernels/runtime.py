"""Starting Warp and launching kernels on torch tensors: the only place that knows both libraries' calling habits.

Each file of kernels is one Warp module, which a machine compiles when it is first used (a second or two, then kept in
the user's cache folder) and which CI can compile ahead of time for GPUs that it does not have. No kernel has a generated
adjoint: every backward pass is a hand-written kernel. On the CPU a launch is a plain single-threaded loop and atomics
are plain read-modify-write, so one launch at a time writes a buffer, in a fixed order: results repeat bit for bit.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch
import warp as wp
from torch import Tensor

from backend.cache_folder import cache_folder

wp.config.log_level = wp.LOG_WARNING  # no greeting, no line per compiled module

modules: list[wp.Module] = []
"""Those of all kernel files imported so far."""


def kernel_module(name: str, strict: bool = True) -> wp.Module:
    """The Warp module of one file of kernels, which goes as `@wp.kernel(module=module)` on each of them.

    `strict`: IEEE arithmetic without fused multiply-adds, so that visibility and its interpolation agree to the last
    bit, and so do a CPU and a GPU on ids.
    """
    module = wp.get_module(f"galatea_{name}")
    module.options["enable_backward"] = False
    module.options["optimization_level"] = 3
    module.options["fuse_fp"] = not strict
    modules.append(module)
    return module


_started = False


def start() -> None:
    """Initialize Warp once per process, with its kernel cache in a folder that can be written to."""
    global _started
    if _started:
        return
    wp.config.kernel_cache_dir = str(_kernel_folder())
    with nullcontext() if torch.cuda.is_available() else _silent_standard_error():
        wp.init()
    _started = True


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Warp's library tells the process's standard error that there is no GPU driver; no setting keeps it from that."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none to write to
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _kernel_folder() -> Path:
    """A folder for compiled kernels: the user's cache, or if that cannot be written one for this process alone."""
    try:
        folder = cache_folder() / "warp" / wp.config.version
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="galatea-warp-"))


def launch(kernel: wp.Kernel, count: int, arguments: list) -> None:
    """Run `kernel` over `count` threads on the device of its tensors and on torch's current stream there.

    A tensor goes in as a flat array of numbers, `rows(tensor)` as a flat array of vectors; other arguments are numbers.
    Tensors must be contiguous, which the callers see to; nothing is copied.
    """
    if count == 0:
        return
    start()
    values: list = []
    device = None
    for argument in arguments:
        if isinstance(argument, Tensor):
            argument = rows(argument, 1)
        if isinstance(argument, rows):
            device = argument.tensor.device
            argument = argument.descriptor()
        values.append(argument)
    if device.type == "cpu":
        wp.launch(kernel, dim=count, inputs=values, device="cpu", record_tape=False)
    else:
        # Torch's current stream, so that kernels and torch's own operations stay in order without waiting.
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device)), sync_enter=False):
            wp.launch(kernel, dim=count, inputs=values, device=wp.device_from_torch(device), record_tape=False)


def lanes_per_row(device: torch.device, width: int) -> int:
    """How many threads share a row of pixels: on a GPU one a pixel; on the CPU one, which walks along the row.

    Lane l takes the columns l, l + lanes and so on. What a row has in common is then worked out once on the CPU.
    """
    return 1 if device.type == "cpu" else width


class rows:
    """A tensor seen by a kernel as a flat array of vectors: its last dimension, or `length` numbers each."""

    __slots__ = ("length", "tensor")

    def __init__(self, tensor: Tensor, length: int | None = None) -> None:
        self.tensor = tensor
        self.length = tensor.shape[-1] if length is None else length

    def descriptor(self) -> object:
        """What Warp passes to a kernel: a copy of a template with another address and another number of rows.

        `wp.from_torch` takes several times as long, which small renders would notice.
        """
        tensor, length = self.tensor, self.length
        if not tensor.is_contiguous():
            raise ValueError(f"a kernel was given a tensor {list(tensor.shape)} that is not contiguous")
        template = _template(tensor.dtype, length)
        descriptor = type(template).from_buffer_copy(template)
        descriptor.data = tensor.data_ptr()
        descriptor.shape[0] = tensor.numel() // length
        return descriptor


@cache
def _template(dtype: torch.dtype, length: int) -> ctypes.Structure:
    example = torch.zeros((1, length), dtype=dtype)
    if length == 1:
        return wp.from_torch(example.view(1), requires_grad=False, return_ctype=True)
    return wp.from_torch(example, dtype=ROW_TYPES[dtype, length], requires_grad=False, return_ctype=True)


ROW_TYPES = {
    (torch.float32, 1): wp.types.vector(1, wp.float32),
    (torch.float32, 2): wp.vec2,
    (torch.float32, 3): wp.vec3,
    (torch.float32, 4): wp.vec4,
    (torch.int32, 2): wp.vec2i,
    (torch.int32, 3): wp.vec3i,
    (torch.int32, 4): wp.vec4i,
    (torch.int16, 4): wp.vec4s,
}
