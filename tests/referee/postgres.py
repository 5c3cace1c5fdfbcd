"""A private PostgreSQL: a cluster of its own in a folder of its own, reached by a Unix socket only."""

import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import time

USER = "geoworker"
DATABASE = "geoworker"
# With a socket only, the port is no more than a part of the socket's name.
PORT = 5432
# The account that runs the server where the tests run as root: PostgreSQL refuses to be root.
SERVER_ACCOUNT = "postgres"
# Seconds until a server that starts must answer, and until one that stops must be gone.
READY_SECONDS = 30
STOP_SECONDS = 60
# Neither occurs in what the tests read, line breaks do.
FIELD, RECORD, NULL = "\x1f", "\x1e", "\x1a"


class QueryFailed(Exception):
    """The server refused a statement or did not answer."""


def binaries():
    """Folder of the newest PostgreSQL server programs; none where there are none."""
    found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    by_version = sorted(found, key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()])
    if by_version:
        return by_version[-1]
    initdb = shutil.which("initdb")
    return pathlib.Path(initdb).resolve().parent if initdb else None


class Postgres:
    """A cluster in `folder`, or in a temporary folder. `durable=False` leaves out fsync: what a killed server promised
    stays promised, only a power failure would break it."""

    def __init__(self, folder=None, durable=True, settings=None):
        self.programs = binaries()
        if self.programs is None:
            raise FileNotFoundError("PostgreSQL's server programs (initdb, pg_ctl) are not installed")
        # A socket's path has at most 107 bytes, and the server's account must get there: test folders offer neither.
        self.folder = pathlib.Path(folder) if folder else pathlib.Path(tempfile.mkdtemp(prefix="geoworker-pg-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "port": str(PORT)}
        self.settings |= {} if durable else {"fsync": "off"}
        self.settings |= settings or {}

    def start(self):
        """Makes the cluster where there is none, starts the server and waits until it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self._control("start", "-W", "-l", self.log)
        self._wait_until_ready()
        if not self.query(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", database="postgres"):
            self.create_database(DATABASE)
        return self

    def stop(self, mode="fast"):
        """`fast` ends sessions in order, `immediate` is a crash; the next start recovers from it."""
        if self.running():
            self._control("stop", "-m", mode, "-w", "-t", STOP_SECONDS)

    def restart(self, mode="immediate"):
        self.stop(mode)
        self.start()

    def remove(self):
        """Ends the server, whatever its state, and removes the folder."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    def environment(self, database=DATABASE):
        """What geoworker is told."""
        return {
            "POSTGRES_HOST": str(self.folder),
            "POSTGRES_PORT": str(self.settings["port"]),
            "POSTGRES_USER": USER,
            # The server trusts whoever reaches its socket; geoworker would take no password for a token's absence.
            "POSTGRES_PASSWORD": "unused",
            "POSTGRES_DATABASE": database,
        }

    def query(self, sql, database=DATABASE, timeout=30):
        """Rows of a statement, as tuples of texts; NULL is None."""
        command = [
            self.programs / "psql", "-X", "-q", "-At", "-F", FIELD, "-R", RECORD, "-P", f"null={NULL}", "-v", "ON_ERROR_STOP=1",
            "-h", self.folder, "-p", self.settings["port"], "-U", USER, "-d", database, "-c", sql,
        ]
        try:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise QueryFailed(f"no answer within {timeout} s: {sql}") from None
        if done.returncode:
            raise QueryFailed(done.stderr.strip())
        text = done.stdout.removesuffix("\n")
        records = text.split(RECORD) if text else []
        return [tuple(None if field == NULL else field for field in record.split(FIELD)) for record in records]

    def scalar(self, sql, database=DATABASE):
        """The only field of the only row."""
        return self.query(sql, database)[0][0]

    def connections(self, database=DATABASE):
        """Sessions of clients, this question's own left out."""
        return int(self.scalar(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()", database="postgres",
        ))

    def create_database(self, name):
        self.query(f'CREATE DATABASE "{name}"', database="postgres")

    def running(self):
        return (self.data / "postmaster.pid").exists() and self._run("pg_ctl", "-D", self.data, "status", check=False).returncode == 0

    def _create(self):
        if os.geteuid() == 0:
            account = pwd.getpwnam(SERVER_ACCOUNT)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.folder.chmod(0o755)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")

    def _control(self, *arguments):
        # As arguments of the start they hold for this cluster only and need no file of their own.
        options = " ".join(f"-c {key}='{value}'" for key, value in self.settings.items())
        extra = ["-o", options] if arguments[0] == "start" else []
        self._run("pg_ctl", "-D", self.data, *arguments, *extra, "-s")

    def _run(self, program, *arguments, check=True):
        command = [str(self.programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={SERVER_ACCOUNT}", f"--regid={SERVER_ACCOUNT}", "--clear-groups", *command]
        # The server inherits what it is started with: a pipe would never end.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=STOP_SECONDS + 30)
            said.seek(0)
            if check and done.returncode:
                log = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
                raise RuntimeError(f"{program} failed with {done.returncode}: {said.read()}\n{log}")
        return done

    def _wait_until_ready(self):
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.query("SELECT 1", database="postgres", timeout=5)
                return
            except QueryFailed as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"PostgreSQL does not answer: {error}") from None
            time.sleep(0.05)
