"""Microsoft's own Service Bus client against the emulator: what it does must look to the client as the service would."""

import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest

servicebus = pytest.importorskip("azure.servicebus")
from azure.servicebus import (  # noqa: E402
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.exceptions import (  # noqa: E402
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusError,
    ServiceBusServerBusyError,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("GEOWORKER_EMULATOR", ROOT / "bin/geoworker-servicebus-emulator"))
LOCK = 3
MAX_DELIVERIES = 3
WAIT = 10

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"no emulator at {BINARY}")


class Emulator:
    """A running emulator and its admin port."""

    def __init__(self, *arguments):
        command = [str(BINARY), "--port", "0", "--admin-port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ready = self.process.stdout.readline()
        self.admin_port = int(re.fullmatch(r"listening amqp=127.0.0.1:\d+ admin=127.0.0.1:(\d+)\n", ready)[1])
        self.connection_string = self.process.stdout.readline().strip()

    def admin(self, command):
        with socket.create_connection(("127.0.0.1", self.admin_port), timeout=5) as connection:
            connection.sendall(f"{command}\n".encode())
            answer = connection.makefile().readline().strip()
        assert answer.split()[0] == "ok", answer
        return answer.removeprefix("ok").strip()

    def counts(self, queue):
        return {key: int(value) for key, value in (pair.split("=") for pair in self.admin(f"counts {queue}").split())}

    def client(self, **options):
        options = {"retry_total": 3, "retry_backoff_factor": 0.05, "retry_backoff_max": 1} | options
        return ServiceBusClient.from_connection_string(self.connection_string, **options)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(timeout=5) == 0


@pytest.fixture(scope="module")
def emulator():
    running = Emulator("--lock", str(LOCK), "--max-deliveries", str(MAX_DELIVERIES))
    yield running
    running.stop()


@pytest.fixture
def queue(emulator):
    yield f"queue-{uuid.uuid4()}"
    emulator.admin("clear")


@pytest.fixture
def client(emulator):
    with emulator.client() as connected:
        yield connected


def send(client, queue, *bodies):
    with client.get_queue_sender(queue) as sender:
        for body in bodies:
            sender.send_messages(ServiceBusMessage(body))


def receive(receiver, wait=WAIT):
    messages = receiver.receive_messages(max_message_count=1, max_wait_time=wait)
    return messages[0] if messages else None


def deliveries(message):
    """The client leaves a count of 0, the default of the protocol, unset."""
    return message.delivery_count or 0


def dead_letters(client, queue):
    return client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)


def wait_until(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def soon(seconds):
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def test_a_message_arrives_as_it_was_sent_and_is_gone_when_completed(client, emulator, queue):
    sent = ServiceBusMessage(
        "tile", message_id="id-1", subject="cog", correlation_id="job", application_properties={"attempt": 1}
    )
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(sent)
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        assert str(message) == "tile"
        assert (message.message_id, message.subject, message.correlation_id) == ("id-1", "cog", "job")
        assert message.application_properties == {b"attempt": 1}
        assert message.sequence_number == 1
        assert deliveries(message) == 0
        assert abs((message.locked_until_utc - soon(LOCK)).total_seconds()) < 1
        assert emulator.counts(queue)["locked"] == 1
        receiver.complete_message(message)
    assert sum(emulator.counts(queue).values()) == 0


def test_a_batch_becomes_its_messages_in_order(client, queue):
    with client.get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        for number in range(50):
            batch.add_message(ServiceBusMessage(str(number)))
        sender.send_messages(batch)
    received = []
    with client.get_queue_receiver(queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiver:
        while len(received) < 50:
            received += [str(message) for message in receiver.receive_messages(50, max_wait_time=WAIT)]
    assert received == [str(number) for number in range(50)]


def test_a_big_message_goes_both_ways_in_many_frames(client, queue):
    body = os.urandom(200_000)
    send(client, queue, body)
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        assert b"".join(message.body) == body
        receiver.complete_message(message)


def test_what_is_received_and_deleted_is_gone(client, emulator, queue):
    send(client, queue, "once")
    with client.get_queue_receiver(queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiver:
        assert str(receive(receiver)) == "once"
    assert sum(emulator.counts(queue).values()) == 0


def test_receiving_from_an_empty_queue_ends_after_the_wait(client, queue):
    with client.get_queue_receiver(queue) as receiver:
        assert receive(receiver, wait=0.5) is None
        send(client, queue, "late")
        assert str(receive(receiver)) == "late"


def test_renewal_moves_the_end_of_the_lock(client, queue):
    send(client, queue, "work")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        before = message.locked_until_utc
        time.sleep(LOCK * 0.6)
        renewed = receiver.renew_message_lock(message)
        assert renewed > before
        time.sleep(LOCK * 0.6)
        receiver.complete_message(message)


def test_automatic_renewal_outlives_a_short_lock(client, emulator, queue):
    send(client, queue, "long work")
    with AutoLockRenewer() as renewer, client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        renewer.register(receiver, message, max_lock_renewal_duration=60)
        time.sleep(LOCK * 2.5)
        assert emulator.counts(queue)["locked"] == 1
        receiver.complete_message(message)
    assert sum(emulator.counts(queue).values()) == 0


def test_abandoning_makes_it_one_delivery_older(client, queue):
    send(client, queue, "again")
    with client.get_queue_receiver(queue) as receiver:
        first = receive(receiver)
        receiver.abandon_message(first)
        second = receive(receiver)
        assert (second.sequence_number, second.delivery_count) == (first.sequence_number, 1)
        receiver.complete_message(second)


def test_dead_letters_carry_reason_and_description(client, emulator, queue):
    send(client, queue, "bad")
    with client.get_queue_receiver(queue) as receiver:
        receiver.dead_letter_message(receive(receiver), reason="NotARaster", error_description="no magic bytes")
        assert receive(receiver, wait=0.3) is None
    assert emulator.counts(queue)["dead"] == 1
    with dead_letters(client, queue) as receiver:
        message = receive(receiver)
        assert str(message) == "bad"
        assert message.dead_letter_reason == "NotARaster"
        assert message.dead_letter_error_description == "no magic bytes"
        receiver.complete_message(message)
    assert sum(emulator.counts(queue).values()) == 0


def test_too_many_deliveries_end_in_the_dead_letter_queue(client, emulator, queue):
    send(client, queue, "poison")
    with client.get_queue_receiver(queue) as receiver:
        for delivery in range(MAX_DELIVERIES):
            message = receive(receiver)
            assert deliveries(message) == delivery
            receiver.abandon_message(message)
        assert receive(receiver, wait=0.3) is None
    with dead_letters(client, queue) as receiver:
        message = receive(receiver)
        assert message.dead_letter_reason == "MaxDeliveryCountExceeded"
        receiver.complete_message(message)
    assert sum(emulator.counts(queue).values()) == 0


def test_a_scheduled_message_comes_at_its_time(client, emulator, queue):
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        assert receive(receiver, wait=0.1) is None
        due = soon(2.5)
        [number] = sender.schedule_messages(ServiceBusMessage("later"), due)
        assert emulator.counts(queue)["scheduled"] == 1
        assert receive(receiver, wait=0.2) is None
        message = receive(receiver)
        assert datetime.now(timezone.utc) >= due - timedelta(milliseconds=5)
        assert (str(message), message.sequence_number) == ("later", number)
        receiver.complete_message(message)


def test_a_message_sent_with_a_schedule_waits_too(client, emulator, queue):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("later", scheduled_enqueue_time_utc=soon(60)))
    assert emulator.counts(queue)["scheduled"] == 1


def test_a_cancelled_message_never_comes(client, emulator, queue):
    with client.get_queue_sender(queue) as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("never"), ServiceBusMessage("later")], soon(60))
        sender.cancel_scheduled_messages(numbers[0])
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(numbers[0])
    assert emulator.counts(queue)["scheduled"] == 1


def test_peeking_sees_everything_and_locks_nothing(client, emulator, queue):
    send(client, queue, "a", "b")
    with client.get_queue_sender(queue) as sender:
        sender.schedule_messages(ServiceBusMessage("c"), soon(60))
    with client.get_queue_receiver(queue) as receiver:
        held = receive(receiver)
        peeked = receiver.peek_messages(max_message_count=10, sequence_number=held.sequence_number)
        assert [str(message) for message in peeked] == ["a", "b", "c"]
        assert [message.state.name for message in peeked] == ["ACTIVE", "ACTIVE", "SCHEDULED"]
        assert receiver.peek_messages(10) == [], "there is nothing after the last that was seen"
        assert emulator.counts(queue) == {"ready": 1, "locked": 1, "deferred": 0, "scheduled": 1, "dead": 0}


def test_a_deferred_message_comes_by_its_number_only(client, emulator, queue):
    send(client, queue, "aside")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        receiver.defer_message(message)
        assert receive(receiver, wait=0.3) is None
        assert emulator.counts(queue)["deferred"] == 1
        [deferred] = receiver.receive_deferred_messages([message.sequence_number])
        assert str(deferred) == "aside"
        receiver.renew_message_lock(deferred)
        receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            receiver.receive_deferred_messages([message.sequence_number])
    assert sum(emulator.counts(queue).values()) == 0


def test_an_expired_lock_is_lost_and_the_message_comes_again(client, emulator, queue):
    send(client, queue, "slow")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        wait_until(lambda: emulator.counts(queue)["ready"] == 1)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        with pytest.raises(MessageLockLostError):
            receiver.renew_message_lock(message)
        again = receive(receiver)
        assert (str(again), again.delivery_count) == ("slow", 1)
        receiver.complete_message(again)


def test_a_lock_that_the_service_loses_is_reported(client, emulator, queue):
    send(client, queue, "unlucky")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        emulator.admin("fault lose-lock before-renew once")
        with pytest.raises(MessageLockLostError):
            receiver.renew_message_lock(message)
        again = receive(receiver)
        assert again.delivery_count == 1
        receiver.complete_message(again)


def test_session_receivers_are_refused(client, queue):
    with pytest.raises(ServiceBusError, match="(?i)session") as refused:
        with client.get_queue_receiver(queue, session_id="one") as receiver:
            receiver.receive_messages(max_wait_time=1)
    assert "not-allowed" in str(refused.value) or "sessionful" in str(refused.value)


def test_a_message_above_the_limit_is_refused(client, emulator, queue):
    with client.get_queue_sender(queue) as sender:
        with pytest.raises(MessageSizeExceededError):
            sender.send_messages(ServiceBusMessage(os.urandom(300_000)))
        sender.send_messages(ServiceBusMessage("small"))
    assert emulator.counts(queue)["ready"] == 1


def test_unknown_queues_are_refused_where_asked_to():
    strict = Emulator("--strict", "--queue", "tasks")
    try:
        with strict.client(retry_total=0) as client:
            send(client, "tasks", "known")
            with pytest.raises(MessagingEntityNotFoundError):
                send(client, "others", "unknown")
        assert strict.admin("queues") == "tasks"
    finally:
        strict.stop()


# Not "end": the client waits a minute for a session that has ended.
FATES = ["detach", "close", "drop"]


@pytest.mark.parametrize("action", FATES)
def test_senders_and_receivers_recover(client, emulator, queue, action):
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        sender.send_messages(ServiceBusMessage("before"))
        receiver.complete_message(receive(receiver))
        emulator.admin(f"fault {action} now")
        sender.send_messages(ServiceBusMessage("after"))
        message = receive(receiver)
        assert str(message) == "after"
        receiver.complete_message(message)
    assert sum(emulator.counts(queue).values()) == 0


@pytest.mark.parametrize("action", FATES)
def test_a_lock_outlives_the_connection(client, emulator, queue, action):
    send(client, queue, "held")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        emulator.admin(f"fault {action} now")
    with client.get_queue_receiver(queue) as receiver:
        receiver.renew_message_lock(message)
        # The public method insists on the link that brought the message.
        receiver._settle_message_via_mgmt_link("completed", [message.lock_token])
    assert sum(emulator.counts(queue).values()) == 0


def test_a_completion_whose_answer_is_lost_took_effect(client, emulator, queue):
    send(client, queue, "ambiguous")
    with client.get_queue_receiver(queue) as receiver:
        message = receive(receiver)
        emulator.admin("fault drop after-complete once")
        try:
            receiver.complete_message(message)
        except MessageLockLostError:
            pass  # The client asked again over a new connection: there is nothing left to complete.
        assert sum(emulator.counts(queue).values()) == 0


def test_messages_survive_an_outage(client, emulator, queue):
    send(client, queue, "kept")
    emulator.admin("outage 1s")
    with emulator.client(retry_total=10, retry_backoff_factor=0.2) as patient:
        with patient.get_queue_receiver(queue) as receiver:
            message = receive(receiver)
            assert str(message) == "kept"
            receiver.complete_message(message)


def test_a_busy_service_says_so_and_a_client_that_waits_gets_through(emulator, queue):
    with emulator.client(retry_total=0) as hasty:
        send(hasty, queue, "before")
        emulator.admin("fault busy send once")
        with pytest.raises(ServiceBusServerBusyError):
            send(hasty, queue, "refused")
    emulator.admin("fault busy send once")
    with emulator.client() as patient:
        send(patient, queue, "taken")
    assert emulator.counts(queue)["ready"] == 2


def test_while_throttled_management_is_busy_too(emulator, queue):
    with emulator.client(retry_total=0) as client, client.get_queue_receiver(queue) as receiver:
        send(client, queue, "work")
        message = receive(receiver)
        emulator.admin("throttle 1s")
        with pytest.raises(ServiceBusServerBusyError):
            receiver.renew_message_lock(message)
        emulator.admin("throttle 0s")
        receiver.renew_message_lock(message)
        receiver.complete_message(message)


def test_a_queue_states_its_own_rules(client, emulator, queue):
    emulator.admin(f"create {queue}:max-deliveries=1,ttl=300ms,dead-letter-expired")
    send(client, queue, "short-lived")
    wait_until(lambda: emulator.counts(queue)["dead"] == 1)
    with dead_letters(client, queue) as receiver:
        message = receive(receiver)
        assert message.dead_letter_reason == "TTLExpiredException"
        receiver.complete_message(message)


def test_a_token_that_ran_out_is_no_longer_enough():
    guarded = Emulator("--enforce-tokens")
    try:
        with guarded.client() as client:
            send(client, "tasks", "with a good token")
        expiry = int(time.time()) + 3
        endpoint = guarded.connection_string.split(";")[0]
        token = f"SharedAccessSignature sr=tasks&sig=unchecked&se={expiry}&skn=emulator"
        connection = f"{endpoint};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        with ServiceBusClient.from_connection_string(connection, retry_total=0) as client:
            with client.get_queue_sender("tasks") as sender:
                sender.send_messages(ServiceBusMessage("in time"))
                time.sleep(max(0, expiry + 1 - time.time()))
                with pytest.raises(ServiceBusError):
                    sender.send_messages(ServiceBusMessage("late"))
        assert guarded.counts("tasks")["ready"] == 2
    finally:
        guarded.stop()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_amqps_greets_over_tls(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=emulator", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*make, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    secure = Emulator("--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        port = int(re.search(r"127.0.0.1:(\d+)", secure.connection_string)[1])
        trust = ssl.create_default_context(cafile=certificate)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with trust.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"AMQP\x03\x01\x00\x00")
                assert connection.recv(8) == b"AMQP\x03\x01\x00\x00"
        assert "UseDevelopmentEmulator" not in secure.connection_string
    finally:
        secure.stop()


def test_a_lock_above_five_minutes_is_refused():
    refused = subprocess.run([BINARY, "--port", "0", "--lock", "301"], capture_output=True, text=True, timeout=10)
    assert refused.returncode == 1
    assert "5 minutes" in refused.stderr
