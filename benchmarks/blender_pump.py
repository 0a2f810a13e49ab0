"""How long Galatea's pump holds Blender's main thread for one call, whatever the service does: `python -m benchmarks.blender_pump`.

The built extension is installed in the bpy modules of the tests; its pump is called as its timer would, 30 times a second,
while a real service works on a real job, is stopped in mid-job (SIGSTOP), is killed; and while one that is not Galatea's
floods the client with valid messages and new topologies of 100k vertices as fast as they go. Milliseconds on the clock, so
waiting for the interpreter lock and for other processes counts; the last column is the main thread's processor time alone.
The target is 16 ms, and 50 ms for a call that shows a new topology of 100k vertices.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 8.0


def main() -> int:
    from tests.blender.blender import Blender, build_zip
    from tests.blender.environments import RELEASES, make_environment

    if sys.argv[1:2] == ["--flood"]:
        flood(Path(sys.argv[2]))
        return 0
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print(f"{'Blender':13}{'the service':24}{'calls':>6}{'median ms':>11}{'99 % ms':>9}{'worst ms':>10}{'updates':>9}{'state':>12}{'worst CPU ms':>14}")
    with tempfile.TemporaryDirectory() as folder:
        zip_file = build_zip(sys.executable, Path(folder) / "zip")
        for release in RELEASES.values():
            blender = Blender(make_environment(release), Path(folder) / release.name, Path, lambda: zip_file)
            for row in [*real_service(blender, Path(folder)), *flooding_service(blender, Path(folder))]:
                print(f"{release.name:13}" + table_row(**row))
    return 0


def table_row(what: str, calls: list[tuple[float, float]], updates: int, state: str) -> str:
    values, busy = np.array(calls).T
    figures = f"{len(values):6}{np.median(values):11.3f}{np.quantile(values, 0.99):9.2f}{values.max():10.2f}"
    return f"{what:24}{figures}{updates:9}{state:>12}{busy.max():14.2f}"


def real_service(blender, folder: Path) -> list[dict]:
    from tests.journeys.service import Service

    with Service(folder / f"service-{blender.name}") as service, blender.start(
        measure, ["working", "stopped", "killed"], SECONDS, folder / "now", extension="installed",
        variables={"GALATEA_SERVICE_FOLDER": str(service.folder)},
    ) as running:  # fmt: skip
        for what, number in (("stopped", signal.SIGSTOP), ("killed", signal.SIGKILL)):
            wait_for(folder / "now", what, running)
            os.kill(service.process.pid, number)
            (folder / "now").write_text("done", encoding="utf-8")
        return running.result(120)


def flooding_service(blender, folder: Path) -> list[dict]:
    place = folder / f"flood-{blender.name}"
    place.mkdir(mode=0o700)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.blender_pump", "--flood", str(place)], cwd=ROOT)
    try:
        variables = {"GALATEA_SERVICE_FOLDER": str(place)}
        return blender.run(measure, ["flooding"], SECONDS, folder / "now", extension="installed", variables=variables, timeout=120)
    finally:
        process.kill()
        process.wait()


def wait_for(file: Path, content: str, running) -> None:
    while not file.exists() or file.read_text(encoding="utf-8") != content:
        assert running.process.poll() is None, running.output()
        time.sleep(0.05)


def measure(phases: list[str], seconds: float, now: str) -> list[dict]:
    """Runs in Blender: begins a job, and times the pump's calls in each phase once the caller has brought it about."""
    import importlib
    import pathlib
    import time

    import bpy

    def part(name: str):
        return importlib.import_module(f"bl_ext.user_default.galatea.{name}")

    pump, session = part("pump").pump, part("session")
    settings = bpy.context.window_manager.galatea
    settings.prompt, settings.steps = "a red mushroom with a white stem", 5000
    bpy.ops.galatea.generate()
    live = session.jobs()[-1]
    deadline = time.monotonic() + 60
    while live.shown is None:
        assert time.monotonic() < deadline, (live, session.current().connection)
        pump(time.monotonic())
        time.sleep(1 / 30)
    rows = []
    for phase in phases:
        if phase != phases[0]:
            file = pathlib.Path(now)
            file.write_text(phase, encoding="utf-8")
            while file.read_text(encoding="utf-8") != "done":
                time.sleep(0.02)
        calls, updates, shown, rebuilt, rebuilds = [], 0, live.shown, live.topology_shown, []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin, busy = time.perf_counter(), time.thread_time()
            pump(time.monotonic())
            took = 1000 * (time.perf_counter() - begin), 1000 * (time.thread_time() - busy)
            large = live.topology_shown != rebuilt and live.shown.vertices > 20_000
            (rebuilds if large else calls).append(took)
            rebuilt = live.topology_shown
            updates += live.shown is not shown
            shown = live.shown
            time.sleep(1 / 30)
        state = session.current().connection.state
        rows.append({"what": phase, "calls": calls, "updates": updates - len(rebuilds), "state": state})
        if rebuilds:
            rows.append({"what": "  with a new topology", "calls": rebuilds, "updates": len(rebuilds), "state": state})
    return rows


def flood(folder: Path) -> None:
    """Answers what must be answered and sends without end what nobody asked for, all of it valid."""
    import zmq

    from backend.service.authentication import Authentication, Domain, require
    from protocol import messages as m
    from protocol.codec import apply_limits, decode, encode
    from protocol.location import Connection, write_connection
    from protocol.mesh_codec import mesh_frames

    context, token, instance = zmq.Context(), secrets.token_hex(32), secrets.token_hex(16)
    authentication = Authentication(context, {"clients": Domain(token)})
    control, bulk = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    ports = []
    for socket, is_bulk in ((control, False), (bulk, True)):
        apply_limits(socket, bulk=is_bulk)
        require(socket, "clients")
        ports.append(socket.bind_to_random_port("tcp://127.0.0.1"))
    write_connection(folder, Connection(m.PROTOCOL, "0", instance, os.getpid(), *ports, token))
    meshes = [mesh_frames(wave(phase, turned)) for phase, turned in ((0.0, 0), (0.3, 1))]
    peers: dict[zmq.Socket, bytes] = {}
    job, number, serial = None, 0, 0

    def send(socket: zmq.Socket, message: m.Message, buffers=()) -> None:
        if socket in peers:
            try:
                socket.send_multipart([peers[socket], *encode(message, buffers)], zmq.NOBLOCK)
            except zmq.ZMQError:
                pass

    while True:
        if authentication.socket.poll(0):
            authentication.answer()
        for socket, kinds in ((control, m.ToServiceControl), (bulk, m.ToServiceBulk)):
            while socket.poll(0):
                sender, *frames = socket.recv_multipart(copy=False)
                peers[socket] = sender.bytes
                match decode([frame.buffer for frame in frames], kinds).message:
                    case m.Hello():
                        session = sender.get("User-Id")
                        send(control, m.Welcome(m.PROTOCOL, "0", instance, session, ("toybox",), ("generate",), ("cpu",)))
                    case m.Ping(request=request):
                        send(control, m.Pong(request, instance))
                    case m.Submit(request=request, job=new):
                        job = new
                        send(bulk, m.Accepted(request, new))
                    case m.Watch(request=request):
                        send(control, m.Done(request))
        if job:
            number, serial = number + 1, serial + 1
            send(control, m.Progress(job, "running", "flooding", number, 10**6, 0, 1.0, 0.1, 1.0))
            send(control, m.JobEvent(job, number, time.time(), m.Warned(f"Warning {number}.")))
            header, buffers = meshes[serial % 2]
            send(bulk, m.Snapshot(job, serial, number, serial, header), buffers)
        else:
            time.sleep(0.01)


def wave(phase: float, turned: int):
    """A sheet of 100k vertices; `turned` gives it another order of faces, which is another topology."""
    from protocol.mesh_codec import Mesh

    side = 317
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, side), np.linspace(-0.7, 0.7, side))
    positions = np.stack([x, y, 0.1 * np.sin(9 * x + phase)], -1).reshape(-1, 3).astype(np.float32)
    low = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate([np.stack([low, low + 1, low + side], 1), np.stack([low + 1, low + side + 1, low + side], 1)])
    faces = np.roll(faces, turned, axis=0)
    return Mesh(positions, np.ascontiguousarray(faces, np.int32), np.full_like(positions, 0.5))


if __name__ == "__main__":
    sys.exit(main())
