"""What tests of killed, starved and deceived servers share: waiting, processes, slow rasters, listeners, crafted files."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time

import numpy
import rasterio

from rasters import NORTH_UP

# Short delays, so that tests are; as short as a retry may be and still be told from the first attempt.
FAST = dict(GEOWORKER_RETRY_BASE_MS="50", GEOWORKER_SWEEP_SECONDS="1")
# Edge of a raster that takes seconds to encode at the archive tier's level.
SLOW_EDGE = 5000
POLL = 0.05


def until(condition, seconds=45, what="the condition"):
    """What the condition answers once it is true; every wait of the tests goes through here and is bounded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(POLL)
    raise AssertionError(f"{what} did not happen within {seconds} s")


# Processes


def children(pid):
    """Direct children, whichever thread started them."""
    found = []
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return found


def command_line(pid):
    try:
        return [part.decode(errors="replace") for part in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def native_children(pid):
    """Children that run a native operation."""
    return [child for child in children(pid) if "native-op" in command_line(child)]


def native_processes(program):
    """Every process of `program` on this machine that runs a native operation, orphans included."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and "native-op" in command_line(entry.name) and executable(entry.name) == str(program):
            found.append(int(entry.name))
    return found


def executable(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return None


def state(pid):
    """The kernel's letter for a process: T is stopped, Z is dead and not yet waited for; none is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def alive(pid):
    return state(pid) not in (None, "Z")


def send_signal(pid, number):
    """Whether the process was still there to be hit."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


# The server


@contextlib.contextmanager
def serving(geoworker, seconds=30):
    """A server that is ready; ended in order afterwards, and it must still be there for that."""
    log = geoworker.folder / "server.log"
    start = log.stat().st_size if log.exists() else 0
    server = geoworker.serve(log)
    until(lambda: server.poll() is not None or ready(log, start), seconds, "the server's start")
    assert server.poll() is None, f"the server ended at its start: {log.read_text()[start:]}"
    yield server
    assert server.poll() is None, f"the server ended by itself with {server.returncode}: {log.read_text()[-3000:]}"
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    assert "panicked" not in log.read_text()


def ready(log, start=0):
    return any(line.get("message", "").endswith(" serves") for line in log_lines(log, start))


def log_lines(log, start=0):
    """Whole JSON lines of a log; the last one may still be being written."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        with open(log, encoding="utf-8", errors="replace") as file:
            file.seek(start)
            for line in file:
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def submit(geoworker, job_type, **parameters):
    """Id of an accepted job."""
    pairs = [part for key, value in parameters.items() for part in ("--param", f"{key}={value}")]
    return geoworker.json("submit", job_type, *pairs)["job_id"]


def submit_raster(geoworker, name, **parameters):
    return submit(geoworker, "process_raster", container_name="in", blob_name=name, **parameters)


def shown(geoworker, job, events=False):
    return geoworker.json("jobs", "show", job, *(["--events"] if events else []))


def ended(geoworker, job):
    """The job where it is over."""
    found = shown(geoworker, job)
    return found if found["ended_at"] else None


def wait_for(geoworker, job, seconds=90):
    return until(lambda: ended(geoworker, job), seconds, f"the end of job {job[:12]}")


def events(geoworker, job, kind):
    return [event for event in shown(geoworker, job, events=True)["events"] if event["kind"] == kind]


def task_of(job, task_type):
    return next((task for task in job["tasks"] if task["task_type"] == task_type), None)


def nothing_left(geoworker, running=False):
    """No staged files and no scratch. A server that runs keeps a folder of its own in both, and locks it."""
    places = [geoworker.zone(zone) / ".staging" for zone in ("bronze", "silver")] + [geoworker.data / "scratch"]
    if running:
        return not [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return not [path for place in places for path in place.glob("*")]


# Rasters


def write_noise(path, edge=SLOW_EDGE, bands=3, levels=40, seed=1):
    """Noise: slow to compress, and it stays large."""
    noise = numpy.random.default_rng(seed)
    profile = dict(driver="GTiff", dtype="uint8", count=bands, width=edge, height=edge, crs="EPSG:32633", transform=NORTH_UP)
    with rasterio.open(path, "w", **profile) as target:
        for band in range(1, bands + 1):
            target.write(noise.integers(0, levels, (edge, edge), "uint8"), band)
    return path


ASCII, SHORT, LONG, LONG8, DOUBLE = 2, 3, 4, 16, 12
WIDTHS = {ASCII: 1, SHORT: 2, LONG: 4, LONG8: 8, DOUBLE: 8}
LETTERS = {ASCII: "s", SHORT: "H", LONG: "I", LONG8: "Q", DOUBLE: "d"}


def bigtiff(path, tags, blobs=b""):
    """A little-endian BigTIFF with one directory: {tag: (type, values)}. `blobs` lies at offset 16, before the directory;
    libraries would not write most of what the tests need."""
    entries, overflow = [], b""
    start = 16 + len(blobs)
    after = start + 8 + 20 * len(tags) + 8
    for tag, (kind, values) in sorted(tags.items()):
        data = values if kind == ASCII else struct.pack(f"<{len(values)}{LETTERS[kind]}", *values)
        count = len(data) // WIDTHS[kind]
        if len(data) <= 8:
            field = data.ljust(8, b"\0")
        else:
            field = struct.pack("<Q", after + len(overflow))
            overflow += data
        entries.append(struct.pack("<HHQ", tag, kind, count) + field)
    directory = struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0)
    pathlib.Path(path).write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) + blobs + directory + overflow)
    return path


# Places on the map for crafted TIFFs: EPSG:32633, 10 m pixels, north up.
GEOREFERENCE = {
    33550: (DOUBLE, (10.0, 10.0, 0.0)),
    33922: (DOUBLE, (0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0)),
    34735: (SHORT, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)),
}


# Surroundings


@contextlib.contextmanager
def mounted_disk(folder, megabytes):
    """A disk of its own below `folder`; none where this process may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Takes all the space that is left; answers the file to be removed."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize)
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.seek(0, os.SEEK_END)
                    file.write(b"\0" * size)
    return filler


class Listener:
    """Listens on the loopback and remembers who came."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.visitors = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self.socket.accept()
                self.visitors.append(peer)
                connection.close()

    def url(self, name="canary.tif"):
        return f"http://127.0.0.1:{self.port}/{name}"

    def close(self):
        """Ends the listening, after everything that came was accepted."""
        with contextlib.suppress(OSError):
            # Whoever connected before this is in front of it.
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            until(lambda: self.visitors, 5)
            self.visitors.pop()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)
