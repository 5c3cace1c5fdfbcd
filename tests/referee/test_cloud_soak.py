"""The soak in the cloud in short: 503s, resets, detached links and lost locks all the time, and each kind of harm once or so. The
long form is tests/soak/cloud_soak.py."""

import sys

import pytest

import azurite
import servicebus
from conftest import BINARY, ROOT
from postgres import binaries

sys.path.insert(0, str(ROOT / "tests" / "soak"))

from cloud_soak import CloudSoak  # noqa: E402

THERE = binaries() is not None and azurite.installed() and servicebus.installed()
pytestmark = pytest.mark.skipif(not THERE, reason="SKIPPED: PostgreSQL's server programs, Azurite or the Service Bus emulator are missing")


def test_a_short_soak_in_the_cloud():
    said = []
    required = ["kill", "freeze", "restart_broker", "lose_broker", "throttle", "blob_outage"]
    soak = CloudSoak(seed=7, jobs=20, workers=3, actions=6, required=required, binary=BINARY, say=said.append, limit_minutes=3)
    soak.run()
    assert soak.summary() == 0, "\n".join(said)
    assert soak.figures["blob server: unavailable"] and soak.figures["harm: kill"], "\n".join(said)
