"""A fresh data directory for every test, and the binary that is tested."""

import json
import os
import pathlib
import subprocess
import time

import pytest

from postgres import Postgres

pytest_plugins = ["cloud_fixtures"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "bin" / "geoworker"
SHARED = ROOT.parent / "shared" / "data"


class Geoworker:
    """Runs the binary on one data directory."""

    def __init__(self, folder, **environment):
        self.folder = folder
        self.data = folder / "data"
        plain = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.servers = []
        usual = {"GEOWORKER_PLUGINS": str(ROOT / "plugins/dist"), "GEOWORKER_HTTP": "127.0.0.1:0"}
        self.environment = plain | usual | environment

    def command(self, *arguments):
        return [str(BINARY), "--data-dir", str(self.data), *map(str, arguments)]

    def run(self, *arguments, code=0, timeout=120):
        """Runs a command, checks its exit status and answers its standard output."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "panicked" not in done.stderr, done.stderr
        return done.stdout

    def json(self, *arguments, code=0, timeout=120):
        return json.loads(self.run("--json", *arguments, code=code, timeout=timeout))

    def put(self, path, name=None):
        name = name or pathlib.Path(path).name
        self.run("blobs", "put", path, f"bronze/in/{name}")
        return name

    def process(self, name, code=0, **parameters):
        """Runs process_raster on a blob and answers the job."""
        pairs = {"container_name": "in", "blob_name": name} | parameters
        arguments = [part for key, value in pairs.items() for part in ("--param", f"{key}={value}")]
        return self.json("run", "process_raster", *arguments, code=code)

    def zone(self, zone):
        return self.data / "zones" / zone

    def silver(self, blob):
        return self.zone("silver") / blob["container"] / blob["name"]

    def published(self):
        """Everything that can be seen in the silver zone."""
        files = self.zone("silver").rglob("*")
        return sorted(str(f.relative_to(self.zone("silver"))) for f in files if f.is_file() and ".staging" not in f.parts)

    def serve(self, log=None, ready=True):
        """Starts a server and waits until it serves: a signal before that would find nobody who listens."""
        log = pathlib.Path(log or self.folder / "server.log")
        before = log.stat().st_size if log.exists() else 0
        with open(log, "a") as errors:
            server = subprocess.Popen(
                self.command("serve"), env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=errors
            )
        self.servers.append(server)
        end = time.monotonic() + 60
        while ready and b"serves" not in log.read_bytes()[before:] and server.poll() is None:
            assert time.monotonic() < end, "the server does not come up"
            time.sleep(0.02)
        return server

    def http(self, log=None):
        """Address that the server on this log said last; none where it does not listen."""
        lines = pathlib.Path(log or self.folder / "server.log").read_text().splitlines()
        started = [json.loads(line) for line in lines if " serves" in line]
        return started[-1].get("http")

    def stop(self):
        """Kills what a failed test left running."""
        for server in self.servers:
            server.kill()
            server.wait()


@pytest.fixture
def make_geoworker(tmp_path):
    made = []

    def make(**environment):
        made.append(Geoworker(tmp_path, **environment))
        return made[-1]

    yield make
    for geoworker in made:
        geoworker.stop()


@pytest.fixture(scope="session")
def postgres_server():
    """One private PostgreSQL for all tests that need one; each makes a database of its own in it."""
    with Postgres(durable=False) as server:
        yield server


@pytest.fixture
def postgres(postgres_server):
    """Settings of a fresh database."""
    name = f"test_{time.monotonic_ns()}"
    postgres_server.create_database(name)
    return postgres_server.environment(name)


@pytest.fixture
def geoworker(make_geoworker):
    return make_geoworker()
