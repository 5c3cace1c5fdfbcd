"""The broker as Microsoft's client sees it: what the other tests rely on."""

import json
import time

import pytest
from azure.servicebus import ServiceBusReceiveMode

from helpers import until
from servicebus import LONG, RASTER, ServiceBus, installed

pytestmark = pytest.mark.skipif(not installed(), reason="SKIPPED: the Service Bus emulator is not built")
LOCK_SECONDS = 2


@pytest.fixture
def bus():
    with ServiceBus(lock_seconds=LOCK_SECONDS, max_deliveries=3) as broker:
        yield broker


def test_a_message_is_peeked_received_and_gone(bus):
    bus.send(LONG, json.dumps({"task_id": "x"}), task_id="x")
    (peeked,) = bus.peek(LONG)
    assert json.loads(str(peeked)) == {"task_id": "x"} and peeked.application_properties == {b"task_id": b"x"}
    assert bus.counts(LONG)["ready"] == bus.waiting(LONG) == 1 and not any(bus.counts(RASTER).values())
    (received,) = bus.receive(LONG)
    assert str(received) == str(peeked)
    assert not any(bus.counts(LONG).values()) and bus.peek(LONG) == []


def test_dead_letters_have_reason_and_description(bus):
    bus.send(LONG, "no json")
    with bus.client() as client, client.get_queue_receiver(LONG, receive_mode=ServiceBusReceiveMode.PEEK_LOCK) as receiver:
        (message,) = receiver.receive_messages(max_wait_time=5)
        receiver.dead_letter_message(message, reason="MESSAGE_INVALID", error_description="line 1 is no JSON")
    (dead,) = bus.dead_letters(LONG)
    assert (str(dead), dead.dead_letter_reason, dead.dead_letter_error_description) == ("no json", "MESSAGE_INVALID", "line 1 is no JSON")
    assert bus.dead_letters(LONG, wait=1) == []


def test_dead_letters_are_counted_apart(bus):
    bus.send(LONG, "one")
    with bus.client() as client, client.get_queue_receiver(LONG) as receiver:
        receiver.dead_letter_message(receiver.receive_messages(max_wait_time=5)[0], reason="R")
    assert (bus.counts(LONG)["dead"], bus.waiting(LONG)) == (1, 0)


def test_a_lock_ends_and_the_message_comes_again(bus):
    bus.send(LONG, "one")
    with bus.client() as client, client.get_queue_receiver(LONG) as receiver:
        (message,) = receiver.receive_messages(max_wait_time=5)
        locked = time.monotonic()
        assert not message.delivery_count
        (again,) = until(lambda: receiver.receive_messages(max_wait_time=1), 10)
        assert time.monotonic() - locked > LOCK_SECONDS / 2 and again.delivery_count == 1
        receiver.complete_message(again)


def test_a_restarted_broker_keeps_its_messages_and_a_killed_one_its_ports(bus):
    for number in range(3):
        bus.send(LONG, str(number))
    bus.restart_broker()
    assert [str(message) for message in until(lambda: bus.peek(LONG), 10)] == ["0", "1", "2"]
    ports = bus.port, bus.admin_port
    bus.stop()
    bus.start()
    assert (bus.port, bus.admin_port) == ports and bus.peek(LONG) == []


def test_faults_strike(bus):
    bus.send(LONG, "one")
    bus.fault("drop", "receive")
    bus.throttle(1)
    bus.outage(1)
    assert [str(message) for message in until(lambda: bus.receive(LONG, wait=2), 60)] == ["one"], "the client gets over it"
    with pytest.raises(AssertionError, match="error"):
        bus.admin("explode")
