"""From one machine to many (R13 to R18, R22, R28): platform and workers share nothing but PostgreSQL, a Service Bus and storage
accounts. The broker is our emulator and the blob server is Azurite; whoever puts, sends, peeks and reads beside geoworker is
Microsoft's client."""

import json
import signal
import time

import pytest

from cloud import CONTAINER, LEASE_SECONDS, OUTPUTS, free_address
from cloud_fixtures import ALWAYS_LONG, BROKER_LOCK, LONG_TASK, NO_SWEEP, SHORT_LOCK, check_outputs, needs_services
from fault_proxy import FaultProxy
from helpers import alive, send_signal, until
from http_fault_proxy import HttpFaultProxy
from servicebus import JOBS, LONG, RASTER

pytestmark = needs_services


def test_a_large_raster_is_made_by_a_container_worker(make_cloud, scene, tmp_path):
    """R28. The platform is away while the container worker ends the stage: its signal waits on the jobs queue."""
    cloud = make_cloud(**NO_SWEEP)
    platform = cloud.platform()
    containers = [cloud.worker(), cloud.worker()]
    short = cloud.raster()
    job = cloud.submit_raster(cloud.put(scene))
    worker, native = cloud.hold(job)
    assert worker in containers
    platform.stop()
    send_signal(native, signal.SIGCONT)
    until(lambda: cloud.task(job, "create_cog")["state"] == "completed", what="create_cog without a platform")
    (signalled,) = until(lambda: cloud.bus.peek(JOBS), what="the signal")
    message = json.loads(str(signalled))
    assert {key: message[key] for key in ("message_type", "job_id", "job_type", "completed_stage", "completed_by_app")} == {
        "message_type": "stage_complete", "job_id": job, "job_type": "process_raster", "completed_stage": 2, "completed_by_app": worker.name,
    }
    assert signalled.application_properties[b"job_id"].decode() == job
    assert cloud.row("jobs", f"job_id = '{job}'")["stage"] == 2, "a worker does not advance the job"
    platform.start()
    ended = cloud.wait(job)
    assert ended["state"] == "completed", ended
    assert platform.address(), "the platform serves the job API and tells where"
    assert cloud.shown(job)["state"] == "completed"
    assert containers[0].ask(f"/api/jobs/{job}")[0] == 404, "a container worker serves probes and no job API"

    cog = cloud.task(job, "create_cog")
    size = scene.stat().st_size / 1e6
    assert (cog["queue"], cog["attempt"]) == (LONG, 1)
    assert cog["route_reason"] == f"size: {size:.1f} MB of input is above the threshold of 1.0 MB"
    stac = cloud.task(job, "extract_stac_metadata")
    assert stac["queue"] == RASTER and cloud.holder(stac) is short, "what is small goes the other way"
    planned = [event["detail"].split(":")[0] for event in cloud.events(job, "stage_planned")]
    assert len(planned) == len(set(planned)) == 3, planned
    check_outputs(cloud, scene, tmp_path, job)
    until(cloud.is_drained, 5, "every message to be dealt with")
    cloud.stop()


def test_a_worker_killed_in_its_upload_and_a_restarted_broker_cost_one_attempt(make_cloud, large, tmp_path):
    cloud = make_cloud(**ALWAYS_LONG)
    cloud.platform()
    with HttpFaultProxy(cloud.azurite.port) as proxy:
        workers = [cloud.worker(silver_port=proxy.port), cloud.worker(silver_port=proxy.port)]
        # So that an upload has a middle.
        proxy.slowness = 0.2
        job = cloud.submit_raster(cloud.put(large))
        until(lambda: cloud.azurite.uncommitted("silver"), 60, "the first block")
        victim = cloud.holder(cloud.task(job, "create_cog"))
        natives = victim.natives()
        cloud.bus.restart_broker()
        victim.kill()
        killed = time.monotonic()
        proxy.slowness = 0.0
        assert cloud.outputs() == [], "nothing half done is visible"
        until(lambda: not any(alive(native) for native in natives), 5, "the end of what the victim had started")
        survivor = next(worker for worker in workers if worker is not victim)
        until(lambda: cloud.holder(cloud.task(job, "create_cog")) is survivor, what="another worker")
        assert time.monotonic() - killed < LEASE_SECONDS + BROKER_LOCK + 5, "after the lease, and what is left of the broker's lock"
        assert cloud.wait(job)["state"] == "completed"
        assert cloud.task(job, "create_cog")["attempt"] == 2
        ran = [line["operation"] for line in survivor.lines() if line.get("message") == "operation finished" and line.get("task_type") == "create_cog"]
        assert ran and "raster.inspect" not in ran, "finished operations are not run again, on another machine either"
        assert len(cloud.events(job, "task_completed")) == 3
        check_outputs(cloud, large, tmp_path, job)
        cloud.stop()


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_a_task_far_longer_than_the_lock_runs_and_commits_once(make_cloud, noise, tmp_path, lost):
    """R16. Where the broker takes the lock away all the same, another worker gets the message, and the row says no."""
    cloud = make_cloud(lock_seconds=SHORT_LOCK, **ALWAYS_LONG)
    cloud.platform()
    for _ in range(2):
        cloud.worker()
    job = cloud.submit_raster(cloud.put(noise))
    worker, native = cloud.hold(job)
    started = time.monotonic()
    if lost:
        cloud.bus.fault("lose-lock", "renew")
    until(lambda: time.monotonic() - started > LONG_TASK, LONG_TASK + 5)
    held = cloud.task(job, "create_cog")
    assert (held["state"], held["attempt"]) == ("processing", 1) and cloud.holder(held) is worker
    send_signal(native, signal.SIGCONT)
    assert cloud.wait(job)["state"] == "completed"
    cog = cloud.task(job, "create_cog")
    assert (cog["attempt"], cog["lease_epoch"]) == (1, 1)
    for kind in ("task_claimed", "task_completed"):
        assert len([event for event in cloud.events(job, kind) if event["task_id"] == cog["task_id"]]) == 1, kind
    check_outputs(cloud, noise, tmp_path, job)
    until(cloud.is_drained, 30, "every message to be dealt with")
    assert cloud.bus.counts(LONG)["dead"] == 0
    cloud.stop()


def status(process, path):
    """Of a probe; none while nobody listens."""
    try:
        return process.ask(path)[0]
    except OSError:
        return None


def test_a_worker_without_a_broker_waits_and_goes_on(make_cloud):
    """R18."""
    cloud = make_cloud(**ALWAYS_LONG)
    cloud.platform()
    with FaultProxy(cloud.bus.port) as proxy:
        proxy.refuse()
        worker = cloud.worker(wait=False, bus_port=proxy.port, GEOWORKER_HTTP=free_address())
        until(lambda: status(worker, "/livez") == 200, 60, "the probes of a worker that waits")
        assert status(worker, "/readyz") == 503
        job = cloud.submit("hello_world", n=3)
        until(lambda: len(cloud.tasks(job)) == 3)
        proxy.accept()
        until(worker.is_ready, 60, "readiness")
        assert cloud.wait(job)["state"] == "completed"
        # The same in the middle of its life.
        proxy.refuse()
        until(lambda: not worker.is_ready(), 60, "the loss to be noticed")
        job = cloud.submit("hello_world", n=4)
        lines = len(worker.lines())
        waited = time.monotonic()
        until(lambda: time.monotonic() - waited > 5, 10)
        assert len(worker.lines()) - lines < 40, "it waits longer and longer, and does not fill the log"
        proxy.accept()
        assert cloud.wait(job)["state"] == "completed"
        until(worker.is_ready, 30, "readiness")
    assert all(task["attempt"] == 1 for task in cloud.tasks(job)), "no attempt was burnt"
    worker.kill()


def test_a_worker_without_storage_is_not_ready_and_burns_no_message(make_cloud, noise, tmp_path):
    """R18."""
    cloud = make_cloud(**ALWAYS_LONG)
    cloud.platform()
    with HttpFaultProxy(cloud.azurite.port) as proxy:
        worker = cloud.worker(bronze_port=proxy.port, silver_port=proxy.port)
        until(worker.is_ready, 30, "readiness")
        proxy.refuse()
        until(lambda: not worker.is_ready(), 60, "the loss to be noticed")
        job = cloud.submit_raster(cloud.put(noise))
        until(lambda: cloud.tasks(job))
        waited = time.monotonic()
        until(lambda: time.monotonic() - waited > 5, 10)
        (task,) = cloud.tasks(job)
        assert task["attempt"] <= 1 and task["state"] != "failed", "a broken worker does not use up a task's attempts"
        proxy.accept()
        until(worker.is_ready, 60, "readiness")
        assert cloud.wait(job)["state"] == "completed"
        assert all(task["attempt"] <= 2 for task in cloud.tasks(job))
        assert cloud.bus.peek(LONG, dead=True) == []
        check_outputs(cloud, noise, tmp_path, job)
        worker.kill()


def test_the_command_line_puts_and_lists_blobs_of_accounts(cloud, scene):
    platform = cloud.platform()
    platform.run("blobs", "put", scene, f"bronze/{CONTAINER}/by-hand.tif")
    assert cloud.azurite.read("bronze", CONTAINER, "by-hand.tif") == scene.read_bytes()
    cloud.azurite.put("silver", OUTPUTS, "folder/a.json", b"{}")
    assert "folder/a.json" in json.dumps(platform.run("blobs", "list", "silver"))
    cloud.stop()
