"""The cloud backends: empty tasks through the Service Bus emulator, and a large COG to Azurite beside GDAL.

    python tests/bench/cloud.py [--tasks 2000] [--workers 1 2] [--size 500] [--rounds 1] [--json FILE]

Messages: jobs of empty greetings on a platform and 1 or 2 workers; rates of claims and completions are read from the database's
events. Beside it what the same broker gives to Microsoft's client in one receiver, as a mark.

Upload: a raster of `--size` megabytes (2000 for 2 GB) lies in a storage account and becomes a COG in one, with DEFLATE:
- geoworker: the task `create_cog` of a job, with its inspection, statistics and the verification of every pixel, which no peer does;
- GDAL to /vsiaz/: `gdal_translate -of COG` with CPL_VSIL_USE_TEMP_FILE_FOR_RANDOM_WRITE=YES, without which it refuses;
- GDAL, then upload: `gdal_translate -of COG` to a local file, which Microsoft's client uploads in blocks.
"disk" is the most that was on the worker's disk at one time: scratch and temporary files. Azurite's own disk does not count. Needs
tools/install-azurite, the emulator, PostgreSQL's server programs and tests/referee/requirements.txt.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "referee"))

import numpy  # noqa: E402
import rasterio  # noqa: E402

from azurite import Azurite  # noqa: E402
from cloud import CONTAINER, OUTPUTS, Cloud  # noqa: E402
from postgres import Postgres  # noqa: E402
from rasters import NORTH_UP  # noqa: E402
from servicebus import LONG, ServiceBus  # noqa: E402

SLOTS = 16
# Greetings of a job, each with one reply.
GREETINGS = 500
LONGEST = 1800
STRIP = 512
# Seconds between two looks at the disk.
LOOK = 0.05
UPLOAD_THREADS = 4
OURS, VSIAZ, THEN_UPLOAD = "geoworker", "GDAL to /vsiaz/", "GDAL, then upload"


@contextlib.contextmanager
def clouds(postgres, work, **settings):
    """A fresh cloud with locks that last: nothing here is about losing them."""
    work.mkdir()
    database = work.name.replace("-", "_")
    postgres.create_database(database)
    with ServiceBus(lock_seconds=60, folder=work / "bus") as bus, Azurite(work / "azurite") as azurite:
        cloud = Cloud(work, postgres, database, bus, azurite, GEOWORKER_LEASE_SECONDS="30", GEOWORKER_SWEEP_SECONDS="30", **settings)
        try:
            yield cloud
        finally:
            cloud.close()


# Messages


def messages(postgres, work, workers, tasks):
    """Rates of one measurement."""
    with clouds(postgres, work, GEOWORKER_SLOTS=str(SLOTS)) as cloud:
        cloud.platform()
        for _ in range(workers):
            cloud.raster()
        # Nothing is measured that happens once.
        cloud.wait(cloud.submit("hello_world", n=1))
        count = max(1, tasks // (2 * GREETINGS))
        # Other parameters, other jobs.
        jobs = [cloud.submit("hello_world", n=GREETINGS - number) for number in range(count)]
        for job in jobs:
            cloud.wait(job, LONGEST)
        names = ", ".join(f"'{job}'" for job in jobs)

        def rate(kind):
            counted = f"FROM events WHERE kind = '{kind}' AND job_id IN ({names})"
            (row,) = postgres.query(f"SELECT count(*), min(at), max(at) {counted}", cloud.database)
            number, first, last = map(int, row)
            return number, 1000 * (number - 1) / max(1, last - first)

        claimed, claims = rate("task_claimed")
        completed, completions = rate("task_completed")
        expected = sum(2 * (GREETINGS - number) for number in range(count))
        if completed != expected:
            sys.exit(f"{completed} of {expected} tasks were completed")
        return {"tasks": completed, "claimed": claims, "completed": completions, "claims beyond the first": claimed - completed}


def by_microsofts_client(work, count):
    """Messages per second of one receiver that completes each, from the same broker."""
    with ServiceBus(lock_seconds=60, folder=work) as bus, bus.client() as client:
        with client.get_queue_sender(LONG) as sender:
            from azure.servicebus import ServiceBusMessage

            for start in range(0, count, 100):
                sender.send_messages([ServiceBusMessage("{}") for _ in range(start, min(count, start + 100))])
        with client.get_queue_receiver(LONG) as receiver:
            started, done = time.monotonic(), 0
            while done < count:
                for message in receiver.receive_messages(max_message_count=100, max_wait_time=5):
                    receiver.complete_message(message)
                    done += 1
        return count / (time.monotonic() - started)


# Upload


def make_raster(path, megabytes):
    """Three smooth bands with sensor noise, written in strips."""
    edge = int(math.sqrt(megabytes * 1e6 / 3))
    noise = numpy.random.default_rng(1)
    x = numpy.arange(edge)
    profile = dict(driver="GTiff", dtype="uint8", count=3, width=edge, height=edge, crs="EPSG:32633", transform=NORTH_UP, tiled=True,
                   blockxsize=STRIP, blockysize=STRIP, bigtiff="IF_SAFER")
    with rasterio.open(path, "w", **profile) as target:
        for top in range(0, edge, STRIP):
            rows = numpy.arange(top, min(edge, top + STRIP))
            ground = 110 + 80 * numpy.sin(x[None, :] / 531) * numpy.cos(rows[:, None] / 377)
            strip = numpy.stack([ground + 8 * band + noise.normal(0, 2.5, ground.shape) for band in range(3)])
            target.write(strip.clip(0, 255).astype("uint8"), window=((top, top + len(rows)), (0, edge)))
    return path


class Disk:
    """The most bytes that were below a folder at one time, and in open files without a name of processes that work in it."""

    def __init__(self, folder):
        self.folder = folder
        self.peak = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self.over.wait(LOOK):
            self.peak = max(self.peak, used(self.folder) + nameless(self.folder))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def used(folder):
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512 if path.is_file() else 0
    return total


def nameless(folder):
    """Bytes in deleted files that are still open: GDAL takes its temporary files' names away at once."""
    found = {}
    for process in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not process.name.isdigit() or not pathlib.Path(os.readlink(process / "cwd")).is_relative_to(folder):
                continue
            for handle in (process / "fd").iterdir():
                if os.readlink(handle).endswith(" (deleted)") and handle.is_file():
                    facts = handle.stat()
                    found[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def gdal(cloud, source, target, temporary):
    environment = os.environ | {
        "AZURE_STORAGE_CONNECTION_STRING": cloud.azurite.connection_string("silver"), "CPL_VSIL_USE_TEMP_FILE_FOR_RANDOM_WRITE": "YES",
        "CPL_TMPDIR": str(temporary), "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }
    command = [
        "gdal_translate", "-q", "-of", "COG", "-co", "COMPRESS=DEFLATE", "-co", "LEVEL=6", "-co", "PREDICTOR=YES", "-co", "NUM_THREADS=ALL_CPUS",
        "-co", "BIGTIFF=IF_SAFER", "-co", "OVERVIEW_RESAMPLING=AVERAGE", source, target,
    ]
    done = subprocess.run(command, env=environment, cwd=temporary, capture_output=True, text=True, timeout=LONGEST)
    if done.returncode:
        sys.exit(f"{command} failed: {done.stderr[-2000:]}")


def gdal_to_vsiaz(cloud, folder, turn):
    gdal(cloud, f"/vsiaz/{CONTAINER}/source.tif", f"/vsiaz/{OUTPUTS}/vsiaz-{turn}.tif", folder)
    return f"vsiaz-{turn}.tif"


def gdal_then_upload(cloud, folder, turn):
    local = folder / "cog.tif"
    gdal(cloud, f"/vsiaz/{CONTAINER}/source.tif", str(local), folder)
    with cloud.azurite.service("silver") as service, service.get_blob_client(OUTPUTS, f"then-{turn}.tif") as blob, open(local, "rb") as file:
        blob.upload_blob(file, overwrite=True, max_concurrency=UPLOAD_THREADS)
    local.unlink()
    return f"then-{turn}.tif"


def by_geoworker(cloud, worker, turn):
    """(seconds of the task, name of its blob)."""
    job = cloud.submit_raster("source.tif", output_folder=f"ours-{turn}", compression="deflate", raster_type="rgb")
    shown = cloud.wait(job, LONGEST)
    if shown["state"] != "completed":
        sys.exit(f"the job ended {shown['state']}: {shown.get('error')}")
    task = cloud.task(job, "create_cog")
    if cloud.holder(task) is not worker:
        sys.exit("another worker made the COG")
    return (task["ended_at"] - task["started_at"]) / 1000, json.loads(task["result"])["cog"]["target"]["name"]


def uploads(postgres, work, megabytes, rounds):
    """{way: [figures of each round]}, interleaved."""
    results = {OURS: [], VSIAZ: [], THEN_UPLOAD: []}
    with clouds(postgres, work, LONG_RUNNING_TASK_TYPES="extract_stac_metadata") as cloud:
        source = make_raster(work / "source.tif", megabytes)
        for account in ("bronze", "silver"):
            cloud.azurite.put(account, CONTAINER, "source.tif", source)
        source.unlink()
        cloud.platform()
        worker = cloud.worker()
        for turn in range(rounds):
            with Disk(worker.folder) as disk:
                seconds, name = by_geoworker(cloud, worker, turn)
            results[OURS].append(figures(cloud, name, seconds, disk))
            for way, run in ((VSIAZ, gdal_to_vsiaz), (THEN_UPLOAD, gdal_then_upload)):
                folder = work / f"{run.__name__}-{turn}"
                folder.mkdir()
                with Disk(folder) as disk:
                    started = time.monotonic()
                    name = run(cloud, folder, turn)
                    seconds = time.monotonic() - started
                results[way].append(figures(cloud, name, seconds, disk))
                shutil.rmtree(folder)
    return results


def figures(cloud, name, seconds, disk):
    blob = cloud.azurite.blobs("silver")[f"{OUTPUTS}/{name}"]
    return {"seconds": seconds, "disk_mb": disk.peak / 1e6, "output_mb": blob.size / 1e6, "blob": str(blob.blob_type)}


# Report


def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def tell_messages(rates, mark):
    print(f"{'workers':>7} {'tasks':>7} {'claimed/s':>10} {'completed/s':>12}")
    for workers, runs in rates.items():
        print(f"{workers:>7} {middle(runs, 'tasks'):7.0f} {middle(runs, 'claimed'):10.0f} {middle(runs, 'completed'):12.0f}")
    print(f"one receiver of Microsoft's client from the same broker: {mark:.0f} messages/s received and completed\n", flush=True)


def tell_uploads(results):
    print(f"{'':20} {'seconds':>8} {'disk, MB':>9} {'output, MB':>11}  blob")
    for way, runs in results.items():
        kind = runs[0]["blob"].split(".")[-1]
        print(f"{way:20} {middle(runs, 'seconds'):8.1f} {middle(runs, 'disk_mb'):9.0f} {middle(runs, 'output_mb'):11.0f}  {kind}")
    for way in (VSIAZ, THEN_UPLOAD):
        ratios = {key: middle(results[way], key) / max(1e-9, middle(results[OURS], key)) for key in ("seconds", "disk_mb")}
        disk = f"{ratios['disk_mb']:.1f} times the disk" if middle(results[OURS], "disk_mb") > 1 else "and we need no disk"
        print(f"{way} / geoworker: {ratios['seconds']:.2f} times the time, {disk}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=2000, help=f"of each measurement, in steps of {2 * GREETINGS}")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=500, help="megabytes of the raster; 0 leaves the upload out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = pathlib.Path(tempfile.mkdtemp(prefix="geoworker-bench-"))
    try:
        with Postgres() as postgres:
            measure(postgres, work, arguments)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(postgres, work, arguments):
    print(f"{os.cpu_count()} cores, {SLOTS} slots a worker, {arguments.rounds} interleaved round(s)", flush=True)
    rates, mark, uploaded = {}, None, {}
    if arguments.tasks:
        for turn in range(arguments.rounds):
            for workers in arguments.workers:
                rates.setdefault(workers, []).append(messages(postgres, work / f"messages-{workers}-{turn}", workers, arguments.tasks))
        mark = by_microsofts_client(work / "mark", min(arguments.tasks, 2000))
        tell_messages(rates, mark)
    if arguments.size:
        uploaded = uploads(postgres, work / "uploads", arguments.size, arguments.rounds)
        tell_uploads(uploaded)
    if arguments.json:
        arguments.json.write_text(json.dumps({"messages": rates, "mark": mark, "uploads": uploaded}, indent=2))


if __name__ == "__main__":
    main()
