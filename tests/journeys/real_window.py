"""Galatea in a real Blender window, by script: `python -m tests.journeys.real_window --pictures docs/images`.

Debian's own Blender runs in a folder of its own (made once by mmdebstrap: 100 s, 1.2 GB) under Xvfb with software
OpenGL, the service runs outside it from this checkout, and `window_script.py` sits in that Blender and acts as an
artist would: it types the prompt, clicks Generate, looks on, clicks Accept. Needs Linux, root and mmdebstrap.
Everything is mounted in a mount namespace of its own, which ends with its processes: nothing can stay mounted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from backend.cache_folder import cache_folder
from tests.blender.blender import build_zip
from tests.blender.environments import ROOT, ensure
from tests.journeys.service import Service

PACKAGES = (
    "blender,python3-numpy,python3-cattr,python3-requests,xvfb,libgl1-mesa-dri,libegl-mesa0,libglx-mesa0,xdotool,imagemagick"
)
WIDTH, HEIGHT = 1400, 900

# $1: the root folder, $2: what is shared with it, $3: the service's folder. Xvfb picks a free display number itself.
IN_NAMESPACE = r"""
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
mkdir "$1/tmp/share" "$1/tmp/service" "$1/tmp/home"
mount --bind "$2" "$1/tmp/share"
mount --bind "$3" "$1/tmp/service"
exec chroot "$1" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp/home LANG=C.UTF-8 LIBGL_ALWAYS_SOFTWARE=1 \
    GALATEA_SERVICE_FOLDER=/tmp/service sh /tmp/share/in_root.sh
"""
IN_ROOT = f"""
Xvfb -displayfd 3 -screen 0 {WIDTH}x{HEIGHT}x24 -nolisten tcp 3>/tmp/display 2>/tmp/xvfb.log &
for _ in $(seq 200); do [ -s /tmp/display ] && break; sleep 0.1; done
export DISPLAY=":$(cat /tmp/display)"
blender --factory-startup --gpu-backend opengl --window-geometry 0 0 {WIDTH} {HEIGHT} --python-exit-code 3 \
    --python /tmp/share/window_script.py -- /tmp/share/task.json
code=$?
kill %1
exit $code
"""


class NoWindow(Exception):
    """There cannot be a window on this machine; the message says why."""


def window_root() -> Path:
    """The folder of a Debian with Blender in it: GALATEA_WINDOW_ROOT, else one in the cache folder, made on first use.

    Raises NoWindow.
    """
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("unshare"):
        raise NoWindow("a real window needs Linux and root (for a mount namespace and chroot)")
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        raise NoWindow("a real window needs to mount things, which is forbidden here")
    given = os.environ.get("GALATEA_WINDOW_ROOT")
    if given:
        return Path(given)
    if not shutil.which("mmdebstrap"):
        raise NoWindow("a real window needs mmdebstrap (apt install mmdebstrap), or GALATEA_WINDOW_ROOT")
    folder = cache_folder() / "blender" / "debian-sid"
    folder.parent.mkdir(exist_ok=True)

    def fill(unfinished: Path) -> None:
        unfinished.chmod(0o755)
        options = ["--variant=apt", "--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=APT::Install-Recommends \"false\""]
        command = ["mmdebstrap", *options, f"--include={PACKAGES}", "sid", str(unfinished)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if made.returncode:
            raise NoWindow(f"mmdebstrap failed: {made.stderr.strip()[-600:]}")

    ensure(folder, [PACKAGES], fill)
    return folder


def run_in_window(root: Path, zip_file: Path, service: Path, share: Path, task: dict, timeout: float) -> dict:
    """What `window_script.py` reports; its pictures are in `share`. `service` is the folder of a running service.

    Raises AssertionError with Blender's output if the script failed or was not done in `timeout` seconds.
    """
    shutil.copy(Path(__file__).with_name("window_script.py"), share)
    shutil.copy(zip_file, share / "galatea.zip")
    (share / "in_root.sh").write_text(IN_ROOT, encoding="utf-8")
    (share / "task.json").write_text(json.dumps(task), encoding="utf-8")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", IN_NAMESPACE, "sh"]
    command += [str(root), str(share), str(service)]
    with (share / "output.txt").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
    output = (share / "output.txt").read_text(encoding="utf-8", errors="replace")
    how = "ran out of time" if code is None else f"ended with {code}"
    assert code == 0 and (share / "report.json").exists(), f"Blender {how}:\n{output[-6000:]}"
    return json.loads((share / "report.json").read_text(encoding="utf-8"))


def end_group(process: subprocess.Popen) -> None:
    """Kills a process started in a session of its own, and all it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs Galatea in a real Blender window and takes pictures of it.")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures (default: they are thrown away)")
    parser.add_argument("--prompt", default="a red mushroom with a white stem")
    parser.add_argument("--steps", type=int, default=0, help="steps of the job; 0: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--film", type=float, default=0.0, help="also a moving picture, with a frame every so many seconds")
    arguments = parser.parse_args()
    try:
        root = window_root()
    except NoWindow as error:
        print(f"real_window: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="galatea-window-") as folder:
        share = Path(folder) / "share"
        share.mkdir()
        zip_file = build_zip(sys.executable, Path(folder) / "zip")
        task = {"prompt": arguments.prompt, "steps": arguments.steps, "seed": arguments.seed, "film": arguments.film}
        with Service(Path(folder) / "service") as service:
            service.wait_until_warm()
            report = run_in_window(root, zip_file, service.folder, share, task, timeout=600)
        print(summary(report))
        if arguments.pictures:
            keep_pictures(share, report["pictures"], arguments.pictures)
    return 0


def summary(report: dict) -> str:
    lines = [f"Blender {report['blender']} with Python {report['python']}"]
    lines += [f"Generate pressed to the first visible change of a step: {report['first_visible_seconds']:.2f} s"]
    lines += [f"{len(report['updates'])} updates and {report['drawings']} drawings of them in {report['job_seconds']:.0f} s"]
    return "\n".join([*lines, f"accepted: {report['accepted']}"])


def keep_pictures(share: Path, names: list[str], folder: Path) -> None:
    """The pictures as they are, the film at half the width."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with Image.open(share / f"{name}.png") as picture:
            picture.convert("RGB").save(folder / f"window-{name}.png", optimize=True)
    frames = []
    film = sorted(share.glob("film-*.png"))
    for path in [*film, share / "finished.png"] if film else []:
        with Image.open(path) as frame:
            frames.append(frame.convert("RGB").resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS))
    if frames:
        lengths = [200] * (len(frames) - 1) + [2500]
        frames[0].save(folder / "window.webp", save_all=True, append_images=frames[1:], duration=lengths, loop=0, quality=60, method=6)


if __name__ == "__main__":
    sys.exit(main())
