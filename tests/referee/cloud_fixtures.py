"""What the tests in the cloud share: its services, its rasters, and how its outputs are judged. A pytest plugin."""

import json
import time

import pytest

import azurite as azurite_module
import servicebus as servicebus_module
from azurite import Azurite
from cloud import Cloud
from conftest import SHARED
from helpers import write_noise
from judges import check_cog, check_item, check_same_pixels
from postgres import binaries
from servicebus import ServiceBus

NEEDED = {
    "PostgreSQL's server programs": binaries() is not None,
    "Azurite (tools/install-azurite)": azurite_module.installed(),
    "the Service Bus emulator (make build)": servicebus_module.installed(),
}
MISSING = [what for what, there in NEEDED.items() if not there]
needs_services = pytest.mark.skipif(bool(MISSING), reason=f"SKIPPED: not installed: {', '.join(MISSING)}")
# Nobody sweeps while a test lasts: what goes on goes on by messages.
NO_SWEEP = {"GEOWORKER_SWEEP_SECONDS": "300"}
ALWAYS_LONG = {"LONG_RUNNING_TASK_TYPES": "hello_greet,hello_reply,extract_stac_metadata"}
# A broker's lock, and a task that lasts six times as long.
SHORT_LOCK, LONG_TASK = 2, 12
BROKER_LOCK = 5


@pytest.fixture
def make_cloud(tmp_path, postgres_server):
    made = []

    def make(lock_seconds=BROKER_LOCK, broker=(), **settings):
        database = f"cloud_{time.monotonic_ns()}"
        postgres_server.create_database(database)
        bus = ServiceBus(lock_seconds=lock_seconds, folder=tmp_path / "bus", arguments=broker).start()
        azurite = Azurite(tmp_path / "azurite").start()
        made.append((bus, azurite, Cloud(tmp_path, postgres_server, database, bus, azurite, **settings)))
        return made[-1][-1]

    yield make
    for bus, azurite, cloud in made:
        try:
            cloud.close()
        finally:
            bus.remove()
            azurite.remove()


@pytest.fixture
def cloud(make_cloud):
    return make_cloud()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A raster above the threshold that takes a second or two to encode."""
    return write_noise(tmp_path_factory.mktemp("noise") / "noise.tif", edge=2000)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A raster whose COG is uploaded in several blocks."""
    return write_noise(tmp_path_factory.mktemp("large") / "large.tif", edge=4000)


@pytest.fixture(scope="module")
def scene(noise):
    """A real raster above the threshold, where there is one."""
    real = SHARED / "RGB.byte.tif"
    return real if real.is_file() else noise


def check_outputs(cloud, source, tmp_path, job):
    """What the job made is in the silver account, and what judges accept. Answers the STAC item."""
    cog = cloud.task(job, "create_cog")
    target = json.loads(cog["result"])["cog"]["target"]
    path = cloud.fetch(target, tmp_path / "fetched.tif")
    check_cog(path)
    check_same_pixels(source, path)
    item = f"{target['name'].removesuffix('.tif')}.json"
    assert {f"{target['container']}/{name}" for name in (target["name"], item)} <= set(cloud.outputs())
    found = check_item(cloud.fetch({"container": target["container"], "name": item}, tmp_path / "fetched.json"))
    assert cloud.local_blobs() == [], "zones are accounts, not folders"
    return found
