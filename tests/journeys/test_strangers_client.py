"""A program that knows nothing of Galatea but protocol/SPEC.md talks to the real service.

The client imports nothing of Galatea: zmq carries the frames, msgpack the headers, struct the meshes. The tests are what
such a program relies on. Numbers in parentheses are sections of that document.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from tests.journeys.strangers_client import NOBODY, WISH, Client, Map, Mesh, Rows, read_mesh

ROOT = Path(__file__).resolve().parents[2]
Story = tuple[Client, str]  # who has followed a job to its end, and its id


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the real service, from when its connection file is there until it has ended."""
    folder = tmp_path_factory.mktemp("stranger") / "service"
    command = [sys.executable, "-P", "-m", "backend.cli", "serve", "--folder", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)
    try:
        limit = time.monotonic() + 60
        while not (folder / "connection.json").exists():
            assert process.poll() is None and time.monotonic() < limit, "The service does not start."
            time.sleep(0.05)
        yield folder
    finally:
        try:
            process.terminate()
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


@pytest.fixture
def connect(service: Path) -> Iterator[Callable[..., Client]]:
    """Makes clients that have sent nothing yet, and closes them after the test."""
    clients: list[Client] = []
    yield lambda **how: clients.append(Client(service, **how)) or clients[-1]
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    """A client that has been welcomed."""
    client = connect()
    client.hello()
    return client


@pytest.fixture(scope="module")
def mushroom(service: Path) -> Story:
    """A mushroom made in a few steps. Nothing was submitted that topology 0 could name, so all faces have to come."""
    with closing(Client(service)) as client:
        client.hello()
        job = client.submit(WISH)
        client.follow(job, topology=0)
        return client, job


def ball() -> Mesh:
    """An octahedron, each face split into four three times, blown up to a ball of radius 0.5."""

    def middle(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
        between = [x + y for x, y in zip(a, b, strict=True)]
        return tuple(0.5 * x / math.hypot(*between) for x in between)

    octants = [((x, 0, 0), (0, y, 0), (0, 0, z)) for x, y, z in itertools.product((-0.5, 0.5), repeat=3)]
    triangles: Rows = [(a, b, c) if a[0] * b[1] * c[2] > 0 else (a, c, b) for a, b, c in octants]
    for _ in range(3):
        split = [(a, b, c, middle(a, b), middle(b, c), middle(c, a)) for a, b, c in triangles]
        triangles = [t for a, b, c, ab, bc, ca in split for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    places = {point: place for place, point in enumerate(dict.fromkeys(itertools.chain(*triangles)))}
    return Mesh(list(places), [tuple(places[point] for point in t) for t in triangles], [(0.8, 0.2, 0.2)] * len(places))


def test_hello_is_answered_by_welcome(connect: Callable[..., Client]) -> None:
    """Welcome says which service it is, as the connection file does, and which session the handshake proved (1, 3, 7)."""
    client = connect()
    welcome = client.hello()
    assert all(welcome[key] == client.file[key] for key in ("protocol", "service", "instance"))
    assert welcome["session"] == client.session
    assert "toybox" in welcome["priors"] and {"generate", "refine"} <= set(welcome["recipes"]) and welcome["devices"]


def test_a_wrong_token_is_turned_away(connect: Callable[..., Client]) -> None:
    """Neither socket gets through its handshake (3)."""
    client, ends = connect(token="0" * 64), (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert [client.monitored(name, *ends) for name in client.sockets] == [(zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)] * 2


def test_before_hello_and_from_other_versions_everything_is_refused(connect: Callable[..., Client]) -> None:
    """On both sockets; the connection stays, and a right Hello is still welcome (5, 6, 14)."""
    client = connect()
    assert client.refusal("control", "Ping") == "invalid"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "invalid"
    client.tell("control", "Hello", protocol=3, client="a stranger from later")
    refused = client.receive("control", "Refused")
    assert (refused["code"], refused["request"]) == ("version", None) and refused["message"]
    assert client.hello()["session"] == client.session


def test_an_unknown_job_is_refused(client: Client) -> None:
    """Under the number of the request; without one for Grant, which has none (4, 8)."""
    for type in ("Watch", "Steer", "Pause", "Resume", "Cancel"):
        assert client.refusal("control", type, job=NOBODY) == "unknown_job"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "unknown_job"
    client.tell("bulk", "Grant", job=NOBODY)
    refused = client.receive("bulk", "Refused")
    assert (refused["code"], refused["request"]) == ("unknown_job", None)


def test_a_malformed_message_is_refused_and_does_nothing_else(client: Client) -> None:
    """By one Refused, under the number that the message shows; the connection stays (5)."""
    for number, header in (
        (None, "not a map"),
        (None, {"type": "Ping"}),  # a field missing, and it is the number itself
        (5, {"type": "Watch", "request": 5}),  # another field missing
        (5, {"type": "Fetch", "request": 5, "job": NOBODY}),  # a type that is not for this socket
        (5, {"type": "Ping", "request": 5, "more": 1}),  # an unknown field
        (5, {"type": "ListJobs", "request": 5, "limit": 2.0}),  # a float for an int
        (5, {"type": "Watch", "request": 5, "job": "A" * 32}),  # hex digits in uppercase
        (5, {"type": "Steer", "request": 5, "job": NOBODY, "strength": math.nan}),
    ):
        client.heard.clear()
        client.sockets["control"].send(msgpack.packb(header))
        refused = client.receive("control", "Refused")
        assert (refused["code"], refused["request"]) == ("invalid", number), header
        assert client.ask("control", "Ping")["type"] == "Pong"
        assert [message["type"] for _, message in client.heard].count("Refused") == 1


def test_an_oversized_header_is_refused(client: Client, connect: Callable[..., Client]) -> None:
    """The connection stays (4), but on control, where it is beyond ZeroMQ's own limit for a frame (2)."""
    client.sockets["bulk"].send(b"x" * 65_537)
    assert client.receive("bulk", "Refused")["code"] == "too_large"
    assert client.refusal("bulk", "Fetch", job=NOBODY) == "unknown_job"
    client.sockets["control"].send(b"x" * 65_537)
    client.monitored("control", zmq.EVENT_DISCONNECTED)
    assert connect(session=client.session).hello()["session"] == client.session


def test_a_broken_mesh_is_refused_and_makes_no_job(client: Client) -> None:
    """NaN, an index beyond the last vertex, a color above 1 or a short buffer: section 9 holds for submissions, too."""
    nan, beyond, bright = struct.pack("<f", math.nan), struct.pack("<i", 258), struct.pack("<f", 1.5)
    for place, start in ((0, nan), (1, beyond), (2, bright), (2, b"")):
        job, (header, buffers) = secrets.token_hex(16), ball().parts()
        buffers[place] = start + buffers[place][4:]
        wish = {**WISH, "command": "refine"}
        assert client.refusal("bulk", "Submit", *buffers, job=job, job_request=wish, mesh=header) == "invalid"
        assert client.refusal("control", "Watch", job=job) == "unknown_job"


def test_a_job_is_followed_by_its_events_and_snapshots_to_its_result(mushroom: Story) -> None:
    """What was received was checked on arrival; this is how one message follows the other (8 to 11)."""
    (maker, job), result = mushroom, mushroom[0].results[mushroom[1]]
    happenings = [event["happening"] for event in maker.events(job)]
    assert [event["number"] for event in maker.events(job)] == list(range(1, len(happenings) + 1))
    assert [one["type"] for one in happenings if one["type"] != "Warned"] == ["Queued", "Started", "Finished"]
    assert [happenings[-1][key] for key in ("step", "vertices", "faces")] == [12, len(result.positions), len(result.faces)]
    assert max(math.hypot(*position) for position in result.positions) <= 1  # inside the unit sphere
    assert result.volume() > 0  # faces look outward
    topology = serial = 0
    for one in maker.snapshots:
        assert one["serial"] > serial and 1 <= one["step"] <= 12 and one["topology"] > 0 and one["mesh"]["colors"]
        assert (one["mesh"]["faces"] == 0) == (one["topology"] == topology)  # faces come with every new topology
        topology, serial = one["topology"], one["serial"]
    assert serial > 0, "credit was granted, and no snapshot came"


def test_the_same_submission_again_makes_no_second_job(client: Client, mushroom: Story) -> None:
    """It is accepted again; another one under the same id, or a change of what has finished, is a conflict (6, 8)."""
    (maker, job), before = mushroom, client.ask("control", "ListJobs")["jobs"]
    assert client.submit(WISH, job=job) == job
    assert client.refusal("bulk", "Submit", job=job, job_request={**WISH, "prompt": "a red mug"}) == "conflict"
    for type in ("Steer", "Pause", "Resume", "Cancel"):
        assert client.refusal("control", type, job=job) == "conflict"
    jobs = client.ask("control", "ListJobs")["jobs"]
    summary = [(one["state"], one["step"], one["last_event"]) for one in jobs if one["job"] == job]
    assert jobs == before and summary == [("finished", 12, len(maker.events(job)))]


def test_another_session_gets_the_events_it_wants_again(client: Client, mushroom: Story) -> None:
    """Jobs belong to the service, and `after` alone says what is sent, whoever has acknowledged what (6, 12)."""
    (maker, job), last = mushroom, len(mushroom[0].events(mushroom[1]))
    assert client.ask("control", "Watch", job=job, after=last)["type"] == "Done"
    quiet = time.monotonic() + 0.7
    client.wait(lambda: time.monotonic() > quiet)
    assert client.events(job) == []
    assert client.ask("control", "Watch", job=job, after=0)["type"] == "Done"
    client.wait(lambda: len(client.events(job)) >= last)
    assert client.events(job) == maker.events(job)
    assert client.ask("control", "Ping")["last_events"] == {job: last}
    client.tell("control", "Unwatch", job=job)
    assert client.ask("control", "Ping")["last_events"] == {}


def test_pause_steer_resume_and_cancel(client: Client) -> None:
    """Each is Done and is an event once, and Done again where there is nothing left to do (6, 10)."""
    job = client.submit({**WISH, "steps": 300})

    def done(type: str, happening: str, **fields: Any) -> Map:
        assert client.ask("control", type, job=job, **fields)["type"] == "Done"
        return client.wait(lambda: client.happened(job, happening))

    assert done("Watch", "Started", after=0)["step"] == 0
    assert client.refusal("bulk", "Fetch", job=job) == "conflict"
    paused = done("Pause", "Paused")["step"]
    done("Pause", "Paused")
    steered = done("Steer", "Steered", prompt="a blue mushroom", strength=0.7)
    assert [steered[key] for key in ("prompt", "negative_prompt", "strength")] == ["a blue mushroom", "", 0.7]
    assert done("Resume", "Resumed")["step"] == paused
    done("Resume", "Resumed")
    client.wait(lambda: any(m["type"] == "Progress" and m["step"] > paused for _, m in client.heard))
    cancelled = done("Cancel", "Cancelled")
    assert cancelled["step"] > paused and cancelled["resumable"]
    done("Cancel", "Cancelled")
    assert client.refusal("control", "Pause", job=job) == "conflict"
    newest = client.ask("control", "ListJobs", limit=1)["jobs"][0]
    assert [newest[key] for key in ("job", "state", "prompt", "total")] == [job, "cancelled", "a blue mushroom", 300]
    expected = ["Queued", "Started", "Paused", "Steered", "Resumed", "Cancelled"]
    assert [(one["number"], one["happening"]["type"]) for one in client.events(job)] == list(enumerate(expected, 1))


def test_refining_keeps_the_vertices_and_faces_that_were_sent(client: Client) -> None:
    """Snapshots granted with topology 0 leave those faces out, even the first; -1 has them sent (8, 11)."""
    mesh = ball()
    job = client.submit({**WISH, "command": "refine"}, mesh)
    client.faces[job, 0] = mesh.faces
    client.tell("bulk", "Grant", job=job, topology=0)
    serial = client.wait(lambda: client.snapshots)[0]["serial"]
    client.tell("bulk", "Grant", job=job, after=serial, topology=-1)
    client.wait(lambda: len(client.snapshots) == 2)
    result = client.follow(job, topology=0)
    came = [(one["topology"], one["mesh"]["faces"]) for one in client.snapshots]
    assert came == [(0, 0), (0, 512)] + [(0, 0)] * (len(came) - 2)
    assert result.faces == mesh.faces and len(result.positions) == len(mesh.positions) and result.colors
    assert 0 < max(map(math.dist, mesh.positions, result.positions)) < 0.25 and result.volume() > 0


def red_disc() -> tuple[Map, bytes]:
    """A picture of 24 x 20 pixels, cut out, and the header that says so."""
    rows = [[(230, 20, 30, 255) if math.hypot(x - 11.5, y - 9.5) < 7 else (0, 0, 0, 0) for x in range(24)] for y in range(20)]
    return {"width": 24, "height": 20}, bytes(itertools.chain(*itertools.chain(*rows)))


def test_outside_of_its_region_a_mesh_stays_while_it_follows_a_picture(client: Client) -> None:
    """Buffers come in the order mesh, pictures, masks; 0 in a mask keeps every bit (8, 9)."""
    mesh, (header, pixels) = ball(), red_disc()
    mask = [min(1.0, max(0.0, 5 * y)) for _, y, _ in mesh.positions]
    wish = {**WISH, "command": "refine", "strength": 1.0, "references": [{"azimuth": 45.0}], "regions": [{"prompt": "a red mug"}]}
    job = client.submit(wish, mesh, None, pixels, struct.pack(f"<{len(mask)}f", *mask), pictures=[header])
    client.faces[job, 0] = mesh.faces
    result = client.follow(job, topology=0)
    sent = read_mesh(*mesh.parts()).positions  # as float32
    moved = [a != b for a, b in zip(sent, result.positions, strict=True)]
    assert not any(one for one, free in zip(moved, mask) if free == 0.0) and all(one for one, free in zip(moved, mask) if free == 1.0)


def test_broken_pictures_and_masks_are_refused_and_make_no_job(client: Client) -> None:
    """Also where numbers do not agree, and a prompt of nothing without a picture (8, 9)."""
    mesh, (header, pixels) = ball(), red_disc()
    of_mesh, buffers = mesh.parts()
    count, nan = len(mesh.positions), struct.pack("<f", math.nan)
    good, picture = struct.pack(f"<{count}f", *[1.0] * count), {**WISH, "prompt": " ", "references": [{}]}
    region = {**WISH, "command": "refine", "regions": [{}]}
    many = {**WISH, "command": "refine", "regions": [{}] * 9}
    for code, wish, fields, more in (
        ("invalid", picture, {"pictures": [header]}, [pixels[:-1]]),
        ("invalid", picture, {"pictures": [header]}, []),
        ("invalid", picture, {}, []),
        ("invalid", picture, {"pictures": [{"width": 4096, "height": 16}]}, [pixels]),
        ("invalid", region, {"mesh": of_mesh}, [*buffers, nan + good[4:]]),
        ("invalid", region, {"mesh": of_mesh}, [*buffers, good, good]),
        ("invalid", region, {"mesh": of_mesh}, buffers),
        ("invalid", many, {"mesh": of_mesh}, [*buffers, *[good] * 9]),
        ("input", {**WISH, "regions": [{}]}, {}, []),
        ("input", {**WISH, "prompt": " "}, {}, []),
    ):
        job = secrets.token_hex(16)
        assert client.refusal("bulk", "Submit", *more, job=job, job_request=wish, **fields) == code, (wish, fields)
        assert client.refusal("control", "Watch", job=job) == "unknown_job"


def test_shutdown_ends_the_service_and_takes_its_file_away(service: Path, client: Client) -> None:
    """Done comes last; then nobody listens, and a client that looks for the file finds none (1, 6)."""
    assert client.ask("control", "Shutdown")["type"] == "Done"
    client.monitored("control", zmq.EVENT_DISCONNECTED)
    assert not (service / "connection.json").exists()
