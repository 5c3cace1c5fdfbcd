"""B9: what the queues hold, and messages that were set aside, by command line."""

import sqlite3

from helpers import until


def counts(geoworker):
    return {queue.pop("queue"): queue for queue in geoworker.json("queues", "list")}


def test_a_message_that_was_set_aside_is_shown_and_put_back(geoworker):
    server = geoworker.serve()
    with sqlite3.connect(geoworker.data / "geoworker.db") as database:
        database.execute(
            "INSERT INTO queue_messages (queue, body, visible_at, enqueued_at) VALUES ('raster-tasks', 'no \x1b[31mjson', 0, 0)"
        )
    until(lambda: counts(geoworker)["raster-tasks"]["dead"] == 1, what="the message to be set aside")
    server.terminate()
    assert server.wait(30) == 0
    (letter,) = geoworker.json("queues", "dead-letters", "raster-tasks")
    assert (letter["reason"], letter["body"]) == ("MESSAGE_INVALID", "no \x1b[31mjson")
    shown = geoworker.run("queues", "dead-letters", "raster-tasks")
    assert "MESSAGE_INVALID" in shown and "\x1b" not in shown, "nobody's message commands a terminal"
    assert geoworker.json("queues", "dead-letters", "vector-tasks") == []
    assert geoworker.json("queues", "redrive", "raster-tasks") == {"queue": "raster-tasks", "redriven": 1}
    assert counts(geoworker)["raster-tasks"] == {"active": 1, "locked": 0, "scheduled": 0, "dead": 0}
    geoworker.run("queues", "redrive", "raster-tasks", "--limit", "0", code=64)
