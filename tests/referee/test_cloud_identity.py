"""R5, R16: a namespace opened by the identity of the container, over TLS, for a task that outlives locks and tokens."""

import signal
import time

import pytest

from cloud_fixtures import ALWAYS_LONG, check_outputs, needs_services
from helpers import send_signal, until
from identity import IdentityEndpoint, certificates
from servicebus import HOST, LONG

LOCK = 1
TOKEN = 9
BUS = "https://servicebus.azure.net"


@pytest.fixture
def endpoint():
    served = IdentityEndpoint(TOKEN)
    yield served
    served.close()


@needs_services
def test_a_task_outlives_twenty_locks_and_two_tokens(make_cloud, endpoint, noise, tmp_path):
    authority, certificate, key = certificates(tmp_path)
    broker = ("--tls-cert", certificate, "--tls-key", key, "--enforce-tokens")
    cloud = make_cloud(lock_seconds=LOCK, broker=broker, **ALWAYS_LONG)
    settings = endpoint.environment() | {
        "SERVICE_BUS_NAMESPACE": f"{HOST}:{cloud.bus.port}",
        # One or the other: an empty variable is none.
        "ServiceBusConnection": "",
        "SSL_CERT_FILE": str(authority),
    }
    cloud.platform(**settings)
    for _ in range(2):
        cloud.worker(**settings)
    job = cloud.submit_raster(cloud.put(noise))
    worker, native = cloud.hold(job)
    held = time.monotonic()
    asked = len(endpoint.asked)
    until(lambda: time.monotonic() - held > 20 * LOCK + 2, 30)
    assert len(endpoint.asked) >= asked + 2 and set(endpoint.asked) == {BUS}, endpoint.asked
    task = cloud.task(job, "create_cog")
    assert (task["state"], task["attempt"]) == ("processing", 1) and cloud.holder(task) is worker
    send_signal(native, signal.SIGCONT)
    assert cloud.wait(job)["state"] == "completed"
    task = cloud.task(job, "create_cog")
    assert (task["attempt"], task["lease_epoch"]) == (1, 1)
    ended = [event for event in cloud.events(job, "task_completed") if event["task_id"] == task["task_id"]]
    assert len(ended) == 1
    check_outputs(cloud, noise, tmp_path, job)
    until(lambda: not any(cloud.bus.counts(LONG).values()), 30, "every message to be dealt with")
    cloud.stop()


@needs_services
def test_a_broker_that_nobody_vouches_for_gets_no_token(make_cloud, endpoint, tmp_path):
    _, certificate, key = certificates(tmp_path)
    cloud = make_cloud(broker=("--tls-cert", certificate, "--tls-key", key))
    settings = endpoint.environment() | {"SERVICE_BUS_NAMESPACE": f"{HOST}:{cloud.bus.port}", "ServiceBusConnection": ""}
    worker = cloud.worker(**settings)
    until(lambda: any("QUEUE_UNAVAILABLE" in str(line) for line in worker.lines()), 90, "the refusal")
    assert endpoint.asked == [] and not worker.is_ready()
    cloud.stop()
