"""R5: the database over TLS. The certificate of the server is looked at where the mode says so."""

import os
import pwd
import shutil
import socket

import pytest

from identity import HOST, certificates
from postgres import SERVER_ACCOUNT, Postgres, binaries

pytestmark = pytest.mark.skipif(binaries() is None, reason="SKIPPED: PostgreSQL's server programs are not installed")


def free_port():
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return unused.getsockname()[1]


@pytest.fixture
def secured(tmp_path):
    """(a server that talks TLS on this machine, who signed its certificate)"""
    authority, *files = certificates(tmp_path)
    server = Postgres(durable=False)
    names = {}
    for setting, file in zip(("ssl_cert_file", "ssl_key_file"), files):
        copy = server.folder / file.name
        shutil.copy(file, copy)
        copy.chmod(0o600)
        if os.geteuid() == 0:
            account = pwd.getpwnam(SERVER_ACCOUNT)
            os.chown(copy, account.pw_uid, account.pw_gid)
        names[setting] = str(copy)
    server.settings |= {"listen_addresses": HOST, "port": str(free_port()), "ssl": "on"} | names
    with server:
        yield server, authority


def test_modes_of_encryption_do_what_they_say(secured, make_geoworker):
    server, authority = secured

    def geoworker(**settings):
        return make_geoworker(**server.environment() | {"POSTGRES_HOST": HOST} | settings)

    def encrypted():
        return server.scalar(
            "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'geoworker'"
        )

    trusted = {"POSTGRES_SSLROOTCERT": str(authority)}
    for mode, extra, expected in (("verify-full", trusted, "t"), ("verify-ca", trusted, "t"), ("require", {}, "t"), ("disable", {}, "f")):
        running = geoworker(POSTGRES_SSLMODE=mode, **extra)
        process = running.serve()
        assert encrypted() == expected, mode
        process.terminate()
        assert process.wait(30) == 0
    # The name of the certificate is an address, and nobody of this system has signed it.
    for settings in ({"POSTGRES_SSLMODE": "verify-full"}, {"POSTGRES_SSLMODE": "verify-full", "POSTGRES_HOST": "localhost"} | trusted):
        error = geoworker(**settings).json("workers", code=2)["error"]
        assert error["code"] == "DATABASE_UNAVAILABLE" and "certificate" in error["message"].lower(), error
