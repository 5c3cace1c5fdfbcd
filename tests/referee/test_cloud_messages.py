"""The queues are shared with other implementations (R7, R15): what Microsoft's client sends by hand is accepted, and what nobody can
read or do is dead-lettered with the reason."""

import json

from cloud_fixtures import ALWAYS_LONG, NO_SWEEP, needs_services
from helpers import until
from servicebus import JOBS, LONG

pytestmark = needs_services


def by_hand(task, **more):
    """The message about a task as another implementation would write it."""
    return json.dumps({
        "task_id": task["task_id"],
        "parent_job_id": task["job_id"],
        "job_type": task["job_type"],
        "task_type": task["task_type"],
        "stage": task["stage"],
        "task_index": str(task["position"]),
        "parameters": json.loads(task["parameters"]),
        "retry_count": 0,
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
    } | more)


def test_messages_of_another_implementation_are_accepted(make_cloud):
    """R7: only messages make work go on here, and ours are gone."""
    cloud = make_cloud(**NO_SWEEP, **ALWAYS_LONG)
    cloud.platform()
    job = cloud.submit("hello_world", n=2)
    ours = until(lambda: len(cloud.tasks(job)) == 2 and cloud.bus.receive(LONG), what="the platform's messages")
    assert {json.loads(str(message))["task_id"] for message in ours} == {task["task_id"] for task in cloud.tasks(job)}
    for message in ours:
        fields = json.loads(str(message))
        assert message.application_properties[b"task_id"].decode() == fields["task_id"]
        assert message.application_properties[b"job_id"].decode() == job
        assert {"task_id", "parent_job_id", "job_type", "task_type", "stage", "task_index", "retry_count", "timestamp"} <= fields.keys()
    cloud.worker()
    first, second = cloud.tasks(job)
    cloud.bus.send(LONG, by_hand(first, priority="high", message_type="task"), task_id=first["task_id"], job_id=job)
    until(lambda: cloud.task(job, "hello_greet")["state"] == "completed", what="the task that was sent by hand")
    assert cloud.tasks(job)[1]["state"] == "queued", "nobody sent the other one"
    # Large parameters may be left out: the row is the truth.
    without = json.loads(by_hand(second))
    del without["parameters"]
    cloud.bus.send(LONG, json.dumps(without))
    assert cloud.wait(job)["state"] == "completed"
    # Of what is over, a message changes nothing.
    cloud.bus.send(LONG, by_hand(first))
    until(cloud.is_drained, what="the message about a task that is over to be dealt with")
    assert {task["attempt"] for task in cloud.tasks(job)} == {1}
    cloud.stop()


def test_messages_that_nobody_can_read_are_dead_lettered_with_the_reason(cloud):
    """R15."""
    cloud.platform()
    cloud.worker()
    types = {"job_type": "hello_world", "task_type": "hello_greet"}
    unknown = types | {"task_id": "0" * 64, "job_id": "0" * 64, "position": 0, "stage": 1, "parameters": "{}"}
    wrong = {"no json": "{ this is no JSON", "fields": '{"task_id": 7}', "task": by_hand(unknown)}
    for body in wrong.values():
        cloud.bus.send(LONG, body)
    cloud.bus.send(JOBS, '{"message_type": "stage_complete"}')
    dead = until(lambda: len(cloud.bus.peek(LONG, dead=True)) == len(wrong) and cloud.bus.dead_letters(LONG), what="the dead letters")
    assert sorted(str(message) for message in dead) == sorted(wrong.values())
    for message in dead:
        assert message.dead_letter_reason == "MESSAGE_INVALID" and len(message.dead_letter_error_description) > 10
        assert (message.delivery_count or 0) <= 1, "at once, not after ten tries"
    described = {str(message): message.dead_letter_error_description for message in dead}
    assert "row" in described[wrong["task"]] and "line 1" in described[wrong["no json"]]
    (signalled,) = until(lambda: cloud.bus.dead_letters(JOBS, wait=1), what="the dead letter of the platform")
    assert signalled.dead_letter_reason == "MESSAGE_INVALID" and "job_id" in signalled.dead_letter_error_description
    cloud.stop()


def test_a_task_that_fails_for_good_leaves_a_dead_letter(cloud, tmp_path):
    cloud.platform()
    cloud.worker()
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0" + b"x" * 2_000_000)
    job = cloud.submit_raster(cloud.put(bad))
    ended = cloud.wait(job)
    assert ended["state"] == "failed" and ended["error"]["code"] == "FILE_UNREADABLE", ended
    (dead,) = until(lambda: cloud.bus.dead_letters(LONG, wait=1), what="the dead letter")
    assert dead.dead_letter_reason == "FILE_UNREADABLE"
    assert json.loads(str(dead))["parent_job_id"] == job
    cloud.stop()
