"""The soak in the cloud: the same jobs and the same judgement as soak.py, over the Service Bus emulator and Azurite.

    python tests/soak/cloud_soak.py --seed 1 --jobs 150 --workers 4 [--minutes M] [--json FILE]

One platform, one worker for short tasks, container workers for the rest; each has a data directory of its own. First undisturbed.
Then some of all requests to the blob server are answered with 503 and 500, reset, or their answers are lost; the broker detaches
links, drops connections, is busy and takes locks away; and a saboteur kills and freezes workers, restarts the database and takes
broker and blob server away for a while. Nothing may be lost, and nothing may be done twice.
"""

import contextlib
import hashlib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "referee"))
sys.path.insert(0, str(ROOT / "tests" / "soak"))

from azurite import Azurite  # noqa: E402
from cloud import leaks  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from http_fault_proxy import HttpFaultProxy, HttpFaults  # noqa: E402
from servicebus import QUEUES, ServiceBus  # noqa: E402
from soak import CONTAINER, LEASE_SECONDS, Failed, Fleet, Saboteur, Soak, Worker, is_hidden, main  # noqa: E402

# Of requests to the blob server.
BLOB_FAULTS = HttpFaults(unavailable=0.03, error=0.01, reset=0.01, lost_answer=0.01, cut_answer=0.01)
# Of operations of the broker, as its emulator takes them.
BROKER_FAULTS = [
    "detach receive 0.03", "drop before-complete 0.02", "drop after-complete 0.02", "busy send 0.05", "close renew 0.02", "lose-lock renew 0.03",
]
LOCK_SECONDS = 5
OUTPUTS = "cogs"
# Seconds that the outbox may take to be empty once nothing disturbs it.
QUIET_SECONDS = 20


class CloudWorker(Worker):
    """One process of a mode, on a machine of its own."""

    def __init__(self, fleet, number, mode):
        super().__init__(fleet, number)
        self.mode = mode
        self.data = fleet.data / f"machine-{number}"

    def start(self):
        self.began = self.log.stat().st_size if self.log.exists() else 0
        environment = self.fleet.environment | {"APP_MODE": self.mode, "APP_NAME": f"{self.mode}-{self.number}"}
        command = [str(self.fleet.binary), "--data-dir", str(self.data), "serve"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.fleet.logs, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )


class CloudFleet(Fleet):
    """Processes that share a database, a broker and storage accounts."""

    def __init__(self, work, name, binary, postgres, workers, retry_ms, data, services):
        data.mkdir()
        super().__init__(work, name, binary, postgres, workers, retry_ms, data)
        self.services = services
        self.environment |= services.environment() | {
            "APP_MODE": "platform_only", "RASTER_SIZE_THRESHOLD_MB": "1", "GEOWORKER_HTTP": "127.0.0.1:0",
        }
        modes = ["platform_only", "worker_raster", *["worker_docker"] * max(1, workers - 2)]
        self.workers = [CloudWorker(self, number, mode) for number, mode in enumerate(modes)]

    def stop(self):
        """What waits in the outbox is sent before: a broker that is busy at the very end would be no finding."""
        self.services.calm()
        with contextlib.suppress(Failed):
            self.wait(lambda: self.count("SELECT count(*) FROM outbox") == 0, QUIET_SECONDS, "the outbox to be empty")
        return super().stop()

    def published(self):
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.services.silver().items() if not is_hidden(name)}

    def hidden(self):
        return {name: content for name, content in self.services.silver().items() if is_hidden(name)}

    def left_behind(self):
        local = [path for path in self.data.glob("machine-*/zones/**/*") if path.is_file()]
        scratch = list(self.data.glob("machine-*/scratch/*"))
        return [str(path.relative_to(self.data)) for path in local + scratch] + super().left_behind()


class Services:
    """Broker and blob server, each behind a proxy that can do harm."""

    def __init__(self, stack, work, seed, blobs):
        self.azurite = stack.enter_context(Azurite(work / "azurite"))
        self.bus = stack.enter_context(ServiceBus(lock_seconds=LOCK_SECONDS, seed=seed, folder=work / "bus"))
        # The same ports in both runs: URLs may be written into items.
        self.blob_proxy = stack.enter_context(HttpFaultProxy(self.azurite.port, seed))
        self.bus_proxy = stack.enter_context(FaultProxy(self.bus.port, seed))
        for path in sorted(blobs.iterdir()):
            self.azurite.put("bronze", CONTAINER, path.name, path)

    def environment(self):
        port = self.blob_proxy.port
        return {
            "ServiceBusConnection": self.bus.connection_string(self.bus_proxy.port),
            "BRONZE_STORAGE_CONNECTION": self.azurite.connection_string("bronze", port),
            "SILVER_STORAGE_CONNECTION": self.azurite.connection_string("silver", port),
        }

    def renew(self):
        """Empty queues and an empty silver account: a run begins."""
        self.bus.stop()
        self.bus.start()
        with self.azurite.service("silver") as service:
            for container in service.list_containers():
                service.delete_container(container.name)
        self.azurite.create_container("silver", OUTPUTS)

    def disturb(self):
        self.blob_proxy.faults = BLOB_FAULTS
        for fault in BROKER_FAULTS:
            self.bus.fault(*fault.split())

    def calm(self):
        self.blob_proxy.faults = HttpFaults()
        self.bus.clear_faults()

    def silver(self):
        """{container/name: content} of all blobs of the silver account."""
        return {name: self.azurite.read("silver", *name.split("/", 1)) for name in self.azurite.blobs("silver")}

    def secrets(self):
        return self.azurite.secrets() | self.bus.secrets()


class CloudSaboteur(Saboteur):
    USUAL = Saboteur.USUAL + ["restart_broker", "broker_outage", "throttle", "broker_connections", "blob_outage", "blob_stall"]

    @property
    def services(self):
        return self.fleet.services

    def restart_broker(self):
        self.services.bus.restart_broker()

    def broker_outage(self):
        self.services.bus.outage(round(self.random.uniform(1, LEASE_SECONDS), 1))

    def throttle(self):
        self.services.bus.throttle(round(self.random.uniform(1, 3), 1))

    def broker_connections(self):
        """All TCP connections to the broker are reset, and for a moment there are no new ones."""
        self.services.bus_proxy.refuse_for(self.random.uniform(0.2, 2))

    def lose_broker(self):
        """The broker's process dies, and its messages with it: the rows are the truth, and the sweeper sends hints again."""
        self.services.bus.stop()
        self.wait(self.random.uniform(0.2, 1))
        self.services.bus.start()
        self.services.disturb()

    def blob_outage(self):
        self.services.blob_proxy.refuse_for(self.random.uniform(0.5, LEASE_SECONDS))

    def blob_stall(self):
        self.services.blob_proxy.stall(self.random.uniform(0.5, LEASE_SECONDS))


class CloudSoak(Soak):
    saboteur = CloudSaboteur
    REQUIRED = ["kill", "freeze", "terminate", "crash_database", "restart_broker", "broker_outage", "throttle", "lose_broker", "blob_outage", "blob_stall"]

    def __init__(self, seed=1, jobs=150, workers=4, minutes=None, required=None, actions=None, **settings):
        required = required or self.REQUIRED
        actions = actions if actions is not None else max(len(required), jobs // 10)
        super().__init__(seed, jobs, max(3, workers), minutes, full_disk=False, actions=actions, required=required, **settings)
        self.services = None

    def _fleet(self, stack, name, data, blobs):
        if self.services is None:
            self.services = Services(stack, self.work, self.seed, blobs)
        self.services.renew()
        fleet = CloudFleet(self.work, name, self.binary, self.postgres, self.worker_count, self.retry_ms, data, self.services)
        stack.callback(fleet.kill)
        fleet.start()
        if name == "disturbed":
            self.services.disturb()
        return fleet

    def _invariants(self, fleet, name):
        super()._invariants(fleet, name)
        said = {log.name: log.read_text(errors="replace") for log in fleet.logs.glob("*.log")}
        self._check(f"{name}: no secret is in a log", leaks(said, self.services.secrets()))

    def _figures(self, fleet):
        super()._figures(fleet)
        for what, number in sorted(self.services.blob_proxy.counts.items()):
            self.figures[f"blob server: {what}"] = number
        self.figures["uploads begun and never ended"] = len(self.services.azurite.uncommitted("silver"))
        self.figures["messages left"] = sum(self.services.bus.waiting(queue) for queue in QUEUES)
        self.figures["dead letters"] = sum(self.services.bus.counts(queue)["dead"] for queue in QUEUES)


if __name__ == "__main__":
    sys.exit(main(CloudSoak, __doc__, jobs=150, workers_help="processes: a platform, one for short tasks, the rest in containers"))
