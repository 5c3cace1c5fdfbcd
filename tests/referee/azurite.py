"""A private Azurite: a real blob server in a folder of its own, with a storage account for each zone.

`tools/install-azurite` puts it into `.node/`. Inputs are put and outputs are read with Microsoft's client, so that nothing of ours
judges itself."""

import base64
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = ROOT / ".node" / "node"
PROGRAM = ROOT / ".node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
ACCOUNTS = ("bronze", "silver")
HOST = "127.0.0.1"
# Seconds until it must listen, and until it must be gone after SIGTERM.
READY_SECONDS = 60
STOP_SECONDS = 20
# Of a large blob, to be put in pieces: the client's own limit of one request is 64 MiB.
BLOCK_BYTES = 8 << 20


def installed():
    return PROGRAM.exists() and NODE.exists()


class Azurite:
    """The server, by accounts. Its folder outlives a stop and a restart, also on the same port."""

    def __init__(self, folder=None, accounts=ACCOUNTS):
        if not installed():
            raise FileNotFoundError("Azurite is not installed: run tools/install-azurite")
        self.owned = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="geoworker-azurite-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "azurite.log"
        # Keys that exist nowhere else: wherever one shows up, it was leaked.
        self.keys = {account: base64.b64encode(secrets.token_bytes(64)).decode() for account in accounts}
        self.port = 0
        self.process = None

    # The process

    def start(self):
        """Starts it and waits until it listens; after the first time, on the same port."""
        began = self.log.stat().st_size if self.log.exists() else 0
        command = [
            NODE, PROGRAM, "--blobHost", HOST, "--blobPort", self.port, "--location", self.folder / "blobs", "--silent",
            "--skipApiVersionCheck", "--disableTelemetry",
        ]
        accounts = ";".join(f"{account}:{key}" for account, key in self.keys.items())
        environment = {"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": accounts}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(list(map(str, command)), env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + READY_SECONDS
        while not (listens := re.search(rf"successfully listens on http://{HOST}:(\d+)", self.log.read_text()[began:])):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Azurite does not come up: {self.log.read_text()[began:]}")
            time.sleep(0.05)
        self.port = int(listens[1])
        return self

    def stop(self):
        """Ends it in order: everything that it acknowledged is in its folder."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        """Ends it at once. Unlike the service it may forget its last seconds: it writes its index every few seconds."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.stop()
        self.start()

    def freeze(self):
        """It accepts connections and answers none, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def remove(self):
        self.stop()
        if self.owned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    # Accounts and blobs

    def endpoint(self, account, port=None):
        """URL of an account; `port` is that of a proxy before the server."""
        return f"http://{HOST}:{port or self.port}/{account}"

    def connection_string(self, account, port=None):
        return f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={self.keys[account]};BlobEndpoint={self.endpoint(account, port)};"

    def service(self, account):
        return BlobServiceClient.from_connection_string(self.connection_string(account), max_single_put_size=BLOCK_BYTES, max_block_size=BLOCK_BYTES)

    def create_container(self, account, container):
        """Makes a container where it does not exist."""
        with self.service(account) as service:
            try:
                service.create_container(container)
            except ResourceExistsError:
                pass

    def put(self, account, container, name, content):
        """Writes a blob: bytes, or the file at a path."""
        self.create_container(account, container)
        with self.service(account) as service, service.get_blob_client(container, name) as blob:
            if isinstance(content, bytes):
                blob.upload_blob(content, overwrite=True)
                return
            with open(content, "rb") as file:
                blob.upload_blob(file, overwrite=True)

    def read(self, account, container, name):
        """A blob's bytes."""
        with self.service(account) as service, service.get_blob_client(container, name) as blob:
            return blob.download_blob().readall()

    def fetch(self, account, container, name, path):
        """Copies a blob into a file and answers its path."""
        with self.service(account) as service, service.get_blob_client(container, name) as blob, open(path, "wb") as file:
            blob.download_blob().readinto(file)
        return path

    def blobs(self, account):
        """{container/name: properties} of all committed blobs of an account."""
        found = {}
        with self.service(account) as service:
            for container in service.list_containers():
                with service.get_container_client(container.name) as client:
                    found |= {f"{container.name}/{blob.name}": blob for blob in client.list_blobs(include=["metadata"])}
        return found

    def uncommitted(self, account):
        """Names of blobs that have blocks and no committed list: uploads that were begun and not ended."""
        names = []
        with self.service(account) as service:
            for container in service.list_containers():
                with service.get_container_client(container.name) as client:
                    everything = {blob.name for blob in client.list_blobs(include=["uncommittedblobs"])}
                    committed = {blob.name for blob in client.list_blobs()}
                    names += [f"{container.name}/{name}" for name in everything - committed]
        return sorted(names)

    def secrets(self):
        """What must never be printed."""
        return dict(self.keys)
