"""The soak in short: two workers, one killed, one frozen beyond its lease, PostgreSQL crashed once. The long form is
tests/soak/soak.py."""

import sys
import time

import pytest

from conftest import BINARY, ROOT
from helpers import FAST, serving, submit, until, wait_for
from postgres import Postgres, binaries

sys.path.insert(0, str(ROOT / "tests" / "soak"))

from soak import Soak  # noqa: E402


pytestmark = pytest.mark.skipif(binaries() is None, reason="SKIPPED: PostgreSQL's server programs are not installed")


def test_a_short_soak():
    said = []
    soak = Soak(seed=7, jobs=25, workers=2, full_disk=False, actions=3, required=["kill", "freeze", "crash_database"], binary=BINARY,
                say=said.append, limit_minutes=2)
    soak.run()
    assert soak.summary() == 0, "\n".join(said)


def test_a_planner_that_was_told_of_an_empty_outbox(make_geoworker):
    """The outbox is mostly empty, and that is when its statistics are taken. A plan that is made for one row runs a subquery
    with LIMIT once for every row: it takes seconds to minutes, ignores the limit, and its locks keep everybody waiting."""
    with Postgres(durable=False, settings={"autovacuum": "off"}) as postgres:
        # No hints are repeated here: they would fill the outbox again.
        geoworker = make_geoworker(**postgres.environment(), **FAST | {"GEOWORKER_SWEEP_SECONDS": "300"})
        with serving(geoworker):
            wait_for(geoworker, submit(geoworker, "hello_world", n=1))
        row = "'raster-tasks', '{}', repeat('0', 64), 9223372036854775807"
        postgres.query(f"INSERT INTO outbox (queue, body, job_id, held_until) SELECT {row} FROM generate_series(1, 20000)")
        postgres.query("DELETE FROM outbox WHERE id <> (SELECT max(id) FROM outbox)")
        postgres.query("VACUUM ANALYZE outbox")
        for number in range(3):
            submit(geoworker, "hello_world", n=1000 - number)
        with serving(geoworker):
            until(lambda: int(postgres.scalar("SELECT count(*) FROM events WHERE kind = 'stage_planned'")) >= 5, 60, "the planning")
            until(lambda: postgres.scalar("SELECT count(*) FROM outbox") == "1", 60, "the relay")
        slow = [line for line in (geoworker.folder / "server.log").read_text().splitlines() if "slow statement" in line and "outbox" in line]
        assert not slow, slow[0][:600]


def test_a_backlog_does_not_multiply_its_messages(make_geoworker):
    """A task that waits behind others has its message in the queue: another one at every sweep would only make it wait longer."""
    with Postgres(durable=False) as postgres:
        geoworker = make_geoworker(**postgres.environment(), **FAST)
        for number in range(2):
            submit(geoworker, "hello_world", n=1000 - number)
        with serving(geoworker):
            until(lambda: int(postgres.scalar("SELECT count(*) FROM tasks")) >= 1999, 30, "the planning")
            end = time.monotonic() + 10
            until(lambda: time.monotonic() > end, 20)
            waiting = int(postgres.scalar("SELECT count(*) FROM tasks WHERE ended_at IS NULL"))
            messages = int(postgres.scalar("SELECT count(*) FROM queue_messages WHERE dead_at IS NULL"))
        assert messages < 3 * waiting + 100, f"{messages} messages for {waiting} tasks"
