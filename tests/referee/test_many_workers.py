"""Many workers around one PostgreSQL: killed, frozen and cut off, they lose nothing and do nothing twice."""

import signal
import subprocess
import time

import pytest

from conftest import ROOT
from helpers import FAST, until
from judges import check_cog, check_same_pixels
from postgres import Postgres
from test_durability import encoding, ended, operations, slow, submit_slow, task  # noqa: F401

LEASE = 3


@pytest.fixture
def shared(make_geoworker, postgres):
    """A data directory whose truth is in PostgreSQL."""
    return make_geoworker(**FAST, **postgres, GEOWORKER_LEASE_SECONDS=str(LEASE))


def stop(*servers):
    for server in servers:
        server.terminate()
    assert [server.wait(60) for server in servers] == [0] * len(servers)


def holder(geoworker, job):
    """Number of the process that holds the job's create_cog."""
    found = task(geoworker, job, "create_cog")
    return int(found["worker"].split("-")[-2]) if found and found["state"] == "processing" else None


def test_workers_share_the_work(shared):
    servers = [shared.serve(shared.folder / f"{n}.log") for n in range(3)]
    workers = until(lambda: found if len(found := shared.json("workers")) == 3 else None)
    assert all(worker["slots"] > 0 and worker["silent_ms"] < 60_000 for worker in workers)
    job = shared.json("submit", "hello_world", "--param", "n=200", "--wait")
    assert (job["state"], job["result"]["replies"]) == ("completed", 200)
    tasks = shared.json("tasks", "list", job["job_id"])
    assert len({task["worker"] for task in tasks}) == 3, "everybody had a share"
    assert all(task["attempt"] == 1 for task in tasks)
    stop(*servers)
    assert shared.json("workers") == [], "who ends in order says so"


def test_a_killed_worker_is_replaced_within_its_lease(shared, slow):  # noqa: F811
    servers = [shared.serve() for _ in range(2)]
    job = submit_slow(shared, slow)
    until(lambda: encoding(shared))
    victim = next(server for server in servers if server.pid == holder(shared, job))
    victim.kill()
    victim.wait()
    killed = time.monotonic()
    until(lambda: holder(shared, job) not in (None, victim.pid))
    assert time.monotonic() - killed < LEASE + 5, "recovery within lease + 5 s"
    shown = until(lambda: ended(shared, job), 90)
    assert shown["state"] == "completed"
    assert task(shared, job, "create_cog")["attempt"] == 2
    assert operations(shared, "create_cog").count("raster.inspect") == 1, "finished operations are not run again"
    path = shared.silver(shown["result"]["cog"]["target"])
    check_cog(path)
    check_same_pixels(slow, path)
    stop(*(server for server in servers if server is not victim))
    assert list((shared.data / "scratch").iterdir()) == [], "the dead worker's scratch is gone, too"
    assert list((shared.zone("silver") / ".staging").iterdir()) == []


def test_a_worker_that_sleeps_through_its_lease_changes_nothing(shared, slow):  # noqa: F811
    servers = [shared.serve() for _ in range(2)]
    job = submit_slow(shared, slow)
    until(lambda: encoding(shared))
    sleeper = next(server for server in servers if server.pid == holder(shared, job))
    sleeper.send_signal(signal.SIGSTOP)
    until(lambda: holder(shared, job) not in (None, sleeper.pid))
    sleeper.send_signal(signal.SIGCONT)
    shown = until(lambda: ended(shared, job), 90)
    assert shown["state"] == "completed"
    events = shared.json("jobs", "show", job, "--events")["events"]
    completed = [event["task_id"] for event in events if event["kind"] == "task_completed"]
    assert len(completed) == len(set(completed)) == 3, "each task was completed once"
    path = shared.silver(shown["result"]["cog"]["target"])
    check_same_pixels(slow, path)
    stop(*servers)


def test_a_database_that_goes_away_is_waited_for(make_geoworker):
    with Postgres(durable=False) as server:
        geoworker = make_geoworker(**FAST, **server.environment())
        worker = geoworker.serve()
        job = geoworker.json("submit", "hello_world", "--param", "n=300", "--param", "failure_rate=0.1")["job_id"]
        until(lambda: any(task["state"] == "completed" for task in geoworker.json("tasks", "list", job)))
        server.restart("immediate")
        assert until(lambda: ended(geoworker, job), 60)["state"] in ("completed", "completed_with_errors")
        stop(worker)
        server.stop("immediate")
        log = geoworker.folder / "late.log"
        # It serves only once the database is there: nothing to wait for before.
        late = start_without_waiting(geoworker, log)
        until(lambda: "DATABASE_UNAVAILABLE" in log.read_text())
        server.start()
        until(lambda: "serves" in log.read_text(), 60)
        stop(late)


def start_without_waiting(geoworker, log):
    with open(log, "a") as errors:
        process = subprocess.Popen(
            geoworker.command("serve"), env=geoworker.environment, cwd=geoworker.folder, stdout=subprocess.DEVNULL, stderr=errors
        )
    geoworker.servers.append(process)
    return process


def test_wrong_credentials_have_their_code(make_geoworker, postgres):
    geoworker = make_geoworker(**postgres | {"POSTGRES_DATABASE": "missing"})
    error = geoworker.json("jobs", code=2)["error"]
    assert error["code"] in ("DATABASE_DENIED", "DATABASE_UNAVAILABLE") and "missing" in error["message"]
    incomplete = make_geoworker(POSTGRES_HOST="db").json("jobs", code=2)["error"]
    assert "POSTGRES_USER, POSTGRES_DATABASE" in incomplete["message"]


def test_once_runs_one_task_and_ends(shared):
    job = shared.json("submit", "hello_world", "--param", "n=3")["job_id"]
    shared.run("serve", "--once")
    states = sorted(task["state"] for task in shared.json("tasks", "list", job))
    assert states.count("completed") == 1, states


def test_a_failed_task_is_retried_in_a_linked_run(make_geoworker):
    geoworker = make_geoworker(**FAST)
    missing = ROOT / "README.md"
    name = geoworker.put(missing, "scene.tif")
    failed = geoworker.process(name, code=1)
    assert failed["state"] == "failed"
    task_id = geoworker.json("tasks", "list", failed["job_id"])[0]["task_id"]
    shown = geoworker.json("tasks", "show", task_id[:12])
    assert shown["error"]["code"] == "FILE_UNREADABLE" and shown["events"][-1]["kind"] == "task_failed"
    again = geoworker.json("tasks", "retry", task_id)
    assert again["job_id"] != failed["job_id"] and not again["existing"]
    server = geoworker.serve()
    shown = until(lambda: ended(geoworker, again["job_id"]))
    assert (shown["state"], shown["previous_run"], shown["run_ordinal"]) == ("failed", failed["job_id"], 2)
    rerun = geoworker.json("jobs", "rerun", failed["job_id"], "--wait", code=1)
    assert rerun["run_ordinal"] == 3
    for wrong, code in [(["tasks", "retry", "zzz"], "TASK_NOT_FOUND"), (["tasks", "cancel", task_id], "TASK_OVER")]:
        assert geoworker.json(*wrong, code=2)["error"]["code"] == code
    stop(server)


def test_one_task_can_be_cancelled(make_geoworker):
    """The others go on, and the stage's policy decides."""
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    job = geoworker.json("submit", "hello_world", "--param", "n=40", "--param", "failure_rate=1")["job_id"]
    waiting = until(lambda: next((t for t in geoworker.json("tasks", "list", job) if t["state"] == "pending_retry"), None))
    geoworker.json("tasks", "cancel", waiting["task_id"])
    shown = geoworker.json("tasks", "show", waiting["task_id"])
    assert shown["state"] in ("cancelled", "processing")
    assert until(lambda: ended(geoworker, job), 60)["state"] == "completed_with_errors"
    shown = geoworker.json("tasks", "show", waiting["task_id"])
    assert (shown["state"], shown["error"]["code"]) == ("cancelled", "TASK_CANCELLED")
    running = geoworker.json("submit", "hello_world", "--param", "n=1", "--param", "failure_rate=1")["job_id"]
    assert geoworker.json("jobs", "retry", running, code=2)["error"]["code"] == "JOB_RUNNING"
    stop(server)
