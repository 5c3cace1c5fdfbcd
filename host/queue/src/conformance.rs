//! The suite that every [`Queue`] passes. It takes two clients of the same empty broker.

#![expect(clippy::expect_used, reason = "a test suite fails by panicking")]

use std::time::Duration;

use crate::queue::{OutgoingMessage, Queue, QueueError, ReceivedMessage};
use crate::settings::QueueSettings;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

/// Runs the whole suite. Locks and deliveries must be as in `settings`; short locks make it fast.
pub async fn run(one: &dyn Queue, two: &dyn Queue, settings: QueueSettings) {
    a_message_is_locked_settled_and_gone(one, two).await;
    an_abandoned_message_comes_back_with_its_count(one, two).await;
    an_expired_lock_is_lost(one, two, settings).await;
    renewal_keeps_a_message_locked(one, two, settings).await;
    dead_letters_keep_their_reason(one, settings).await;
    scheduled_messages_wait(one).await;
    a_waiting_receiver_is_woken(one, two).await;
}

fn message(body: &str) -> OutgoingMessage {
    OutgoingMessage { body: body.into(), delay_ms: 0 }
}

async fn send(queue: &dyn Queue, name: &str, bodies: &[&str]) {
    let messages: Vec<OutgoingMessage> = bodies.iter().map(|body| message(body)).collect();
    queue.send(name, &messages).await.expect("sends");
}

async fn one_message(queue: &dyn Queue, name: &str) -> ReceivedMessage {
    queue.receive(name, 1, LONG).await.expect("receives").pop().expect("a message")
}

async fn a_message_is_locked_settled_and_gone(one: &dyn Queue, two: &dyn Queue) {
    send(one, "basic", &["a", "b", "c"]).await;
    let held = one.receive("basic", 2, SHORT).await.expect("receives");
    let bodies: Vec<&str> = held.iter().map(|m| m.body.as_str()).collect();
    assert_eq!(bodies, ["a", "b"], "first in, first out");
    let depth = one.depth("basic").await.expect("counts");
    let expected = if depth.active_is_locked { (3, 0) } else { (1, 2) };
    assert_eq!((depth.active, depth.locked), expected);
    let other = two.receive("basic", 9, SHORT).await.expect("receives");
    assert_eq!(other.len(), 1, "locked messages are invisible");
    assert!(two.receive("elsewhere", 1, SHORT).await.expect("receives").is_empty(), "queues are separate");
    for m in held.iter().chain(&other) {
        two.complete("basic", &m.receipt).await.expect("any client may settle");
        let again = one.complete("basic", &m.receipt).await;
        assert!(matches!(again, Err(QueueError::LockLost)), "settled once");
    }
    let depth = one.depth("basic").await.expect("counts");
    assert_eq!((depth.active, depth.locked, depth.scheduled, depth.dead), (0, 0, 0, 0));
}

async fn an_abandoned_message_comes_back_with_its_count(one: &dyn Queue, two: &dyn Queue) {
    send(one, "abandon", &["a"]).await;
    let first = one_message(one, "abandon").await;
    assert_eq!(first.delivery_count, 1);
    one.abandon("abandon", &first.receipt).await.expect("abandons");
    let second = one_message(two, "abandon").await;
    assert_eq!(second.delivery_count, 2);
    assert!(matches!(one.complete("abandon", &first.receipt).await, Err(QueueError::LockLost)));
    two.complete("abandon", &second.receipt).await.expect("completes");
}

async fn an_expired_lock_is_lost(one: &dyn Queue, two: &dyn Queue, settings: QueueSettings) {
    send(one, "expiry", &["a"]).await;
    let first = one_message(one, "expiry").await;
    // The receiver waits for the lock's end: no message is there before.
    let second =
        two.receive("expiry", 1, settings.lock * 4).await.expect("receives").pop().expect("comes back");
    assert_eq!(second.delivery_count, 2);
    assert!(matches!(one.renew("expiry", &first.receipt).await, Err(QueueError::LockLost)));
    assert!(matches!(one.complete("expiry", &first.receipt).await, Err(QueueError::LockLost)));
    two.complete("expiry", &second.receipt).await.expect("completes");
}

async fn renewal_keeps_a_message_locked(one: &dyn Queue, two: &dyn Queue, settings: QueueSettings) {
    send(one, "renew", &["a"]).await;
    let held = one_message(one, "renew").await;
    for _ in 0..6 {
        let stolen = two.receive("renew", 1, settings.lock / 3).await.expect("receives");
        assert!(stolen.is_empty(), "the lock is held");
        let holds = one.renew("renew", &held.receipt).await.expect("renews");
        assert!(holds > settings.lock / 2 && holds <= settings.lock, "{holds:?}");
    }
    one.complete("renew", &held.receipt).await.expect("completes");
}

async fn dead_letters_keep_their_reason(one: &dyn Queue, settings: QueueSettings) {
    send(one, "dead", &["bad", "often"]).await;
    let bad = one_message(one, "dead").await;
    one.dead_letter("dead", &bad.receipt, "MESSAGE_INVALID", "it's bad").await.expect("sets aside");
    for _ in 0..settings.max_deliveries {
        let often = one_message(one, "dead").await;
        one.abandon("dead", &often.receipt).await.expect("abandons");
    }
    assert!(one.receive("dead", 1, SHORT).await.expect("receives").is_empty());
    let letters = one.dead_letters("dead", 10).await.expect("lists");
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["MESSAGE_INVALID", "MaxDeliveryCountExceeded"]);
    assert_eq!((letters[0].body.as_str(), letters[0].detail.as_str()), ("bad", "it's bad"));
    assert_eq!(one.depth("dead").await.expect("counts").dead, 2);
    assert_eq!(one.redrive("dead", 1).await.expect("puts back"), 1, "as many as asked for, the oldest first");
    let again = one_message(one, "dead").await;
    assert_eq!((again.body.as_str(), again.delivery_count), ("bad", 1));
    one.complete("dead", &again.receipt).await.expect("completes");
    assert_eq!(one.redrive("dead", 10).await.expect("puts back"), 1);
    assert_eq!(one.redrive("dead", 10).await.expect("puts back"), 0);
}

async fn scheduled_messages_wait(one: &dyn Queue) {
    one.send("later", &[OutgoingMessage { body: "a".into(), delay_ms: 300 }]).await.expect("sends");
    assert_eq!(one.depth("later").await.expect("counts").scheduled, 1);
    assert!(one.receive("later", 1, SHORT).await.expect("receives").is_empty());
    let due = one_message(one, "later").await;
    one.complete("later", &due.receipt).await.expect("completes");
}

async fn a_waiting_receiver_is_woken(one: &dyn Queue, two: &dyn Queue) {
    let (received, ()) = tokio::join!(one_message(one, "wake"), async {
        tokio::task::yield_now().await;
        send(two, "wake", &["a"]).await;
    });
    one.complete("wake", &received.receipt).await.expect("completes");
}
