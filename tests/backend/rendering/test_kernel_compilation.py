"""The kernels compile for GPUs that this machine does not have, and are kept in the user's cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.rendering.kernels.cache import user_cache_folder

wp = pytest.importorskip("warp", reason="Warp has no build for this platform")


@pytest.mark.parametrize("architecture", [75, 86, 90, 120])
def test_every_kernel_compiles_for_cuda_without_a_gpu(architecture, tmp_path) -> None:
    from backend.rendering import kernels  # noqa: F401  (registers the kernels)
    from backend.rendering.kernels import runtime

    runtime.start()
    written = wp.compile_aot_module(runtime.module, arch=architecture, use_ptx=True, module_dir=str(tmp_path))
    ptx = "".join(Path(path).read_text() for path in written if str(path).endswith(".ptx"))
    for kernel in runtime.module.kernels:
        assert f"{kernel}_" in ptx, kernel
    assert f".target sm_{architecture}" in ptx


def test_cache_folder_follows_the_platform(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "galatea"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert user_cache_folder() == tmp_path / ".cache" / "galatea"
    monkeypatch.setattr("sys.platform", "darwin")
    assert user_cache_folder() == tmp_path / "Library" / "Caches" / "galatea"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert user_cache_folder() == tmp_path / "Local" / "galatea" / "cache"
    assert list(tmp_path.iterdir()) == []


def test_kernels_survive_a_cache_folder_that_cannot_be_made(monkeypatch, tmp_path) -> None:
    from backend.rendering.kernels.runtime import _writable_folder

    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    folder = _writable_folder(blocked / "warp")
    assert folder.is_dir() and blocked not in folder.parents
    assert _writable_folder(tmp_path / "warp" / "1") == tmp_path / "warp" / "1"
