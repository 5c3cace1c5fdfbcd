"""Nothing is lost and nothing is half done, whatever is killed, filled up or started twice."""

import json
import shutil
import signal
import subprocess
import time

import numpy
import pytest
import rasterio

from conftest import ROOT, SHARED
from helpers import FAST, alive, children, until, write_noise
from judges import check_cog, check_same_pixels
from rasters import NORTH_UP, write


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A raster that takes seconds to encode: noise, at the highest level."""
    path = tmp_path_factory.mktemp("slow") / "slow.tif"
    write_noise(path)
    return path


def submit_slow(geoworker, slow):
    geoworker.put(slow)
    source = ["--param", "container_name=in", "--param", "blob_name=slow.tif", "--param", "output_tier=archive"]
    return geoworker.json("submit", "process_raster", *source)["job_id"]


def task(geoworker, job, task_type):
    tasks = geoworker.json("tasks", "list", job)
    return next((task for task in tasks if task["task_type"] == task_type), None)


def encoding(geoworker):
    """The native process that writes into the silver zone's staging folder."""
    staging = geoworker.zone("silver") / ".staging"
    return any(size(file) > 100_000 for file in staging.rglob("*"))


def size(file):
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0


def ended(geoworker, job):
    shown = geoworker.json("jobs", "show", job)
    return shown if shown["ended_at"] else None


def operations(geoworker, task_type):
    """Operations that really ran, from the server's log."""
    lines = [json.loads(line) for line in (geoworker.folder / "server.log").read_text().splitlines()]
    return [line["operation"] for line in lines if line.get("task_type") == task_type and line.get("message") == "operation finished"]


def test_kill_in_the_middle_of_create_cog(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    job = submit_slow(geoworker, slow)
    until(lambda: encoding(geoworker))
    orphans = children(server.pid)
    server.kill()
    server.wait()
    assert orphans, "the encoder runs in a process of its own"
    until(lambda: not any(alive(pid) for pid in orphans), 5)
    assert geoworker.published() == [], "no partial file is visible"

    server = geoworker.serve()
    seen = set()
    shown = until(lambda: seen.update(geoworker.published()) or ended(geoworker, job))
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    assert shown["state"] == "completed"
    cog = next(task for task in shown["tasks"] if task["task_type"] == "create_cog")
    assert cog["attempt"] == 2
    ran = operations(geoworker, "create_cog")
    assert ran.count("raster.inspect") == 1, f"finished operations are not run again: {ran}"
    assert ran.count("raster.create-cog") == 1
    path = geoworker.silver(shown["result"]["cog"]["target"])
    check_cog(path)
    check_same_pixels(slow, path)
    assert list((geoworker.zone("silver") / ".staging").iterdir()) == []
    assert list((geoworker.data / "scratch").iterdir()) == []


def test_sigterm_lets_the_task_finish(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    job = submit_slow(geoworker, slow)
    until(lambda: encoding(geoworker))
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    assert task(geoworker, job, "create_cog")["state"] == "completed"


def test_past_the_grace_period_the_task_is_given_back(make_geoworker, slow):
    geoworker = make_geoworker(GEOWORKER_GRACE_SECONDS="0.1", **FAST)
    server = geoworker.serve()
    job = submit_slow(geoworker, slow)
    until(lambda: encoding(geoworker))
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    given_back = task(geoworker, job, "create_cog")
    assert (given_back["state"], given_back["attempt"]) == ("queued", 0)
    assert geoworker.published() == []
    server = geoworker.serve()
    assert until(lambda: ended(geoworker, job))["state"] == "completed"
    assert task(geoworker, job, "create_cog")["attempt"] == 1
    server.terminate()
    assert server.wait(60) == 0


def test_a_task_that_outlives_its_lease_many_times_runs_once(make_geoworker, slow):
    geoworker = make_geoworker(GEOWORKER_LEASE_SECONDS="1", **FAST)
    server = geoworker.serve()
    job = submit_slow(geoworker, slow)
    shown = until(lambda: ended(geoworker, job))
    server.terminate()
    server.wait(60)
    assert shown["state"] == "completed"
    assert [task["attempt"] for task in shown["tasks"]] == [1, 1, 1]
    assert operations(geoworker, "create_cog").count("raster.create-cog") == 1


def test_one_server_per_data_directory_and_any_number_of_submitters(make_geoworker):
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    until(lambda: (geoworker.data / "geoworker.db").exists())
    until(lambda: geoworker.json("serve", code=2)["error"]["code"] == "DATA_DIR_IN_USE")
    submitters = [
        subprocess.Popen(geoworker.command("submit", "hello_world", "--param", f"n={n}", "--wait"), env=geoworker.environment, stdout=subprocess.DEVNULL)
        for n in range(1, 9)
    ]
    assert [process.wait(60) for process in submitters] == [0] * 8
    assert geoworker.json("run", "hello_world", "--param", "n=9")["state"] == "completed"
    server.terminate()
    assert server.wait(30) == 0


def test_chaos_ends_and_is_told(make_geoworker):
    geoworker = make_geoworker(**FAST)
    job = geoworker.json("run", "hello_world", "--param", "n=60", "--param", "failure_rate=0.5")
    assert job["state"] in ("completed", "completed_with_errors")
    tasks = geoworker.json("tasks", "list", job["job_id"])
    greets = [task for task in tasks if task["task_type"] == "hello_greet"]
    assert any(task["attempt"] > 1 for task in greets), "failures were retried"
    failed = [task for task in greets if task["state"] == "failed"]
    assert all(task["error"]["code"] == "HELLO_CHAOS" and task["attempt"] == 6 for task in failed)
    assert job["result"]["replies"] == 60 - len(failed)
    always = geoworker.json("run", "hello_world", "--param", "n=2", "--param", "failure_rate=1")
    assert always["state"] == "completed_with_errors" and always["result"]["replies"] == 0


def test_what_a_task_waits_for_is_told(make_geoworker):
    """Retries in an hour: the run is interrupted, and the tasks say what they wait for."""
    geoworker = make_geoworker(GEOWORKER_RETRY_BASE_MS="600000")
    server = geoworker.serve()
    job = geoworker.json("submit", "hello_world", "--param", "n=1", "--param", "failure_rate=1")["job_id"]
    task = until(lambda: next((t for t in geoworker.json("tasks", "list", job) if t["state"] == "pending_retry"), None))
    assert "next attempt at" in task["waiting"] and "HELLO_CHAOS" in task["waiting"]
    server.terminate()
    assert server.wait(30) == 0


def test_work_of_a_missing_plugin_waits_for_it(make_geoworker, tmp_path):
    geoworker = make_geoworker(**FAST)
    job = geoworker.json("submit", "hello_world", "--param", "n=2")["job_id"]
    other = tmp_path / "other-plugins"
    shutil.copytree(ROOT / "plugins/dist", other)
    (other / "hello.wasm").write_bytes(b"broken")
    without = make_geoworker(**FAST | {"GEOWORKER_PLUGINS": str(other)})
    server = without.serve()
    until(lambda: "the job waits" in (geoworker.folder / "server.log").read_text())
    assert geoworker.json("jobs", "show", job)["state"] == "queued"
    server.terminate()
    assert server.wait(30) == 0
    server = geoworker.serve()
    assert until(lambda: ended(geoworker, job))["state"] == "completed"
    server.terminate()
    assert server.wait(30) == 0


def test_a_server_can_stop_after_some_tasks(make_geoworker):
    geoworker = make_geoworker(**FAST)
    job = geoworker.json("submit", "hello_world", "--param", "n=5")["job_id"]
    geoworker.run("serve", "--max-tasks", "2")
    tasks = geoworker.json("tasks", "list", job)
    assert sorted(task["state"] for task in tasks) == ["completed"] * 2 + ["queued"] * 3
    geoworker.run("serve", "--max-tasks", "8")
    assert geoworker.json("run", "hello_world", "--param", "n=5")["state"] == "completed"


def test_the_same_job_twice_is_one_run(geoworker):
    first = geoworker.json("run", "hello_world")
    assert geoworker.json("run", "hello_world")["job_id"] == first["job_id"]
    forced = geoworker.json("run", "hello_world", "--force")
    assert (forced["run_ordinal"], forced["previous_run"]) == (2, first["job_id"])


def test_cancel_stops_a_running_job_and_publishes_nothing(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    server = geoworker.serve()
    job = submit_slow(geoworker, slow)
    until(lambda: encoding(geoworker))
    started = time.monotonic()
    geoworker.json("jobs", "cancel", job[:12])
    shown = until(lambda: ended(geoworker, job), 20)
    assert time.monotonic() - started < 10
    assert shown["state"] == "cancelled"
    assert [task["state"] for task in shown["tasks"]] == ["completed", "cancelled"]
    assert geoworker.json("jobs", "cancel", job, code=2)["error"]["code"] == "JOB_OVER"
    assert geoworker.json("run", "hello_world")["state"] == "completed", "other work goes on"
    server.terminate()
    assert server.wait(60) == 0
    assert geoworker.published() == []
    assert list((geoworker.zone("silver") / ".staging").iterdir()) == []


def test_a_job_that_waits_can_be_cancelled_without_a_server(geoworker):
    job = geoworker.json("submit", "hello_world", "--param", "n=50")["job_id"]
    geoworker.json("jobs", "cancel", job)
    assert geoworker.json("run", "hello_world", "--param", "n=1")["state"] == "completed"
    server = geoworker.serve()
    assert until(lambda: ended(geoworker, job))["state"] == "cancelled"
    server.terminate()
    assert server.wait(30) == 0


def test_ctrl_c_leaves_no_half_file(geoworker, slow):
    target = geoworker.folder / "out.tif"
    process = subprocess.Popen(
        geoworker.command("cog", slow, target, "--level", "12"), env=geoworker.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: any(file.stat().st_size > 100_000 for file in geoworker.folder.glob(".out.tif*/*") if file.is_file()))
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert not target.exists() and not list(geoworker.folder.glob(".out.tif*"))


def test_memory_and_time_limits_have_their_codes(make_geoworker, slow):
    geoworker = make_geoworker(GEOWORKER_NATIVE_MEMORY_MB="60", **FAST)
    job = geoworker.json("run", "process_raster", "--param", "container_name=in", "--param", f"blob_name={geoworker.put(slow)}", code=1)
    assert job["error"]["code"] == "MEMORY", job["error"]
    assert "memory" in job["error"]["message"]
    assert geoworker.published() == []
    assert make_geoworker(**FAST).json("run", "hello_world")["state"] == "completed"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_fails_one_job_and_no_other(make_geoworker, small_disk, tmp_path):
    geoworker = make_geoworker(**FAST)
    geoworker.data = small_disk / "data"
    noise = numpy.random.default_rng(2).integers(0, 255, (1500, 3000), "uint8")
    source = tmp_path / "noise.tif"
    with rasterio.open(source, "w", driver="GTiff", dtype="uint8", count=1, width=3000, height=1500, crs="EPSG:32633", transform=NORTH_UP) as target:
        target.write(noise, 1)
    name = geoworker.put(source)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (25 << 20))
    job = geoworker.process(name, code=1)
    assert job["error"]["code"] == "DISK_FULL", job["error"]
    assert geoworker.published() == []
    assert geoworker.json("run", "hello_world")["state"] == "completed", "other work goes on"
    filler.unlink()
    again = geoworker.json("run", "process_raster", "--force", "--param", "container_name=in", "--param", f"blob_name={name}")
    assert again["state"] == "completed"


def test_log_lines_carry_their_context(make_geoworker, tmp_path):
    """R23."""
    geoworker = make_geoworker(APP_NAME="unit", **FAST)
    server = geoworker.serve()
    geoworker.put(write(tmp_path / "a.tif"))
    geoworker.json("submit", "process_raster", "--param", "container_name=in", "--param", "blob_name=a.tif", "--wait")
    server.terminate()
    server.wait(30)
    lines = [json.loads(line) for line in (geoworker.folder / "server.log").read_text().splitlines()]
    assert all({"timestamp", "level", "message", "app_name"} <= line.keys() and line["app_name"] == "unit" for line in lines)
    done = [line for line in lines if line["message"] == "task completed"]
    assert len(done) == 3
    for line in done:
        assert {"task_id", "job_id", "task_type", "stage", "attempt", "duration_ms"} <= line.keys()


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"SKIPPED: the shared rasters are not at {SHARED}")
def test_a_broken_raster_is_told_and_dead_lettered_once(make_geoworker):
    geoworker = make_geoworker(**FAST)
    job = geoworker.process(geoworker.put(SHARED / "corrupt.tif"), code=1)
    events = geoworker.json("jobs", "show", job["job_id"], "--events")["events"]
    failed = [event for event in events if event["kind"] == "task_failed"]
    assert len(failed) == 1 and "FILE_UNREADABLE" in failed[0]["detail"]
