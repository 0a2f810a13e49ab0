"""The Khronos glTF validator, kept in the user's cache folder; it comes through npm, once, and then works offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import galatea
from backend.cache_folder import cache_folder

VERSION = "2.0.0-dev.3.10"
SCRIPT = """
const validator = require(process.argv[1]), fs = require('fs');
(async () => {
  const reports = {};
  for (const path of process.argv.slice(2))
    reports[path] = await validator.validateBytes(new Uint8Array(fs.readFileSync(path)), {maxIssues: 1000});
  console.log(JSON.stringify(reports));
})();
"""


def installed_validator() -> Path:
    """The package's folder. Skips the test where node, npm or the package cannot be had, unless CI is set: then it fails."""
    folder = cache_folder() / f"gltf-validator-{VERSION}"
    package = folder / "node_modules" / "gltf-validator"
    if shutil.which("node") is None or shutil.which("npm") is None:
        _give_up("node and npm are not on this machine; .ci/run installs them")
    with galatea.only_one(cache_folder(), lambda progress: None):
        if not (package / "gltf_validator.dart.js").exists():
            folder.mkdir(exist_ok=True)
            command = ["npm", "install", "--no-audit", "--no-fund", f"--prefix={folder}", f"gltf-validator@{VERSION}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                _give_up(f"gltf-validator cannot be installed here: {done.stderr.strip()[-300:]}")
    return package


def issues(paths: list[Path]) -> dict[str, list[str]]:
    """By file name, what the validator says: "severity code pointer message"; severity 0 is an error, 1 a warning."""
    command = ["node", "-e", SCRIPT, str(installed_validator()), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    reports = json.loads(done.stdout)
    return {
        Path(path).name: [
            f"{message['severity']} {message['code']} {message.get('pointer', '')} {message['message']}"
            for message in report["issues"]["messages"]
        ]
        for path, report in reports.items()
    }


def _give_up(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
