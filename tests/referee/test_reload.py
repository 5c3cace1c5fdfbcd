"""Plugins are replaced, broken and taken away while a server runs; and only trusted ones are loaded."""

import base64
import hashlib
import json
import shutil
import subprocess

import pytest

from conftest import ROOT
from helpers import until

DIST = ROOT / "plugins/dist"
# So long that what goes on in time was not waited for.
SWEEP_SECONDS = "600"


@pytest.fixture
def plugins(tmp_path):
    return shutil.copytree(DIST, tmp_path / "plugins")


def marked(content, mark):
    """The same plugin with another digest: a custom section at its end."""
    name = b"m"
    payload = bytes([len(name)]) + name + mark.encode()
    assert len(payload) < 128, "one byte of LEB128"
    return content + bytes([0, len(payload)]) + payload


def replace(path, content):
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.rename(path)


def reloads(log):
    return [json.loads(line) for line in log.read_text().splitlines() if '"plugins reloaded"' in line]


def test_work_without_its_plugin_waits_and_goes_on_with_the_reload(make_geoworker, plugins, tmp_path):
    """B4."""
    geoworker = make_geoworker(GEOWORKER_PLUGINS=str(plugins), GEOWORKER_SWEEP_SECONDS=SWEEP_SECONDS)
    log = tmp_path / "server.log"
    server = geoworker.serve()
    hello = (plugins / "hello.wasm").read_bytes()
    (plugins / "hello.wasm").unlink()
    until(lambda: reloads(log)[-1:] and "hello.wasm" in reloads(log)[-1]["removed"], what="the plugin to be gone")
    # Whoever submits has the plugin; the server does not.
    job = geoworker.json("submit", "hello_world", "--plugins", DIST, "--param", "n=3")["job_id"]
    until(lambda: "the job waits" in log.read_text(), what="the job to wait")
    waiting = geoworker.json("jobs", "show", job)["waiting"]
    assert "plugin" in waiting and "hello_world" in waiting, waiting
    replace(plugins / "hello.wasm", hello[:1000])
    until(lambda: "hello.wasm" in reloads(log)[-1]["failed"], what="the broken plugin to be refused")
    assert geoworker.json("jobs", "show", job)["state"] == "queued"
    replace(plugins / "hello.wasm", marked(hello, "back"))
    until(lambda: geoworker.json("jobs", "show", job)["state"] == "completed", what="the job to go on")
    assert server.poll() is None


def test_a_broken_version_leaves_the_one_before_serving(make_geoworker, plugins, tmp_path):
    geoworker = make_geoworker(GEOWORKER_PLUGINS=str(plugins))
    log = tmp_path / "server.log"
    geoworker.serve()
    replace(plugins / "hello.wasm", b"\0asm broken")
    until(lambda: reloads(log)[-1:] and "hello.wasm" in reloads(log)[-1]["failed"], what="the broken version to be refused")
    done = geoworker.json("submit", "hello_world", "--plugins", DIST, "--param", "n=3", "--wait")
    assert done["state"] == "completed", done


def test_a_locked_server_wants_the_lock_file_and_what_it_names(make_geoworker, plugins):
    geoworker = make_geoworker(GEOWORKER_PLUGINS=str(plugins), GEOWORKER_PLUGINS_LOCKED="true")
    assert geoworker.json("serve", code=2)["error"]["code"] == "PLUGIN_NOT_LOCKED"
    geoworker.run("plugin", "lock")
    geoworker.run("plugin", "lock", "--check")
    geoworker.run("plugin", "list")
    replace(plugins / "hello.wasm", marked((plugins / "hello.wasm").read_bytes(), "other"))
    assert geoworker.json("plugin", "lock", "--check", code=1)["changed"] == ["hello.wasm"]
    (hello,) = [file for file in geoworker.json("plugin", "list", code=1) if file["file"] == "hello.wasm"]
    assert (hello["error"]["code"], hello["stage"], hello["serving"]) == ("PLUGIN_NOT_LOCKED", "trust", None)


def test_keys_are_private_and_never_overwritten(geoworker, tmp_path):
    key = tmp_path / "signing.key"
    geoworker.run("plugin", "keygen", "--out", key)
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    geoworker.run("plugin", "keygen", "--out", key, code=2)
    assert key.read_bytes() == before


def test_signatures_are_those_of_openssl(geoworker, plugins, tmp_path):
    """Ed25519 over the SHA-256, made here and checked by another program."""
    key, message, signature, public = (tmp_path / name for name in ("key", "message", "signature", "public.der"))
    text = geoworker.run("plugin", "keygen", "--out", key).strip()
    geoworker.run("plugin", "sign", plugins / "hello.wasm", "--key", key)
    message.write_bytes(hashlib.sha256((plugins / "hello.wasm").read_bytes()).digest())
    signature.write_bytes(base64.b64decode((plugins / "hello.wasm.sig").read_text()))
    # SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
    public.write_bytes(bytes.fromhex("302a300506032b6570032100") + base64.b64decode(text))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", public, "-rawin", "-in", message, "-sigfile", signature]
    assert subprocess.run(command, capture_output=True).returncode == 0
