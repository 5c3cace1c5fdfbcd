//! Everything that can break, breaks; no message is lost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use geoworker_servicebus::{Client, ServiceBusError, Settings};
use geoworker_servicebus_emulator::Emulator;
use tokio::task::JoinSet;

use crate::support::{
    LONG, QUEUE, client, counts, emulator, emulator_with_lock, numbered, one, send, settings, text,
};

const ACTIONS: [&str; 4] = ["detach", "end", "close", "drop"];

fn strike(emulator: &Emulator, fault: &str) {
    emulator.fault(fault.parse().expect("a fault"));
}

#[tokio::test]
async fn a_lock_is_renewed_whatever_breaks() {
    let emulator = emulator().await;
    for action in ACTIONS {
        for when in ["before", "after"] {
            let client = client(&emulator);
            send(&client, &["{}"]).await;
            let message = one(&client).await;
            strike(&emulator, &format!("{action} {when}-renew once"));
            let until = client.renew(QUEUE, message.lock).await.expect(action);
            assert!(Some(until) >= message.locked_until, "{action} {when}");
            assert!(emulator.faults().is_empty(), "the fault struck");
            client.complete(QUEUE, message.lock).await.expect(action);
        }
    }
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_message_is_completed_whatever_breaks() {
    let emulator = emulator().await;
    for action in ACTIONS {
        for when in ["before", "after"] {
            let client = client(&emulator);
            send(&client, &["{}"]).await;
            let message = one(&client).await;
            strike(&emulator, &format!("{action} {when}-complete once"));
            let done = client.complete(QUEUE, message.lock).await;
            // The answer of the first attempt was lost: the broker no longer knows the lock.
            let expected = if when == "before" { Ok(()) } else { Err(ServiceBusError::LockLost) };
            assert_eq!(done, expected, "{action} {when}");
            assert!(emulator.faults().is_empty(), "the fault struck");
            assert_eq!(counts(&emulator), Default::default(), "{action} {when}");
        }
    }
}

#[tokio::test]
async fn a_message_is_received_whatever_breaks_before_it_comes() {
    let emulator = emulator().await;
    for action in ACTIONS {
        let client = client(&emulator);
        send(&client, &["{}"]).await;
        strike(&emulator, &format!("{action} before-receive once"));
        let message = one(&client).await;
        assert_eq!(message.message.delivery_count, 1, "{action}");
        assert!(emulator.faults().is_empty(), "the fault struck");
        client.complete(QUEUE, message.lock).await.expect(action);
    }
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_message_that_was_lost_on_its_way_comes_again() {
    let emulator = emulator_with_lock("1s").await;
    for action in ["close", "drop"] {
        let client = client(&emulator);
        send(&client, &["{}"]).await;
        strike(&emulator, &format!("{action} after-receive once"));
        let message = one(&client).await;
        assert!(message.message.delivery_count <= 2, "{action}");
        client.complete(QUEUE, message.lock).await.expect(action);
        assert_eq!(counts(&emulator), Default::default(), "{action}");
    }
}

#[tokio::test]
async fn a_waiting_receiver_survives() {
    let emulator = emulator().await;
    for action in ACTIONS {
        let (waiting, other) = (client(&emulator), client(&emulator));
        let receiving = tokio::spawn({
            let waiting = waiting.clone();
            async move { one(&waiting).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        strike(&emulator, &format!("{action} now"));
        send(&other, &["{}"]).await;
        let message = receiving.await.expect(action);
        waiting.complete(QUEUE, message.lock).await.expect(action);
    }
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_message_is_sent_whatever_breaks() {
    let emulator = emulator().await;
    for action in ACTIONS {
        for (when, most) in [("before", 1), ("after", 2)] {
            let client = client(&emulator);
            strike(&emulator, &format!("{action} {when}-send once"));
            send(&client, &["{}"]).await;
            assert!(emulator.faults().is_empty(), "the fault struck");
            let arrived = client.peek(QUEUE, 0, 10).await.expect("looks");
            assert!((1..=most).contains(&arrived.len()), "{action} {when}: {}", arrived.len());
            assert!(arrived.iter().all(|message| message.message_id == arrived[0].message_id));
            emulator.purge(QUEUE).expect("empties");
        }
    }
}

#[tokio::test]
async fn a_restart_and_an_outage_are_waited_out() {
    let emulator = emulator().await;
    let client = client(&emulator);
    send(&client, &["{\"a\":1}"]).await;
    emulator.restart();
    let message = one(&client).await;
    emulator.outage(Duration::from_secs(1));
    client.renew(QUEUE, message.lock).await.expect("renews");
    emulator.outage(Duration::from_secs(1));
    client.complete(QUEUE, message.lock).await.expect("completes");
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_busy_broker_is_given_time_up_to_a_limit() {
    let emulator = emulator().await;
    let patient = client(&emulator);
    send(&patient, &["{}"]).await;
    let message = one(&patient).await;
    emulator.throttle(Duration::from_millis(700));
    patient.renew(QUEUE, message.lock).await.expect("renews");
    send(&patient, &["{}"]).await;

    let hasty =
        Client::new(Settings { operation_timeout: Duration::from_millis(500), ..settings(&emulator) });
    hasty.renew(QUEUE, message.lock).await.expect("renews");
    emulator.throttle(Duration::from_secs(60));
    let refused = hasty.renew(QUEUE, message.lock).await;
    assert!(matches!(refused, Err(ServiceBusError::Busy(_))), "{refused:?}");
    let refused = hasty.send(QUEUE, &numbered(1)).await;
    assert!(matches!(refused, Err(ServiceBusError::Busy(_))), "{refused:?}");
}

#[tokio::test]
async fn an_absent_broker_is_an_error_in_time() {
    let gone = settings(&emulator().await);
    let client = Client::new(Settings { operation_timeout: Duration::from_millis(500), ..gone });
    let absent = client.peek(QUEUE, 0, 1).await;
    assert!(matches!(absent, Err(ServiceBusError::Unavailable(_))), "{absent:?}");
}

#[tokio::test]
async fn many_slots_lose_nothing_under_random_faults() {
    const MESSAGES: usize = 300;
    let emulator = emulator_with_lock("3s").await;
    let client = client(&emulator);
    client.send(QUEUE, &numbered(MESSAGES)).await.expect("sends");
    for fault in [
        "drop before-complete 0.01",
        "close after-complete 0.01",
        "detach before-receive 0.01",
        "end renew 0.01",
    ] {
        strike(&emulator, fault);
    }
    let (emulator, seen) = (Arc::new(emulator), Arc::new(Mutex::new(BTreeSet::new())));
    let mut slots = JoinSet::new();
    for _ in 0..8 {
        slots.spawn(work(client.clone(), emulator.clone(), seen.clone()));
    }
    tokio::time::timeout(LONG * 3, slots.join_all()).await.expect("ends");
    assert_eq!(seen.lock().expect("lock").len(), MESSAGES, "all were seen");
    assert_eq!(counts(&emulator), Default::default());
}

/// One slot: receives and completes until nothing is left.
async fn work(client: Client, emulator: Arc<Emulator>, seen: Arc<Mutex<BTreeSet<String>>>) {
    while counts(&emulator).ready + counts(&emulator).locked > 0 {
        for message in client.receive(QUEUE, 1, Duration::from_millis(500)).await.expect("receives") {
            seen.lock().expect("lock").insert(text(&message).to_owned());
            let done = client.complete(QUEUE, message.lock).await;
            assert!(matches!(done, Ok(()) | Err(ServiceBusError::LockLost)), "{done:?}");
        }
    }
}
