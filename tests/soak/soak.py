"""The soak: real workers on one PostgreSQL, jobs of every kind, and a saboteur. What comes out must be what comes out
undisturbed.

    python tests/soak/soak.py --seed 1 --jobs 300 --workers 4 [--minutes M] [--json FILE]

First the jobs run undisturbed: that says what is expected. Then they run again in a fresh database, on the same input
blobs, while workers are killed, frozen and stopped, PostgreSQL is restarted and the disk is filled. Needs the packages of
tests/referee/requirements.txt, PostgreSQL's server programs, and the right to mount for the full disk.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "referee"))

from helpers import alive, command_line, executable, fill, log_lines, mounted_disk, native_children, send_signal, write_noise  # noqa: E402
from postgres import Postgres, QueryFailed  # noqa: E402
from rasters import PALETTE, write  # noqa: E402

BINARY = ROOT / "bin" / "geoworker"
SHARED = ROOT.parent / "shared" / "data"
LEASE_SECONDS = 4
SWEEP_SECONDS = 1
GRACE_SECONDS = 5
# Of a worker: to be ready, and to end after SIGTERM beyond its grace.
START_SECONDS = 30
END_SECONDS = 20
# Seconds that the disk stays full: shorter than three retries take at their shortest.
FULL_SECONDS = 3
# A submitter may meet a database that is away: it tries again for this long.
SUBMIT_SECONDS = 60
# Attempts of a greeting (five retries), and how many of them a saboteur may cost a task without changing its end.
GREETING_ATTEMPTS = 6
LOST_ATTEMPTS = 2
STATES_OVER = ("completed", "completed_with_errors", "failed", "cancelled")
CONTAINER = "soak"
SUBMITTERS = 2
POLL = 0.05


class Failed(Exception):
    """The soak itself cannot go on."""


# Jobs


def digest(*parts):
    """geoworker's ids: SHA-256 over the parts, each with its length in front."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return hasher.hexdigest()


def job_id(job_type, parameters):
    return digest(job_type, json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False), "1")


def chance(text):
    """The greeting's chance to fail (FNV-1a), as its plugin computes it."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return (value >> 11) / (1 << 53)


def is_robust(parameters):
    """Whether every greeting ends the same even where some of its attempts are lost with their worker: an attempt that is
    lost counts, so that another one's luck decides."""
    job = job_id("hello_world", parameters)
    for number in range(1, parameters["n"] + 1):
        lucky = sum(chance(f"{job}/greeting-{number}/{attempt}") >= parameters["failure_rate"] for attempt in range(1, GREETING_ATTEMPTS + 1))
        if 0 < lucky <= LOST_ATTEMPTS:
            return False
    return True


def hello(chosen, random_source, chaos):
    """A greeting job that was not chosen yet; without chaos, failures are next to none."""
    while True:
        rates = [1, *(rate / 1000 for rate in range(50, 400, 7))] if chaos else [0, *(rate / 1000 for rate in range(1, 10))]
        parameters = {"n": random_source.randint(1, 12 if chaos else 40), "failure_rate": random_source.choice(rates)}
        key = json.dumps(parameters)
        if key not in chosen and is_robust(parameters):
            chosen.add(key)
            return "hello_world", parameters


def raster_parameters(number, name, random_source):
    tier = random_source.choice(["analysis", "archive"])
    more = random_source.choice([{}, {}, {"target_crs": "EPSG:3857"}, {"compression": "zstd"}])
    tier = "analysis" if more else tier
    return {"container_name": CONTAINER, "blob_name": name, "output_folder": f"out/{number}", "output_tier": tier} | more


def make_jobs(count, names, random_source):
    """Jobs of mixed types, no two with the same outputs."""
    jobs, chosen, validated = [], set(), set()
    for number in range(count):
        kind = random_source.random()
        left = [name for name in names if name not in validated]
        if kind < 0.45:
            jobs.append(hello(chosen, random_source, chaos=False))
        elif kind < 0.6:
            jobs.append(hello(chosen, random_source, chaos=True))
        elif kind < 0.7 and left:
            name = random_source.choice(left)
            validated.add(name)
            jobs.append(("validate_raster_job", {"container_name": CONTAINER, "blob_name": name}))
        else:
            jobs.append(("process_raster", raster_parameters(number, random_source.choice(names), random_source)))
    # Something must fail in every soak, however small.
    if not any("corrupt" in parameters.get("blob_name", "") for _, parameters in jobs):
        bad = next(name for name in names if "corrupt" in name)
        jobs[-1] = ("process_raster", raster_parameters(count, bad, random_source))
    return jobs


GENERATED = {
    "byte.tif": dict(),
    "rgb.tif": dict(count=3),
    "mask.tif": dict(count=3, mask=True),
    "alpha.tif": dict(count=4, alpha=True),
    "float.tif": dict(kind="float32", nodata=-9999.0, height=900, width=800),
    "int16.tif": dict(kind="int16", nodata=-32768),
    "uint16.tif": dict(kind="uint16", count=5),
    "palette.tif": dict(palette=PALETTE),
    "no_crs.tif": dict(crs=None),
    "odd.tif": dict(height=511, width=1025, count=3),
}
TAKEN = ["RGB.byte.tif", "RGBA.uint16.tif", "alpha.tif", "shade.tif", "corrupt.tif", "image_nodata.tif", "rotated.tif", "float_nan.tif"]


def make_blobs(folder):
    """Input blobs in `folder`; answers their names and what is missing."""
    folder.mkdir(parents=True)
    for name, how in GENERATED.items():
        write(folder / f"made_{name}", **how)
    write_noise(folder / "made_noise.tif", edge=2500, bands=1, levels=60)
    whole = (folder / "made_rgb.tif").read_bytes()
    (folder / "made_corrupt.tif").write_bytes(whole[: len(whole) // 2])
    for name in TAKEN:
        if SHARED.is_dir():
            shutil.copy(SHARED / name, folder / f"real_{name}")
    return sorted(path.name for path in folder.iterdir()), [] if SHARED.is_dir() else [f"the rasters of {SHARED}"]


# Workers


def is_hidden(name):
    """No name of a blob has a part that begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


class Worker:
    """One `geoworker serve`, started again and again under the same name."""

    def __init__(self, fleet, number):
        self.fleet = fleet
        self.number = number
        self.log = fleet.logs / f"worker-{number}.log"
        self.process = None
        self.frozen = False

    def start(self):
        self.began = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.fleet.command("serve"), env=self.fleet.environment, cwd=self.fleet.logs, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log,
            )

    def is_ready(self):
        return any(line.get("message", "").endswith(" serves") for line in log_lines(self.log, self.began))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.frozen = False

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.frozen = False
        send_signal(self.process.pid, signal.SIGCONT)

    def natives(self):
        return native_children(self.process.pid)


class Fleet:
    """Workers and submitters that share one database and one data directory."""

    def __init__(self, work, name, binary, postgres, workers, retry_ms, data):
        self.name = name
        self.binary = binary
        self.postgres = postgres
        self.database = name
        self.data = data
        self.logs = work / f"logs-{name}"
        self.logs.mkdir()
        self.folder = self.logs
        plain = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.environment = plain | postgres.environment(name) | {
            "GEOWORKER_PLUGINS": str(ROOT / "plugins/dist"), "GEOWORKER_HTTP": "off",
            "GEOWORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "GEOWORKER_SWEEP_SECONDS": str(SWEEP_SECONDS),
            "GEOWORKER_GRACE_SECONDS": str(GRACE_SECONDS),
            "GEOWORKER_RETRY_BASE_MS": str(retry_ms),
            "GEOWORKER_SLOTS": "2",
            "LOG_FORMAT": "json",
        }
        self.workers = [Worker(self, number) for number in range(workers)]
        # What happened that nobody asked for.
        self.surprises = []
        # {job id: job}, and the submissions that are under way.
        self.ids = {}
        self.refused = 0
        self.pool = concurrent.futures.ThreadPoolExecutor(SUBMITTERS)
        self.pending = {}
        postgres.create_database(name)

    def command(self, *arguments):
        return [str(self.binary), "--data-dir", str(self.data), *map(str, arguments)]

    def start(self):
        for worker in self.workers:
            worker.start()
            # One after the other: the first one makes the tables.
            self.wait(worker.is_ready, START_SECONDS, f"worker {worker.number} to be ready")

    def query(self, sql):
        return self.postgres.query(sql, self.database)

    def count(self, sql):
        """A number; none while the database is away."""
        try:
            return int(self.query(sql)[0][0])
        except QueryFailed:
            return None

    def tick(self):
        """Looks after the workers: one that ends by itself is a finding, and is replaced."""
        self.harvest()
        for worker in self.workers:
            code = worker.process.poll() if worker.process else None
            if code is not None:
                said = worker.log.read_text(errors="replace").splitlines()[-1:]
                self.surprises.append(f"worker {worker.number} ended by itself with {code}: {said}")
                if len(self.surprises) > 20:
                    raise Failed("workers end by themselves again and again")
                worker.start()

    def wait(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"waited {seconds:.0f} s for {what}")
            self.tick()
            time.sleep(POLL)

    def submit(self, job):
        """Submits until it is accepted; a submitter that died in between may have been accepted, too."""
        job_type, parameters = job
        pairs = [part for key, value in parameters.items() for part in ("--param", f"{key}={value}")]
        end = time.monotonic() + SUBMIT_SECONDS
        tries = 0
        while True:
            tries += 1
            done = subprocess.run(
                self.command("--json", "submit", job_type, *pairs), env=self.environment, cwd=self.logs, capture_output=True, text=True, timeout=120,
            )
            if done.returncode == 0:
                return json.loads(done.stdout)["job_id"], tries
            if time.monotonic() > end:
                raise Failed(f"{job} is not accepted: {done.stdout} {done.stderr[-500:]}")
            time.sleep(0.5)

    def submit_all(self, jobs):
        """Submits beside whatever else happens."""
        for job in jobs:
            self.pending[self.pool.submit(self.submit, job)] = job

    def harvest(self):
        """Notes the submissions that were accepted."""
        for future in [future for future in self.pending if future.done()]:
            job = self.pending.pop(future)
            found, tries = future.result()
            self.ids[found] = job
            self.refused += tries - 1

    def open_jobs(self):
        return self.count("SELECT count(*) FROM jobs WHERE ended_at IS NULL")

    def wait_until_over(self, seconds):
        # The question is a process of its own: not at every tick.
        last = [0.0, None]

        def over():
            if self.pending:
                return False
            if time.monotonic() - last[0] > 0.5:
                last[:] = time.monotonic(), self.open_jobs()
            return last[1] == 0

        self.wait(over, seconds, "the last jobs to be over")

    def stop(self):
        """Ends the workers in order; answers what was not in order."""
        wrong = []
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                code = worker.process.wait(GRACE_SECONDS + END_SECONDS)
                if code:
                    wrong.append(f"worker {worker.number} ended with {code}")
            except subprocess.TimeoutExpired:
                wrong.append(f"worker {worker.number} did not end")
        return wrong

    def kill(self):
        self.pool.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            if worker.process and worker.process.poll() is None:
                worker.thaw()
                worker.kill()

    # What came out

    def outcomes(self):
        """{job id: (state, code)}."""
        rows = self.query("SELECT job_id, state, coalesce(error, '') FROM jobs")
        return {job: (state, json.loads(error)["code"] if error else None) for job, state, error in rows}

    def published(self):
        """{name: digest} of everything that can be seen in the silver zone."""
        zone = self.data / "zones" / "silver"
        files = {str(path.relative_to(zone)): path for path in zone.rglob("*") if path.is_file()}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if not is_hidden(name)}

    def hidden(self):
        """Files of the silver zone that are no blobs, {name: content}; the fences tell which attempt wrote a blob."""
        zone = self.data / "zones" / "silver"
        files = {str(path.relative_to(zone)): path for path in zone.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if is_hidden(name)}

    def left_behind(self):
        """Staged files, scratch and processes that nobody owns any more."""
        staged = [path for zone in ("bronze", "silver") for path in (self.data / "zones" / zone / ".staging").glob("*")]
        scratch = list((self.data / "scratch").glob("*"))
        processes = [
            f"process {entry.name}: {' '.join(command_line(entry.name))[:80]}"
            for entry in pathlib.Path("/proc").iterdir()
            if entry.name.isdigit() and executable(entry.name) == str(self.binary) and alive(entry.name)
        ]
        return [str(path.relative_to(self.data)) for path in staged + scratch] + processes


# The saboteur


class Saboteur:
    """Does harm, by a plan made from the seed."""

    USUAL = ["kill"] * 5 + ["freeze"] * 3 + ["terminate"] * 2

    def __init__(self, fleet, random_source, disk, figures):
        self.fleet = fleet
        self.random = random_source
        self.disk = disk
        self.figures = figures
        self.thaws = []

    def plan(self, length, required):
        """Harm in random order; what is required is in it."""
        rest = [self.random.choice(self.USUAL) for _ in range(max(0, length - len(required)))]
        plan = [*required, *rest]
        self.random.shuffle(plan)
        return plan

    def tick(self):
        for moment, worker in list(self.thaws):
            if time.monotonic() >= moment:
                self.thaws.remove((moment, worker))
                worker.thaw()

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick()
            self.fleet.tick()
            time.sleep(POLL)

    def victim(self):
        """A worker that runs; where there is one, one that is in the middle of an operation."""
        self.fleet.wait(lambda: self.tick() or any(not worker.frozen for worker in self.fleet.workers), 60, "a worker that is not frozen")
        busy = self.busy() if self.random.random() < 0.7 else []
        if busy:
            self.figures["hit in the middle of an operation"] += 1
        return self.random.choice(busy or [worker for worker in self.fleet.workers if not worker.frozen])

    def busy(self, seconds=2):
        """Workers in the middle of an operation; none where there are none for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            busy = [worker for worker in self.fleet.workers if not worker.frozen and worker.natives()]
            if busy:
                return busy
            self.tick()
            time.sleep(POLL / 5)
        return []

    def harm(self, what):
        getattr(self, what)()
        self.figures[f"harm: {what}"] += 1

    def kill(self):
        worker = self.victim()
        worker.kill()
        worker.start()

    def freeze(self):
        """Longer than its lease: somebody else takes its tasks, and it wakes up in the belief that they are its own."""
        worker = self.victim()
        worker.freeze()
        self.thaws.append((time.monotonic() + LEASE_SECONDS * self.random.uniform(1.3, 2), worker))

    def terminate(self):
        worker = self.victim()
        worker.process.send_signal(signal.SIGTERM)
        try:
            code = worker.process.wait(GRACE_SECONDS + END_SECONDS)
        except subprocess.TimeoutExpired:
            self.fleet.surprises.append(f"worker {worker.number} did not end within {GRACE_SECONDS + END_SECONDS} s of SIGTERM")
            worker.kill()
            code = 0
        if code:
            self.fleet.surprises.append(f"worker {worker.number} ended with {code} at SIGTERM")
        worker.start()

    def restart_database(self):
        self.fleet.postgres.stop("fast")
        self.wait(self.random.uniform(0.2, LEASE_SECONDS / 2))
        self.fleet.postgres.start()

    def crash_database(self):
        self.fleet.postgres.stop("immediate")
        self.wait(self.random.uniform(0.2, LEASE_SECONDS * 1.5))
        self.fleet.postgres.start()

    def fill_disk(self):
        self.busy(5)
        filler = fill(self.disk)
        self.wait(FULL_SECONDS)
        filler.unlink()

    def end(self):
        """Undoes what is undone by time."""
        for _, worker in self.thaws:
            worker.thaw()
        self.thaws.clear()


# The soak


class Soak:
    saboteur = Saboteur

    def __init__(self, seed=1, jobs=300, workers=4, minutes=None, full_disk=True, actions=None, required=None, binary=BINARY, keep=False,
                 say=print, limit_minutes=None):
        self.seed = seed
        self.count = jobs
        self.worker_count = workers
        self.minutes = minutes
        self.full_disk = full_disk
        # One harm to a dozen jobs.
        self.actions = actions if actions is not None else max(8, jobs // 12)
        self.required = required
        self.keep = keep
        self.say = say
        # A short soak waits less between attempts; a full disk must not outlast all of them.
        self.retry_ms = 1500 if full_disk else 400
        self.limit = 60 * (limit_minutes or (minutes or 0) * 2 + max(5, jobs / 20))
        self.figures = collections.Counter()
        self.checks = []
        self.skipped = []
        self.work = None
        if not pathlib.Path(binary).exists():
            raise Failed(f"{binary} is not built")
        self.source_binary = pathlib.Path(binary)

    def run(self):
        """Runs both times and answers the checks: (what, whether, details)."""
        started = time.monotonic()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="geoworker-soak-"))
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_work)
            # A copy: whoever builds meanwhile does not disturb, and processes are told from those of others.
            self.binary = self.work / "geoworker"
            shutil.copy(self.source_binary, self.binary)
            self.postgres = Postgres(durable=False)
            stack.callback(self.postgres.remove)
            self.postgres.start()
            random_source = random.Random(self.seed)
            blobs = self.work / "blobs"
            names, missing = make_blobs(blobs)
            self.skipped += missing
            jobs = make_jobs(self.count, names, random_source)
            self.figures["jobs"] = len(jobs)
            try:
                expected = self._undisturbed(stack, jobs, blobs)
                self._disturbed(stack, jobs, blobs, random_source, expected)
            except Failed:
                self._tell_what_runs()
                raise
        self.figures["wall seconds"] = round(time.monotonic() - started)
        return self.checks

    def _tell_what_runs(self):
        """What the database is busy with, for whoever looks for the reason."""
        with contextlib.suppress(QueryFailed):
            for row in self.postgres.query(
                "SELECT pid, state, coalesce(wait_event, 'runs'), now() - xact_start, pg_blocking_pids(pid), left(query, 300)"
                " FROM pg_stat_activity WHERE xact_start < now() - interval '1 second' AND backend_type = 'client backend' ORDER BY xact_start",
            ):
                self.say("  in the database: " + " | ".join(" ".join((field or "").split()) for field in row))

    def _remove_work(self):
        if self.keep:
            self.say(f"kept: {self.work}")
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    def _fleet(self, stack, name, data, blobs):
        zone = data / "zones" / "bronze" / CONTAINER
        # Times are kept: a STAC item tells when its source was written.
        shutil.copytree(blobs, zone)
        fleet = Fleet(self.work, name, self.binary, self.postgres, self.worker_count, self.retry_ms, data)
        stack.callback(fleet.kill)
        fleet.start()
        return fleet

    def _undisturbed(self, stack, jobs, blobs):
        self.say(f"undisturbed: {len(jobs)} jobs, {self.worker_count} workers")
        started = time.monotonic()
        fleet = self._fleet(stack, "undisturbed", self.work / "data-undisturbed", blobs)
        fleet.submit_all(jobs)
        fleet.wait_until_over(self.limit)
        self.figures["undisturbed seconds"] = round(time.monotonic() - started)
        wrong = fleet.stop() + fleet.surprises
        self._check("undisturbed: workers run and end in order", wrong)
        self._invariants(fleet, "undisturbed")
        outcomes, published = fleet.outcomes(), fleet.published()
        self.hidden = fleet.hidden()
        self._check("undisturbed: some jobs fail, most do not", self._odd_mixture(outcomes, published))
        return outcomes, published, self._results(fleet)

    @staticmethod
    def _odd_mixture(outcomes, published):
        """What would make the comparison worthless."""
        states = collections.Counter(state for state, _ in outcomes.values())
        broken = any(code == "FILE_UNREADABLE" for _, code in outcomes.values())
        good = states["completed"] > len(outcomes) / 2 and broken and published
        return [] if good else [f"{dict(states)}, {len(published)} files, a broken raster: {broken}"]

    def _disturbed(self, stack, jobs, blobs, random_source, expected):
        started = time.monotonic()
        data, disk = self._disk(stack, expected[1], blobs)
        fleet = self._fleet(stack, "disturbed", data, blobs)
        saboteur = self.saboteur(fleet, random_source, disk, self.figures)
        required = self.required or ["kill", "freeze", "terminate", "restart_database", "crash_database"]
        plan = saboteur.plan(self.actions, required + (["fill_disk"] if disk else []))
        self.say(f"disturbed: {len(plan)} harms: {', '.join(plan)}")
        pause = (self.minutes or 0) * 60 / len(plan)
        batches = [jobs[start::len(plan) + 1] for start in range(len(plan) + 1)]
        for batch, what in zip(batches, plan):
            fleet.submit_all(batch)
            # In step with the work, so that harm meets some until the end.
            fleet.wait(lambda: saboteur.tick() or len(fleet.pending) <= max(2, len(batch) // 2), SUBMIT_SECONDS * 2, "submissions")
            saboteur.wait(random_source.uniform(0, 0.8) + pause)
            saboteur.harm(what)
            saboteur.tick()
        fleet.submit_all(batches[-1])
        saboteur.wait(LEASE_SECONDS * 2)
        saboteur.end()
        fleet.wait_until_over(self.limit)
        self.figures["submissions refused meanwhile"] = fleet.refused
        self.figures["disturbed seconds"] = round(time.monotonic() - started)
        self._judge(fleet, expected)

    def _disk(self, stack, published, blobs):
        """A disk of its own for the data directory, so that it can be filled; none where it cannot be had."""
        if not self.full_disk:
            return self.work / "data-disturbed", None
        needed = sum(path.stat().st_size for path in blobs.iterdir()) + self._published_bytes() * 2
        disk = stack.enter_context(mounted_disk(self.work / "disk", (needed >> 20) + 200))
        if disk is None:
            self.skipped.append("the full disk: nothing can be mounted here")
            return self.work / "data-disturbed", None
        return disk / "data", disk

    def _published_bytes(self):
        zone = self.work / "data-undisturbed" / "zones" / "silver"
        return sum(path.stat().st_size for path in zone.rglob("*") if path.is_file())

    # Judgement

    def _check(self, what, wrong):
        self.checks.append((what, not wrong, wrong))
        shown = [str(one)[:400] for one in wrong[:5]] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])
        self.say(f"  {'ok    ' if not wrong else 'FAILED'} {what}" + "".join(f"\n         {one}" for one in shown))

    def _judge(self, fleet, expected):
        states, published, results = expected
        self.say("judgement")
        wrong = fleet.stop()
        self._check("workers end in order", wrong)
        self._check("workers run until they are stopped", fleet.surprises)
        found = fleet.outcomes()
        self._check("every job is over", [f"{job[:12]} is {state}" for job, (state, _) in found.items() if state not in STATES_OVER])
        self._check("there are the same jobs", sorted(states.keys() ^ found.keys()))
        self._check("every job ends as undisturbed", [
            f"{job[:12]} {fleet.ids.get(job)}: {found[job]} instead of {states[job]}" for job in states.keys() & found.keys() if found[job] != states[job]
        ])
        self._check("every greeting's result is as undisturbed", [
            f"{job[:12]}: {result} instead of {results[job]}" for job, result in self._results(fleet).items() if results.get(job) != result
        ])
        got = fleet.published()
        self.figures["files published"] = len(got)
        hidden = fleet.hidden()
        self.figures["hidden files"] = len(hidden)
        self.figures["of those, with other bytes than undisturbed"] = sum(self.hidden.get(name) != content for name, content in hidden.items())
        self._check("the silver zone has the same files", sorted(got.keys() ^ published.keys()))
        self._check("the silver zone has the same bytes", sorted(name for name in got.keys() & published.keys() if got[name] != published[name]))
        self._invariants(fleet, "disturbed")
        self._figures(fleet)

    def _results(self, fleet):
        """Results of greetings; those of rasters tell how long the encoder took."""
        rows = fleet.query("SELECT job_id, result FROM jobs WHERE job_type = 'hello_world' AND result IS NOT NULL")
        return {job: json.loads(result) for job, result in rows}

    def _invariants(self, fleet, name):
        """What must hold after any run, disturbed or not."""
        rows = lambda sql: [" ".join(map(str, row)) for row in fleet.query(sql)]  # noqa: E731
        self._check(f"{name}: nothing is left in scratch, staging or the process table", fleet.left_behind())
        left = self._connections(fleet)
        self._check(f"{name}: no connection is left open", [f"{left} sessions"] if left else [])
        self._check(f"{name}: no task is open", rows("SELECT task_id, state FROM tasks WHERE ended_at IS NULL"))
        self._check(f"{name}: no more attempts than retries allow", rows(
            "SELECT substr(task_id, 1, 12), task_type, attempt, max_retries, error FROM tasks WHERE attempt > max_retries + 1"))
        self._check(f"{name}: every stage is planned once", rows(
            "SELECT s.job_id, s.number, count(e.id) FROM stages s LEFT JOIN events e ON e.job_id = s.job_id AND e.kind = 'stage_planned'"
            " AND split_part(e.detail, ':', 1) = s.name GROUP BY s.job_id, s.number HAVING count(e.id) <> 1"))
        self._check(f"{name}: every job ends once", rows(
            "SELECT j.job_id, count(e.id) FROM jobs j LEFT JOIN events e ON e.job_id = j.job_id AND e.kind = 'job_ended'"
            " GROUP BY j.job_id HAVING count(e.id) <> 1"))
        self._check(f"{name}: every task that is completed was completed once, and no other", rows(
            "SELECT t.task_id, t.state, count(e.id) FROM tasks t LEFT JOIN events e ON e.task_id = t.task_id AND e.kind = 'task_completed'"
            " GROUP BY t.task_id, t.state HAVING count(e.id) <> CASE WHEN t.state = 'completed' THEN 1 ELSE 0 END"))
        self._check(f"{name}: stages are counted down to nothing", rows("SELECT job_id, number, remaining FROM stages WHERE remaining <> 0"))
        self._check(f"{name}: stages count their failures", rows(
            "SELECT s.job_id, s.number, s.failed FROM stages s WHERE s.failed <> (SELECT count(*) FROM tasks t"
            " WHERE t.job_id = s.job_id AND t.stage = s.number AND t.state = 'failed')"))
        self._check(f"{name}: no message waits in the outbox", rows("SELECT id, queue, job_id FROM outbox"))
        self._check(f"{name}: nobody panicked", [
            f"{log.name}: {line[:300]}" for log in fleet.logs.glob("*.log") for line in log.read_text(errors="replace").splitlines() if "panicked" in line
        ])

    def _connections(self, fleet):
        """Sessions that stay; the server needs a moment to notice that a client is gone."""
        end = time.monotonic() + 5
        while (left := self.postgres.connections(fleet.database)) and time.monotonic() < end:
            time.sleep(POLL)
        return left

    def _figures(self, fleet):
        number = lambda sql: int(fleet.query(sql)[0][0] or 0)  # noqa: E731
        self.figures["tasks"] = number("SELECT count(*) FROM tasks")
        self.figures["attempts beyond the first"] = number("SELECT sum(attempt - 1) FROM tasks WHERE attempt > 1")
        self.figures["of those, failures that were asked for"] = number(
            "SELECT count(*) FROM events WHERE kind = 'task_retry' AND detail LIKE 'HELLO_CHAOS%'")
        self.figures["attempts lost with a worker"] = number(
            "SELECT (SELECT count(*) FROM events WHERE kind = 'task_claimed') - (SELECT count(*) FROM events WHERE kind IN"
            " ('task_completed', 'task_failed', 'task_retry', 'task_given_back', 'task_deferred') AND attempt IS NOT NULL)")
        self.figures["attempts given back"] = number("SELECT count(*) FROM events WHERE kind = 'task_given_back'")
        self.figures["attempts that met a full disk"] = number("SELECT count(*) FROM events WHERE task_id IS NOT NULL AND detail LIKE 'DISK_FULL%'")
        self.figures["outcomes refused as stale"] = sum(
            "outcome was not accepted" in line or "the lease was lost" in line
            for log in fleet.logs.glob("*.log") for line in log.read_text(errors="replace").splitlines())

    def summary(self):
        """Prints figures and verdict; answers the exit code."""
        self.say("figures")
        for name, value in self.figures.items():
            self.say(f"  {value:>7} {name}")
        for name in self.skipped:
            self.say(f"SKIPPED: {name}")
        passed = sum(good for _, good, _ in self.checks)
        failed = len(self.checks) - passed
        self.say(f"seed {self.seed}: {passed} passed, {failed} failed, {len(self.skipped)} skipped")
        return 1 if failed or not self.checks else 0

    def to_json(self):
        checks = [{"what": what, "passed": good, "details": [str(one) for one in wrong]} for what, good, wrong in self.checks]
        return {"seed": self.seed, "figures": dict(self.figures), "skipped": self.skipped, "checks": checks}


def main(kind=Soak, description=__doc__, jobs=300, workers_help=None):
    """The command line of a soak of some kind."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--workers", type=int, default=4, help=workers_help)
    parser.add_argument("--minutes", type=float, help="spread the harm over this long; as fast as it goes where missing")
    parser.add_argument("--json", type=pathlib.Path, help="write figures and checks to this file")
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    parser.add_argument("--keep", action="store_true", help="keep the working folder with all logs")
    arguments = parser.parse_args()
    # An interrupted soak cleans up as a finished one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        soak = kind(arguments.seed, arguments.jobs, arguments.workers, arguments.minutes, binary=arguments.binary, keep=arguments.keep,
                    say=lambda text: print(text, flush=True))
        soak.run()
    except Failed as error:
        print(f"the soak cannot go on: {error}\n0 passed, 1 failed")
        return 1
    code = soak.summary()
    if arguments.json:
        arguments.json.write_text(json.dumps(soak.to_json(), indent=2))
    return code


if __name__ == "__main__":
    sys.exit(main())
