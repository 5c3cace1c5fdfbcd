"""The emulator of Azure Service Bus, as a process, and Microsoft's client to talk to it by hand."""

import base64
import contextlib
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "bin" / "geoworker-servicebus-emulator"
JOBS, RASTER, VECTOR, LONG = "geospatial-jobs", "raster-tasks", "vector-tasks", "long-running-tasks"
QUEUES = (JOBS, RASTER, VECTOR, LONG)
HOST = "127.0.0.1"
READY_SECONDS = 30
# Of the client, for one answer.
WAIT_SECONDS = 5


def installed():
    return PROGRAM.exists()


class ServiceBus:
    """A broker in one process. Its messages are in its memory: `restart_broker` keeps them, killing the process loses them."""

    def __init__(self, lock_seconds=5, max_deliveries=10, seed=1, folder=None, arguments=()):
        if not installed():
            raise FileNotFoundError(f"{PROGRAM.name} is not built")
        self.owned = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="geoworker-bus-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "emulator.log"
        self.queues = [f"{name}:lock={lock_seconds}s,max-deliveries={max_deliveries}" for name in QUEUES]
        self.seed = seed
        self.arguments = arguments
        self.port = self.admin_port = 0
        # A key that exists nowhere else: wherever it shows up, it was leaked.
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.process = None

    # The process

    def start(self):
        """Starts it with empty queues and waits until it listens; after the first time, on the same ports."""
        began = self.log.stat().st_size if self.log.exists() else 0
        queues = [part for queue in self.queues for part in ("--queue", queue)]
        command = [PROGRAM, "--port", self.port, "--admin-port", self.admin_port, "--seed", self.seed, *queues, *self.arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(list(map(str, command)), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + READY_SECONDS
        while not (listens := re.search(rf"listening amqp={HOST}:(\d+) admin={HOST}:(\d+)", self.log.read_text()[began:])):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the emulator does not come up: {self.log.read_text()[began:]}")
            time.sleep(0.02)
        self.port, self.admin_port = int(listens[1]), int(listens[2])
        return self

    def stop(self):
        """Ends it, and its messages with it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def remove(self):
        self.stop()
        if self.owned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    # Faults

    def admin(self, line):
        """The emulator's answer to one line on its admin port. A command that it refuses is an error of the test."""
        with socket.create_connection((HOST, self.admin_port), 5) as connection, connection.makefile("rw") as file:
            file.write(line + "\n")
            file.flush()
            answer = file.readline().strip()
        assert answer == "ok" or answer.startswith("ok "), f"{line}: {answer}"
        return answer[3:]

    def restart_broker(self):
        """As the service at an upgrade: every connection is closed, messages stay."""
        return self.admin("restart")

    def outage(self, seconds):
        """Nobody gets through for so long."""
        return self.admin(f"outage {seconds}s")

    def throttle(self, seconds):
        """Requests are answered with "server busy" for so long."""
        return self.admin(f"throttle {seconds}s")

    def fault(self, what, where, how="once"):
        """For instance `detach receive once`, or `drop after-complete 0.05`; the emulator's help lists them."""
        return self.admin(f"fault {what} {where} {how}")

    def clear_faults(self):
        return self.admin("clear")

    def counts(self, queue):
        """{"ready", "locked", "deferred", "scheduled", "dead": n} of a queue."""
        pairs = (word.split("=") for word in self.admin(f"counts {queue}").split())
        return {name: int(number) for name, number in pairs}

    def waiting(self, queue):
        """Messages of a queue in any state but dead."""
        return sum(number for name, number in self.counts(queue).items() if name != "dead")

    # Messages, by Microsoft's client

    def connection_string(self, port=None):
        """`port` is that of a proxy before the broker."""
        return (
            f"Endpoint=sb://{HOST}:{port or self.port};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey={self.key};"
            "UseDevelopmentEmulator=true;"
        )

    @contextlib.contextmanager
    def client(self):
        with ServiceBusClient.from_connection_string(self.connection_string(), retry_total=3, retry_backoff_factor=0.1) as client:
            yield client

    def send(self, queue, body, **properties):
        """Sends one message by hand: a text, as it is."""
        with self.client() as client, client.get_queue_sender(queue) as sender:
            sender.send_messages(ServiceBusMessage(body, content_type="application/json", application_properties=properties or None))

    def receive(self, queue, wait=WAIT_SECONDS, dead=False):
        """Takes everything that is there, at most 100 messages."""
        source = dict(sub_queue=ServiceBusSubQueue.DEAD_LETTER) if dead else {}
        with self.client() as client:
            mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
            with client.get_queue_receiver(queue, receive_mode=mode, **source) as receiver:
                return receiver.receive_messages(max_message_count=100, max_wait_time=wait)

    def dead_letters(self, queue, wait=WAIT_SECONDS):
        """Takes what is in a queue's dead-letter queue; each with `dead_letter_reason` and `dead_letter_error_description`."""
        return self.receive(queue, wait, dead=True)

    def peek(self, queue, dead=False):
        """What is in a queue, without taking it; at most 200 messages."""
        source = dict(sub_queue=ServiceBusSubQueue.DEAD_LETTER) if dead else {}
        with self.client() as client, client.get_queue_receiver(queue, **source) as receiver:
            return receiver.peek_messages(max_message_count=200)

    def secrets(self):
        """What must never be printed."""
        return {"Service Bus": self.key}
