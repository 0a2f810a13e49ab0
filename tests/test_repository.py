"""What the repository must not hold: machine paths, registry hosts, large files, unsafe loading, other spellings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".css", ".js", ".html", ".json", ".yml", ".yaml", ".sh", ""}
THIS = "tests/test_repository.py"  # it must name what it forbids

MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+|mnt)/|[A-Z]:\\\\?Users\\\\?\w+")
REGISTRY_HOSTS = re.compile(
    r"pypi\.(?:org|python)|pythonhosted|registry\.npmjs|deb\.debian|archive\.ubuntu|download\.pytorch\.org"
)
BRITISH = re.compile(
    r"(?:colour|rasteris|optimis|regularis|normalis|initialis|neighbour|behaviour|centre(?!d?line)|grey(?:scale)?\b"
    r"|parametris|discretis|visualis|serialis|licence|analys(?:e|es|ed|ing)\b)",
    re.IGNORECASE,
)


@cache
def tracked() -> tuple[str, ...]:
    """Paths of all files that git tracks and that are there."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in listing.split("\0") if name and (ROOT / name).is_file())


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def texts() -> list[str]:
    return [name for name in tracked() if Path(name).suffix in TEXT and name != "LICENSE"]


def sources() -> list[str]:
    return [name for name in tracked() if name.endswith(".py")]


def lines_with(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """`file:line: text` of every match."""
    found = []
    for name in names:
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    return found


def test_no_paths_of_one_machine() -> None:
    assert not lines_with(MACHINE_PATHS, [name for name in texts() if name != THIS])


def test_package_registries_are_not_named() -> None:
    launcher = {
        "galatea.py",
        "tests/backend/setup/test_launcher.py",
    }  # PyTorch's own index, and the test of its commands
    assert not lines_with(REGISTRY_HOSTS, [name for name in texts() if name not in {THIS, *launcher}])
    others = REGISTRY_HOSTS.pattern.removesuffix(r"|download\.pytorch\.org")
    assert not lines_with(re.compile(others), [name for name in texts() if name in launcher])


def test_american_spelling() -> None:
    """In what we write; what the prior's vocabulary understands of what people write is another matter."""
    exempt = {THIS, "backend/toybox/captions.py", "tests/backend/toybox/test_toybox_captions.py"}
    assert not lines_with(
        BRITISH, [name for name in texts() if Path(name).suffix in (".py", ".md") and name not in exempt]
    )


def test_files_are_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in tracked()}
    assert [name for name, size in sizes.items() if size > 15e6] == []
    assert sum(sizes.values()) < 30e6


def test_source_files_have_one_purpose() -> None:
    """A file that grows past this has two."""
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in sources()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def unsafe_calls(tree: ast.Module) -> list[str]:
    """Uses of pickle, and of `torch.load` and numpy's `allow_pickle` where they would unpickle."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                name for name in names if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "shelve")
            ]
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if ast.unparse(node.func) == "torch.load" and keywords.get("weights_only") != "True":
                found.append(ast.unparse(node))
            if keywords.get("allow_pickle", "False") != "False":
                found.append(ast.unparse(node))
    return found


def test_nothing_is_unpickled() -> None:
    found = {name: unsafe_calls(parsed(name)) for name in sources()}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "unsafe"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("import pickle", True),
        ("from pickle import loads", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path)", False),
    ],
)
def test_the_rule_itself(source: str, unsafe: bool) -> None:
    assert bool(unsafe_calls(ast.parse(source))) == unsafe


def third_parties() -> set[str]:
    """The top-level names of what our sources import of others."""
    found = set()
    for name in sources():
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    ours = {"backend", "protocol", "benchmarks", "tests", "galatea", "blender_addon", "build_addon"}
    blenders_own = {"bpy", "bmesh", "bl_ext", "bl_ui", "mathutils", "addon_utils", "gpu"}  # installed apart, for the tests only
    return found - set(sys.stdlib_module_names) - ours - blenders_own


def test_what_is_imported_is_what_is_pinned() -> None:
    """Nothing else is installed, but for two that other packages use where they find them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert [line for line in requirements if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []
    names = {"warp-lang": "warp", "pillow": "PIL", "scikit-image": "skimage", "pyzmq": "zmq", "opencv-python-headless": "cv2"}
    pinned = {names.get(name, name.replace("-", "_")) for name in (line.split("==")[0] for line in requirements)}
    through = {"accelerate": "diffusers loads large models with it", "manifold3d": "trimesh's exact booleans, in tests"}
    assert third_parties() - pinned == set(), "imported and not pinned"
    assert pinned - third_parties() == set(through), "pinned and not imported"


def test_constraints_pin_what_pyproject_does_not() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {line.split("==")[0] for line in project["dependencies"] + project["optional-dependencies"]["test"]}
    pins = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in pins)
    assert not {line.split("==")[0] for line in pins} & direct
