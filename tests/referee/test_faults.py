"""Real faults inside native operations of a running server: each costs what it must, is called by its name, and nothing
else notices."""

import json
import signal

import pytest

from helpers import (
    FAST, alive, ended, events, fill, log_lines, mounted_disk, native_children, nothing_left, send_signal, serving, shown, state, submit,
    submit_raster, task_of, until, wait_for, write_noise,
)
from judges import check_cog, check_same_pixels
from rasters import write

# Slow enough to be hit in the middle, on any machine.
ENCODE_SLOWLY = dict(output_tier="archive")


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("slow") / "slow.tif")


def encoding(geoworker, server):
    """The native process that is in the middle of writing a COG; none before the file has grown a little."""
    files = (geoworker.zone("silver") / ".staging").rglob("*")
    grown = any(size(file) > 100_000 for file in files)
    return native_children(server.pid) if grown else []


def size(file):
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0


def hit(geoworker, server, number):
    """Sends a signal to the process that encodes, and waits for its effect."""
    victims = until(lambda: encoding(geoworker, server), what="the encoding")
    assert len(victims) == 1, f"one raster is encoded, by processes {victims}"
    victim = victims[0]
    assert send_signal(victim, number)
    if number == signal.SIGSTOP:
        until(lambda: state(victim) == "T", 5, "the halt")
    else:
        # Rust's runtime looks whether a fault was a stack overflow and lets it happen again; one that was sent does not.
        until(lambda: not alive(victim) or not send_signal(victim, number), 10, "the process's end")
    return victim


def codes(geoworker, job):
    """Codes of the attempts that failed, in their order."""
    found = []
    for event in shown(geoworker, job, events=True)["events"]:
        detail = event.get("detail") or ""
        if event["task_id"] and event["kind"] in ("task_retry", "task_failed"):
            found.append(detail.split(":")[0].split()[0])
    return found


def other_work_goes_on(geoworker):
    assert wait_for(geoworker, submit(geoworker, "hello_world", n=7))["result"]["replies"] == 7


def test_a_crash_costs_one_attempt(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        hit(geoworker, server, signal.SIGSEGV)
        other_work_goes_on(geoworker)
        done = wait_for(geoworker, job)
    assert done["state"] == "completed", done["error"]
    assert task_of(done, "create_cog")["attempt"] == 2
    assert codes(geoworker, job) == ["NATIVE_CRASH"]
    path = geoworker.silver(done["result"]["cog"]["target"])
    check_cog(path)
    check_same_pixels(slow, path)
    assert nothing_left(geoworker)


def test_a_crash_at_every_attempt_ends_the_job(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        tries = until(lambda: task_of(shown(geoworker, job), "create_cog"), what="the encoding's task")["max_retries"] + 1
        for _ in range(tries):
            hit(geoworker, server, signal.SIGSEGV)
        done = wait_for(geoworker, job)
        other_work_goes_on(geoworker)
    assert done["state"] == "failed"
    assert task_of(done, "create_cog")["error"]["code"] == "NATIVE_CRASH"
    assert codes(geoworker, job) == ["NATIVE_CRASH"] * tries
    assert geoworker.published() == [] and nothing_left(geoworker)


def test_a_kill_from_outside_is_no_lack_of_memory(make_geoworker, slow):
    """The kernel's out-of-memory killer sends the same signal, but then the memory was used."""
    geoworker = make_geoworker(**FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        hit(geoworker, server, signal.SIGKILL)
        done = wait_for(geoworker, job)
        other_work_goes_on(geoworker)
    assert done["state"] == "completed", done["error"]
    assert codes(geoworker, job) == ["NATIVE_CRASH"]
    assert nothing_left(geoworker)


def test_too_little_memory_is_said_and_other_rasters_still_fit(make_geoworker, slow, tmp_path):
    geoworker = make_geoworker(GEOWORKER_NATIVE_MEMORY_MB="60", **FAST)
    with serving(geoworker):
        big = submit_raster(geoworker, geoworker.put(slow))
        small = submit_raster(geoworker, geoworker.put(write(tmp_path / "small.tif", height=64, width=64)))
        failed = wait_for(geoworker, big)
        other_work_goes_on(geoworker)
        done = wait_for(geoworker, small)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "MEMORY"), failed["error"]
    assert "memory" in failed["error"]["message"], failed["error"]
    assert codes(geoworker, big) == ["MEMORY"] * 2, "tried once more, by a leaner plan, and no more"
    assert done["state"] == "completed", done["error"]
    assert not [name for name in geoworker.published() if "slow" in name] and nothing_left(geoworker)


def test_a_hanging_operation_can_be_cancelled(make_geoworker, slow):
    geoworker = make_geoworker(**FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        hung = hit(geoworker, server, signal.SIGSTOP)
        other_work_goes_on(geoworker)
        assert not ended(geoworker, job), "the lease is kept for as long as the attempt may take"
        geoworker.json("jobs", "cancel", job)
        done = wait_for(geoworker, job, 20)
        until(lambda: not alive(hung), 10, "the end of the hung process")
        other_work_goes_on(geoworker)
    assert done["state"] == "cancelled"
    assert geoworker.published() == [] and nothing_left(geoworker)


def test_a_hanging_operation_does_not_hold_up_the_end(make_geoworker, slow):
    geoworker = make_geoworker(GEOWORKER_GRACE_SECONDS="1", **FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        hung = hit(geoworker, server, signal.SIGSTOP)
    assert not alive(hung)
    given_back = task_of(shown(geoworker, job), "create_cog")
    assert (given_back["state"], given_back["attempt"]) == ("queued", 0)
    with serving(geoworker):
        assert wait_for(geoworker, job)["state"] == "completed"
    assert nothing_left(geoworker)


@pytest.fixture
def small_disk(tmp_path):
    with mounted_disk(tmp_path / "disk", 64) as folder:
        if folder is None:
            pytest.skip("SKIPPED: a small disk cannot be mounted here")
        yield folder


def on_small_disk(geoworker, folder, source):
    geoworker.data = folder / "data"
    return geoworker.put(source)


def test_a_full_disk_ends_one_job_and_the_server_goes_on(make_geoworker, small_disk, tmp_path):
    geoworker = make_geoworker(**FAST)
    name = on_small_disk(geoworker, small_disk, write_noise(tmp_path / "noise.tif", edge=2000, bands=1, levels=255))
    with serving(geoworker):
        wait_for(geoworker, submit(geoworker, "hello_world", n=3))
        filler = fill(small_disk)
        # The embedded database lies on the same disk and needs a little to accept jobs.
        filler.open("r+b").truncate(filler.stat().st_size - (2 << 20))
        job = submit_raster(geoworker, name)
        failed = wait_for(geoworker, job)
        other_work_goes_on(geoworker)
        assert (failed["state"], failed["error"]["code"]) == ("failed", "DISK_FULL"), failed["error"]
        assert set(codes(geoworker, job)) == {"DISK_FULL"}
        assert geoworker.published() == [] and nothing_left(geoworker, running=True)
        filler.unlink()
        again = geoworker.json("submit", "process_raster", "--force", "--param", "container_name=in", "--param", f"blob_name={name}")
        assert wait_for(geoworker, again["job_id"])["state"] == "completed"


def test_a_disk_that_is_freed_in_time_costs_attempts_only(make_geoworker, small_disk, tmp_path):
    geoworker = make_geoworker(**FAST | {"GEOWORKER_RETRY_BASE_MS": "2000"})
    name = on_small_disk(geoworker, small_disk, write_noise(tmp_path / "noise.tif", edge=2000, bands=1, levels=255))
    with serving(geoworker):
        filler = fill(small_disk)
        filler.open("r+b").truncate(filler.stat().st_size - (2 << 20))
        job = submit_raster(geoworker, name)
        until(lambda: "DISK_FULL" in codes(geoworker, job), what="the full disk")
        filler.unlink()
        done = wait_for(geoworker, job)
    assert done["state"] == "completed", done["error"]
    assert set(codes(geoworker, job)) == {"DISK_FULL"}
    check_cog(geoworker.silver(done["result"]["cog"]["target"]))
    assert nothing_left(geoworker)


def test_the_embedded_database_goes_on_when_its_disk_has_space_again(make_geoworker, small_disk):
    """A statement that finds no space ends its transaction by itself; the connection must notice."""
    geoworker = make_geoworker(**FAST)
    geoworker.data = small_disk / "data"
    log = geoworker.folder / "server.log"
    with serving(geoworker):
        job = submit(geoworker, "hello_world", n=1000)
        filler = fill(small_disk)
        until(lambda: sum(line["level"] == "WARN" for line in log_lines(log)) > 5, what="the database's lack of space")
        filler.unlink()
        assert wait_for(geoworker, job)["state"] == "completed"
        other_work_goes_on(geoworker)


def test_every_fault_is_in_the_log_with_its_context(make_geoworker, slow):
    """R19."""
    geoworker = make_geoworker(**FAST)
    with serving(geoworker) as server:
        job = submit_raster(geoworker, geoworker.put(slow), **ENCODE_SLOWLY)
        hit(geoworker, server, signal.SIGABRT)
        wait_for(geoworker, job)
    lines = [json.loads(line) for line in (geoworker.folder / "server.log").read_text().splitlines()]
    told = [line for line in lines if line.get("code") == "NATIVE_CRASH" and line.get("job_id") == job]
    assert told, "the crash is not in the log"
    assert {"task_id", "job_id", "task_type", "stage", "attempt", "duration_ms"} <= max(told, key=len).keys()
    assert len(events(geoworker, job, "job_ended")) == 1
