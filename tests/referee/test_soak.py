"""The soak in short: two workers, one killed, one frozen beyond its lease, PostgreSQL crashed once. The long form is
tests/soak/soak.py."""

import sys

import pytest

from conftest import BINARY, ROOT
from postgres import binaries

sys.path.insert(0, str(ROOT / "tests" / "soak"))

from soak import Soak  # noqa: E402


@pytest.mark.skipif(binaries() is None, reason="SKIPPED: PostgreSQL's server programs are not installed")
def test_a_short_soak():
    said = []
    soak = Soak(seed=7, jobs=25, workers=2, full_disk=False, actions=3, required=["kill", "freeze", "crash_database"], binary=BINARY,
                say=said.append, limit_minutes=2)
    soak.run()
    assert soak.summary() == 0, "\n".join(said)
