"""Secrets of the cloud are never shown."""

import signal
import urllib.parse

from cloud import leaks
from cloud_fixtures import ALWAYS_LONG, needs_services
from helpers import send_signal, until
from servicebus import LONG


@needs_services
def test_secrets_are_never_shown(make_cloud, noise, tmp_path):
    """Keys of accounts, the broker's key and signatures of URLs: not in logs, rows, events, items, answers or errors, and not with
    the native processes, which read what strangers sent."""
    cloud = make_cloud(**ALWAYS_LONG, LOG_LEVEL="debug")
    platform = cloud.platform()
    cloud.worker()
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0" + b"x" * 2_000_000)
    jobs = [cloud.submit_raster(cloud.put(noise)), cloud.submit_raster(cloud.put(bad))]
    # In the encoder: it reads one account and writes for the other.
    _, native = cloud.hold(jobs[0], operations=1)
    beside = {f"{what} of the native process": open(f"/proc/{native}/{what}", "rb").read().decode(errors="replace") for what in ("cmdline", "environ")}
    send_signal(native, signal.SIGCONT)
    assert [cloud.wait(job)["state"] for job in jobs] == ["completed", "failed"]
    for job in jobs:
        platform.run("jobs", "show", job, "--events")
        platform.run("tasks", "list", job)
    platform.run("config", "show")
    platform.run("blobs", "list", "silver")
    cloud.bus.send(LONG, "no json: " + cloud.bus.connection_string())
    until(lambda: len(cloud.bus.peek(LONG, dead=True)) == 2, what="the dead letters")
    for variable, value in wrong_settings(cloud).items():
        odd = cloud.make("platform_only", **{variable: value})
        odd.run("serve", code=2, timeout=60)
    cloud.stop()
    dead = {f"dead letter {number}": f"{message.dead_letter_reason} {message.dead_letter_error_description}"
            for number, message in enumerate(cloud.bus.peek(LONG, dead=True))}
    assert leaks(cloud.everything_said() | beside | dead, cloud.secrets()) == []


def test_a_leak_would_be_found():
    secrets = {"bus": "ab+/cd=="}
    signed = "https://h/c/b?sv=1&sig=abcDEF123%2Bz"
    leaking = ["key=ab+/cd==;", "ab%2B%2Fcd%3D%3D", "ab%2B/cd%3D%3D", signed, f"/vsicurl?url={urllib.parse.quote(signed, safe='')}"]
    assert all(leaks({"log": text}, secrets) for text in leaking)
    fine = "the signature, sig=REDACTED, of https://h/c/b?sv=1&sig=*** and (set, redacted)"
    assert leaks({"log": fine}, secrets) == []


def wrong_settings(cloud):
    """Settings that are refused at the start, each with a secret in it."""
    return {
        "ServiceBusConnection": f"Endpoint=nonsense;SharedAccessKey={cloud.bus.key}",
        "BRONZE_STORAGE_CONNECTION": f"AccountKey={cloud.azurite.keys['bronze']}",
        "SILVER_STORAGE_CONNECTION": f"AccountName=silver;AccountKey=!{cloud.azurite.keys['silver']};BlobEndpoint=nonsense",
    }
