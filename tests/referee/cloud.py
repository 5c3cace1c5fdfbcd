"""A small cloud on one machine: PostgreSQL, the Service Bus emulator, Azurite, and geoworker processes in several modes.

Each process has a data directory of its own, as on machines of their own: what they share goes through the three services."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from azurite import HOST
from conftest import BINARY, ROOT
from helpers import FAST, log_lines, native_children, send_signal, state, until
from servicebus import QUEUES

LEASE_SECONDS = 3
START_SECONDS = 60
END_SECONDS = 60
# Inputs are in this container; names of containers have three characters at least.
CONTAINER = "scenes"
# Of the silver account: where the plugin puts its outputs.
OUTPUTS = "cogs"
# The smallest threshold there is, in megabytes of 10^6 bytes: what is larger is long-running.
THRESHOLD_MB = 1
# Fields of log lines that tell where a process listens.
ADDRESS_FIELDS = ("http", "address", "listen")
ASK_SECONDS = 10


class Process:
    """One `geoworker serve` in one mode, started again and again under the same name."""

    def __init__(self, cloud, mode, name, environment):
        self.cloud = cloud
        self.mode = mode
        self.name = name
        self.folder = cloud.folder / name
        self.folder.mkdir()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.environment = environment | {"APP_MODE": mode, "APP_NAME": name}
        self.process = None
        self.began = 0

    def command(self, *arguments):
        return [str(BINARY), "--data-dir", str(self.data), *map(str, arguments)]

    def start(self, wait=True):
        self.began = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command("serve"), env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )
        if wait:
            until(lambda: self.serves() or self.process.poll() is not None, START_SECONDS, f"the start of {self.name}")
            assert self.process.poll() is None, f"{self.name} ended at its start: {self.said()[-2000:]}"
        return self

    def run(self, *arguments, code=0, timeout=120):
        """Runs a command with this process's settings and answers its JSON."""
        done = subprocess.run(
            self.command("--json", *arguments), env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        self.cloud.printed.append(done.stdout + done.stderr)
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def serves(self):
        return any(line.get("message", "").endswith(" serves") for line in self.lines())

    def lines(self):
        """Log lines since its last start."""
        return log_lines(self.log, self.began)

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self):
        return self.process.pid

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Ends it in order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, f"{self.name} did not end in order: {self.said()[-2000:]}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def natives(self):
        return native_children(self.pid)

    # HTTP

    def address(self):
        """`host:port` of its job API and probes: where it was told to listen, else where it says that it does; none before."""
        if not self.environment["GEOWORKER_HTTP"].endswith(":0"):
            return self.environment["GEOWORKER_HTTP"]
        for line in self.lines():
            for field in ADDRESS_FIELDS:
                found = re.search(rf"{re.escape(HOST)}:\d+", str(line.get(field, "")))
                if found:
                    return found[0]
        return None

    def ask(self, path, body=None):
        """(status, JSON or text) of a GET, or of a POST of `body`."""
        request = urllib.request.Request(f"http://{self.address()}{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        self.cloud.printed.append(text)
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text

    def is_ready(self):
        """What `/readyz` says; false, too, where nobody answers."""
        try:
            return self.address() is not None and self.ask("/readyz")[0] == 200
        except OSError:
            return False


class Cloud:
    """The services and the processes. `settings` are environment variables of every process."""

    def __init__(self, folder, server, database, bus, azurite, **settings):
        self.folder = pathlib.Path(folder)
        self.server = server
        self.database = database
        self.bus = bus
        self.azurite = azurite
        self.processes = []
        # Everything that commands and HTTP answered.
        self.printed = []
        plain = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.environment = plain | FAST | server.environment(database) | {
            "GEOWORKER_PLUGINS": str(ROOT / "plugins/dist"),
            "GEOWORKER_HTTP": f"{HOST}:0",
            "GEOWORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "RASTER_SIZE_THRESHOLD_MB": str(THRESHOLD_MB),
            "LOG_FORMAT": "json",
        } | settings
        azurite.create_container("bronze", CONTAINER)
        azurite.create_container("silver", OUTPUTS)

    # Processes

    def make(self, mode, bus_port=None, bronze_port=None, silver_port=None, **settings):
        """A process that is not started; ports are those of proxies before the services."""
        number = sum(process.mode == mode for process in self.processes) + 1
        services = {
            "ServiceBusConnection": self.bus.connection_string(bus_port),
            "BRONZE_STORAGE_CONNECTION": self.azurite.connection_string("bronze", bronze_port),
            "SILVER_STORAGE_CONNECTION": self.azurite.connection_string("silver", silver_port),
        }
        self.processes.append(Process(self, mode, f"{mode}-{number}", self.environment | services | settings))
        return self.processes[-1]

    def platform(self, wait=True, **settings):
        return self.make("platform_only", **settings).start(wait)

    def worker(self, wait=True, **settings):
        """A container worker: long-running tasks only."""
        return self.make("worker_docker", **settings).start(wait)

    def raster(self, wait=True, **settings):
        return self.make("worker_raster", **settings).start(wait)

    def close(self):
        """Kills what still runs. Nobody may have panicked."""
        for process in self.processes:
            if process.runs():
                process.thaw()
                process.kill()
        panics = [process.name for process in self.processes if "panicked" in process.said()]
        assert not panics, f"panicked: {panics}"

    def stop(self):
        """Ends everything that runs in order."""
        for process in self.processes:
            if process.runs():
                process.stop()

    def front(self):
        """The platform that answers."""
        return next(process for process in self.processes if process.mode == "platform_only" and process.runs())

    # Jobs

    def put(self, path, name=None):
        name = name or pathlib.Path(path).name
        self.azurite.put("bronze", CONTAINER, name, path)
        return name

    def submit(self, job_type, **parameters):
        """Id of an accepted job: by HTTP where the platform serves it, else by the command line."""
        front = self.front()
        if front.address():
            status, answer = front.ask(f"/api/jobs/submit/{job_type}", parameters)
            assert status in (200, 201, 202), (status, answer)
            return answer["job_id"]
        pairs = [part for key, value in parameters.items() for part in ("--param", f"{key}={value}")]
        return front.run("submit", job_type, *pairs)["job_id"]

    def submit_raster(self, name, **parameters):
        return self.submit("process_raster", container_name=CONTAINER, blob_name=name, **parameters)

    def shown(self, job):
        front = self.front()
        if front.address():
            status, answer = front.ask(f"/api/jobs/{job}")
            assert status == 200, (status, answer)
            return answer
        return front.run("jobs", "show", job)

    def wait(self, job, seconds=90):
        """The job's row at its end, its error as the record that it is."""
        row = until(lambda: self.ended(job), seconds, f"the end of job {job[:12]}")
        return row | {"error": json.loads(row["error"]) if row["error"] else None}

    def ended(self, job):
        row = self.row("jobs", f"job_id = '{job}'")
        return row if row["ended_at"] else None

    # The truth, by SQL

    def rows(self, table, where, order=None):
        ordered = f" ORDER BY {order}" if order else ""
        found = self.server.query(f"SELECT row_to_json(t) FROM {table} t WHERE {where}{ordered}", self.database)
        return [json.loads(row[0]) for row in found]

    def row(self, table, where):
        return next(iter(self.rows(table, where)), None)

    def tasks(self, job):
        return self.rows("tasks", f"job_id = '{job}'", "stage, position")

    def task(self, job, task_type):
        return next((task for task in self.tasks(job) if task["task_type"] == task_type), None)

    def events(self, job, kind):
        return self.rows("events", f"job_id = '{job}' AND kind = '{kind}'", "id")

    def operations_done(self, task):
        """How many operations of a task are in its journal."""
        return len(self.rows("journal", f"task_id = '{task['task_id']}'"))

    def holder(self, task):
        """The process that a task's row names."""
        number = int(task["worker"].split("-")[-2]) if task["worker"] else None
        return next((process for process in self.processes if process.process and process.pid == number), None)

    # Tasks in their middle

    def hold(self, job, task_type="create_cog", operations=0, seconds=60):
        """Stops the native process of a task after so many of its operations: from now on the task takes as long as one likes.
        Answers (the worker, the native process)."""
        # Stopped first and asked about afterwards: an operation may be shorter than a question to the database.
        seen = set()
        return until(lambda: self._stop_next(seen, job, task_type, operations), seconds, f"{task_type} to be in its middle")

    def _stop_next(self, seen, job, task_type, operations):
        for worker in self.processes:
            for native in worker.natives() if worker.runs() else []:
                if native in seen or not (send_signal(native, signal.SIGSTOP) and settles(native)):
                    continue
                seen.add(native)
                task = self.task(job, task_type)
                if task and task["state"] == "processing" and self.holder(task) is worker and self.operations_done(task) >= operations:
                    return worker, native
                send_signal(native, signal.SIGCONT)
        return None

    # What came out

    def outputs(self):
        """Names of the blobs of the silver account that people see."""
        names = self.azurite.blobs("silver")
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def fetch(self, target, path):
        return self.azurite.fetch("silver", target["container"], target["name"], path)

    def local_blobs(self):
        """Files in folders of zones: none, where zones are accounts."""
        return [str(path) for process in self.processes for path in (process.data / "zones").rglob("*") if path.is_file()]

    def is_drained(self, *queues):
        """Whether queues hold no message but dead ones."""
        return not any(self.bus.waiting(queue) for queue in queues or QUEUES)

    # Secrets

    def secrets(self):
        return self.azurite.secrets() | self.bus.secrets()

    def everything_said(self):
        """{where: text} of all that people get to see: logs, rows, answers."""
        said = {f"log of {process.name}": process.said() for process in self.processes}
        for (table,) in self.server.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", self.database):
            rows = self.server.query(f'SELECT t::text FROM "{table}" t', self.database)
            said[f"table {table}"] = "\n".join(row[0] for row in rows)
        said["answers of commands and HTTP"] = "\n".join(self.printed)
        said["blobs of silver"] = "\n".join(
            str(blob.metadata) + (self.azurite.read("silver", *name.split("/", 1)).decode(errors="replace") if name.endswith(".json") else "")
            for name, blob in self.azurite.blobs("silver").items()
        )
        return said


def free_address():
    """For a process that cannot tell its own before its services are there."""
    with socket.create_server((HOST, 0)) as taken:
        return f"{HOST}:{taken.getsockname()[1]}"


def settles(pid):
    """Whether a process that was told to stop does, rather than end."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        now = state(pid)
        if now in ("T", "t"):
            return True
        if now in (None, "Z"):
            return False
        time.sleep(0.01)
    return False


def leaks(said, secrets):
    """Where a secret shows, in any of the forms in which it travels; signatures of signed URLs, too."""
    found = []
    for where, text in said.items():
        for name, secret in secrets.items():
            forms = {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), json.dumps(secret)[1:-1]}
            found += [f"the key of {name} in {where}" for form in forms if form in text]
        # %26 and %3D: a URL within a URL, as GDAL takes it.
        found += [f"a signature in {where}: {match[0][:20]}..." for match in re.finditer(r"(?:[?&]|%26|%3F)sig(?:=|%3D)(?!REDACTED)[A-Za-z0-9%+/]{8}", text)]
    return sorted(set(found))
