"""The kernels compile for GPUs that this machine does not have, and the compiled ones are kept."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

wp = pytest.importorskip("warp", reason="Warp has no build for this platform")


@pytest.mark.parametrize("architecture", [75, 86, 90, 120])
def test_every_kernel_compiles_for_cuda_without_a_gpu(architecture, tmp_path) -> None:
    from backend.rendering import kernels
    from backend.rendering.kernels import runtime

    for file in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{file.name}")
    runtime.start()
    assert len(runtime.modules) >= 6
    for module in runtime.modules:
        written = wp.compile_aot_module(module, arch=architecture, use_ptx=True, module_dir=str(tmp_path))
        ptx = "".join(Path(path).read_text() for path in written if str(path).endswith(".ptx"))
        assert module.kernels
        for kernel in module.kernels:
            assert f"{kernel}_" in ptx, kernel
        assert f".target sm_{architecture}" in ptx


def test_visibility_is_compiled_without_fused_multiply_adds(tmp_path) -> None:
    # Both faces at a shared edge must get the same number with opposite signs, and a GPU the same ids as a CPU. In PTX
    # a multiplication or addition that names no rounding may still be fused later, so all must name it.
    from backend.rendering.kernels import runtime, visibility

    runtime.start()
    written = wp.compile_aot_module(visibility.module, arch=86, use_ptx=True, module_dir=str(tmp_path))
    ptx = "".join(Path(path).read_text() for path in written if str(path).endswith(".ptx"))
    assert "mul.rn.f64" in ptx and "add.rn.f64" in ptx
    assert not re.findall(r"\b(?:fma|mad)\S*\.f64|\b(?:mul|add|sub)\.f64", ptx)


def test_kernels_are_kept_in_the_users_cache_or_in_a_folder_of_their_own(monkeypatch, tmp_path) -> None:
    from backend.rendering.kernels import runtime

    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path / "cache")
    assert runtime._kernel_folder() == tmp_path / "cache" / "warp" / wp.config.version
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path / "file")
    folder = runtime._kernel_folder()
    assert folder.is_dir() and tmp_path / "file" not in folder.parents
