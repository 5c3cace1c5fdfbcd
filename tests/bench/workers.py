"""Throughput, latency and recovery on PostgreSQL, beside procrastinate.

    python tests/bench/workers.py [--tasks 4000] [--rounds 1] [--workers 1 2 4] [--json FILE]

One private server with default, durable settings (fsync, synchronous commit). For each number of worker processes,
interleaved: geoworker runs hello_world jobs of 1000 greetings and 1000 replies, procrastinate runs as many empty jobs that
are deferred in batches of the same size; both with the same concurrency. A geoworker task is more than an empty job: it is
a sandboxed call, stage bookkeeping and a stored result. Needs `pip install -r tests/bench/requirements.txt`.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "bin" / "geoworker"
SLOTS = 16
GREETINGS = 1000
TASKS_OF_A_JOB = 2 * GREETINGS
LEASE_SECONDS = 5
# Beyond the lease, the promise for recovery.
RECOVERY_MARGIN = 5
# Seconds that one measurement may take at most, and that a process may take to be ready.
LONGEST = 900
START_SECONDS = 60
# The database is asked this often whether all is done; the answer's time is read from the rows, not from the question.
ASK = 0.1


def load(path):
    """A module of another folder, by its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def until(condition, seconds, what, processes=()):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        for process in processes:
            if process.poll() is not None:
                sys.exit(f"a worker ended with {process.returncode} while waiting for {what}")
        if time.monotonic() > end:
            sys.exit(f"waited {seconds} s for {what}")
        time.sleep(ASK)


def percentile(values, share):
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def measured(tasks, seconds, latencies):
    return {"tasks": tasks, "per_second": tasks / seconds, "p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99)}


@contextlib.contextmanager
def processes(commands, environment, logs):
    """Runs commands beside each other and ends them, in order where they let us."""
    running = []
    try:
        for number, command in enumerate(commands):
            with open(logs / f"{time.monotonic_ns()}-{number}.log", "ab") as log:
                running.append(subprocess.Popen(command, env=environment, cwd=logs, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
                running[-1].log = pathlib.Path(log.name)
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# geoworker


class Geoworker:
    def __init__(self, postgres, database, folder, **settings):
        postgres.create_database(database)
        self.query = lambda sql: postgres.query(sql, database, timeout=120)
        self.data = folder / "data"
        self.logs = folder
        folder.mkdir()
        plain = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        self.environment = plain | postgres.environment(database) | {
            "APP_MODE": "standalone", "GEOWORKER_SLOTS": str(SLOTS), "GEOWORKER_PLUGINS": str(ROOT / "plugins/dist"), "GEOWORKER_HTTP": "off", "LOG_FORMAT": "json",
        } | settings

    def command(self, *arguments):
        return [str(BINARY), "--data-dir", str(self.data), *map(str, arguments)]

    def run(self, *arguments):
        done = subprocess.run(self.command("--json", *arguments), env=self.environment, cwd=self.logs, capture_output=True, text=True, timeout=120)
        if done.returncode:
            sys.exit(f"geoworker {arguments} failed: {done.stdout} {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else done.stdout

    @contextlib.contextmanager
    def serving(self, count):
        # One after the other: the first one makes the tables.
        with contextlib.ExitStack() as stack:
            running = []
            for _ in range(count):
                running += stack.enter_context(processes([self.command("serve")], self.environment, self.logs))
                until(lambda: " serves\"" in running[-1].log.read_text(), START_SECONDS, "geoworker to be ready", running)
            yield running

    def number(self, sql):
        return int(self.query(sql)[0][0] or 0)


def geoworker_throughput(postgres, database, folder, workers, tasks):
    """From the first submission until all jobs are over; times are the database's."""
    geoworker = Geoworker(postgres, database, folder)
    jobs = max(1, tasks // TASKS_OF_A_JOB)
    with geoworker.serving(workers) as running:
        # Nothing is measured that happens once: this compiles the plugins where no cache has them.
        geoworker.run("submit", "hello_world", "--param", "n=1", "--wait")
        geoworker.query("CHECKPOINT")
        started = float(geoworker.query("SELECT extract(epoch FROM clock_timestamp()) * 1000")[0][0])
        for _ in range(jobs):
            geoworker.run("submit", "hello_world", "--param", f"n={GREETINGS}", "--force")
        until(lambda: geoworker.number("SELECT count(*) FROM jobs WHERE ended_at IS NULL") == 0, LONGEST, "geoworker's jobs", running)
    ended = geoworker.number("SELECT max(ended_at) FROM jobs")
    counted = f"FROM tasks WHERE created_at >= {int(started)}"
    done = geoworker.number(f"SELECT count(*) {counted} AND state = 'completed'")
    if done != jobs * TASKS_OF_A_JOB:
        sys.exit(f"geoworker completed {done} of {jobs * TASKS_OF_A_JOB} tasks")
    latencies = [int(row[0]) for row in geoworker.query(f"SELECT started_at - created_at {counted}")]
    return measured(done, (ended - started) / 1000, latencies)


# procrastinate


def peer_app(conninfo):
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo, max_size=SLOTS + 4))

    @app.task(name="nothing")
    async def nothing(number):
        """An empty job."""

    return app, nothing


def peer_worker(conninfo):
    """One worker process of the peer."""
    import asyncio

    async def work():
        app, _ = peer_app(conninfo)
        async with app.open_async():
            print("ready", flush=True)
            await app.run_worker_async(concurrency=SLOTS, wait=True)

    asyncio.run(work())


def peer_submit(conninfo, tasks):
    """Defers in batches, and answers when the first one went out, by the database's clock."""
    import asyncio

    async def submit():
        app, nothing = peer_app(conninfo)
        async with app.open_async():
            row = await app.connector.execute_query_one_async("SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now")
            for start in range(0, tasks, GREETINGS):
                await nothing.batch_defer_async(*[{"number": number} for number in range(start, min(tasks, start + GREETINGS))])
            return float(row["now"])

    return asyncio.run(submit())


def peer_prepare(conninfo):
    import asyncio

    async def prepare():
        app, _ = peer_app(conninfo)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(prepare())


def peer_throughput(postgres, database, folder, workers, tasks):
    folder.mkdir()
    postgres.create_database(database)
    query = lambda sql: postgres.query(sql, database, timeout=120)  # noqa: E731
    settings = postgres.environment(database)
    conninfo = f"host={settings['POSTGRES_HOST']} port={settings['POSTGRES_PORT']} user={settings['POSTGRES_USER']} dbname={database}"
    peer_prepare(conninfo)
    tasks = max(1, tasks // TASKS_OF_A_JOB) * TASKS_OF_A_JOB
    with processes([[sys.executable, __file__, "--peer-worker", conninfo]] * workers, os.environ, folder) as running:
        until(lambda: all("ready" in process.log.read_text() for process in running), START_SECONDS, "procrastinate to be ready", running)
        query("CHECKPOINT")
        started = peer_submit(conninfo, tasks)
        open_jobs = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        until(lambda: int(query(open_jobs)[0][0]) == 0, LONGEST, "procrastinate's jobs", running)
    done = int(query("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")[0][0])
    if done != tasks:
        sys.exit(f"procrastinate completed {done} of {tasks} jobs")
    ended = float(query("SELECT extract(epoch FROM max(at)) * 1000 FROM procrastinate_events WHERE type = 'succeeded'")[0][0])
    waits = query("SELECT extract(epoch FROM s.at - d.at) * 1000 FROM procrastinate_events s JOIN procrastinate_events d USING (job_id)"
                  " WHERE s.type = 'started' AND d.type = 'deferred'")
    return measured(done, (ended - started) / 1000, [float(row[0]) for row in waits])


# Recovery


def recovery(postgres, folder):
    """Seconds from `kill -9` of the worker that holds long tasks until another one has claimed them, one figure a task."""
    geoworker = Geoworker(postgres, "recovery", folder, GEOWORKER_LEASE_SECONDS=str(LEASE_SECONDS), GEOWORKER_SLOTS="2")
    source = folder / "source.tif"
    load(ROOT / "tests/bench/cog.py").make_source(str(source))
    geoworker.run("blobs", "put", source, "bronze/in/source.tif")
    held = "SELECT task_id FROM tasks WHERE state = 'processing' AND task_type = 'create_cog'"
    with geoworker.serving(1) as (victim,):
        for number in range(2):
            geoworker.run("submit", "process_raster", "--param", "container_name=in", "--param", "blob_name=source.tif",
                          "--param", f"output_folder=out/{number}", "--param", "output_tier=archive")
        until(lambda: len(geoworker.query(held)) == 2, 120, "two tasks to be held", [victim])
        # Only now: before, it might have taken one of them.
        with geoworker.serving(1):
            tasks = [row[0] for row in geoworker.query(held)]
            killed = float(geoworker.query("SELECT extract(epoch FROM clock_timestamp()) * 1000")[0][0])
            victim.kill()
            victim.wait()
            names = ", ".join(f"'{task}'" for task in tasks)
            claimed = f"SELECT min(at) FROM events WHERE kind = 'task_claimed' AND at > {killed} AND task_id IN ({names}) GROUP BY task_id"
            found = until(lambda: (rows := geoworker.query(claimed)) and len(rows) == len(tasks) and rows, 120, "the tasks to be claimed again")
    return [(int(row[0]) - killed) / 1000 for row in found]


# Report


def table(results):
    print(f"{'workers':>7}  {'':14} {'tasks':>6} {'tasks/s':>9} {'ms/task':>8} {'queued to started, p50':>23} {'p99':>10}")
    for workers, by_name in results.items():
        for name, runs in by_name.items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(f"{workers:>7}  {name:14} {middle['tasks']:6.0f} {middle['per_second']:9.0f} {1000 / middle['per_second']:8.2f} "
                  f"{middle['p50_ms']:20.0f} ms {middle['p99_ms']:7.0f} ms")
        ours, theirs = (statistics.median(run["per_second"] for run in by_name[name]) for name in ("geoworker", "procrastinate"))
        print(f"{workers:>7}  time per task: geoworker / procrastinate = {theirs / ours:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=4000, help=f"of each measurement, in steps of {TASKS_OF_A_JOB}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--no-recovery", action="store_true")
    parser.add_argument("--peer-worker", metavar="CONNINFO", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("procrastinate") is None or importlib.util.find_spec("psycopg") is None:
        sys.exit("procrastinate is missing: pip install -r tests/bench/requirements.txt")
    if arguments.peer_worker:
        return peer_worker(arguments.peer_worker)
    if not BINARY.exists():
        sys.exit(f"{BINARY.relative_to(ROOT)} is not built")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = pathlib.Path(tempfile.mkdtemp(prefix="geoworker-bench-"))
    try:
        with load(ROOT / "tests/referee/postgres.py").Postgres() as postgres:
            measure(postgres, work, arguments)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(postgres, work, arguments):
    results = {}
    print(f"PostgreSQL {postgres.scalar('SHOW server_version')}, fsync {postgres.scalar('SHOW fsync')}, {os.cpu_count()} cores, "
          f"{SLOTS} at a time in each worker, {arguments.rounds} interleaved round(s)", flush=True)
    for turn in range(arguments.rounds):
        for workers in arguments.workers:
            by_name = results.setdefault(workers, {"geoworker": [], "procrastinate": []})
            for name, run in (("geoworker", geoworker_throughput), ("procrastinate", peer_throughput)):
                database = f"{name}_{workers}_{turn}"
                by_name[name].append(run(postgres, database, work / database, workers, arguments.tasks))
    table(results)
    recovered = [] if arguments.no_recovery else recovery(postgres, work / "recovery")
    if recovered:
        worst, promised = max(recovered), LEASE_SECONDS + RECOVERY_MARGIN
        print(f"after kill -9, lease {LEASE_SECONDS} s: tasks ran on another worker after {', '.join(f'{s:.1f} s' for s in recovered)}; "
              f"promised {promised} s, {'kept' if worst <= promised else 'NOT KEPT'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"throughput": results, "recovery_seconds": recovered}, indent=2))


if __name__ == "__main__":
    main()
