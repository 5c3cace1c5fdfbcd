//! What the operations do while nothing breaks.

use std::time::{Duration, SystemTime};

use geoworker_servicebus::{Counts, OutgoingMessage, ServiceBusError, dead_letters};
use geoworker_servicebus_emulator::Settings as Broker;

use crate::support::{LONG, QUEUE, client, counts, emulator, emulator_with, numbered, one, send, text};

#[tokio::test]
async fn a_message_arrives_with_all_that_was_given_and_any_client_settles_it() {
    let emulator = emulator().await;
    let (one_client, other) = (client(&emulator), client(&emulator));
    send(&one_client, &["{\"task_id\":\"t1\",\"job_id\":\"j1\"}"]).await;
    let received = one(&one_client).await;
    let message = &received.message;
    assert_eq!(text(&received), "{\"task_id\":\"t1\",\"job_id\":\"j1\"}");
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.properties["task_id"], "t1");
    assert_eq!((message.delivery_count, message.sequence), (1, received.lock.sequence));
    let left = received.locked_until.expect("a lock").duration_since(SystemTime::now()).expect("later");
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
    other.complete(QUEUE, received.lock).await.expect("completes");
    assert_eq!(one_client.complete(QUEUE, received.lock).await, Err(ServiceBusError::LockLost));
}

#[tokio::test]
async fn several_messages_come_at_once_in_their_order() {
    let emulator = emulator().await;
    let client = client(&emulator);
    client.send(QUEUE, &numbered(5)).await.expect("sends");
    let three = client.receive(QUEUE, 3, LONG).await.expect("receives");
    let rest = client.receive(QUEUE, 9, LONG).await.expect("receives");
    let bodies: Vec<&str> = three.iter().chain(&rest).map(text).collect();
    let expected: Vec<String> = (0..5).map(|number| format!("{{\"number\":{number}}}")).collect();
    assert_eq!((three.len(), bodies), (3, expected.iter().map(String::as_str).collect()));
    assert!(client.receive(QUEUE, 1, Duration::ZERO).await.expect("receives").is_empty());
}

#[tokio::test]
async fn a_large_batch_is_split_and_a_message_that_is_too_large_sends_nothing() {
    let emulator = emulator().await;
    let client = client(&emulator);
    let wide = |size: usize| OutgoingMessage::json(format!("{{\"x\":\"{}\"}}", "x".repeat(size)));
    let messages: Vec<_> = (0..400).map(|_| wide(2000)).collect();
    client.send(QUEUE, &messages).await.expect("sends");
    assert_eq!(counts(&emulator).ready, 400);
    let refused = client.send(QUEUE, &[wide(10), wide(300_000)]).await;
    assert!(
        matches!(refused, Err(ServiceBusError::TooLarge { size: 300_000.., limit: 262_144 })),
        "{refused:?}"
    );
    assert_eq!(counts(&emulator).ready, 400);
    let seen = client.peek(QUEUE, 0, 1000).await.expect("looks");
    let arrived: Vec<_> = seen.into_iter().filter_map(|message| message.message_id).collect();
    let sent: Vec<_> = messages.into_iter().map(|message| message.message_id).collect();
    assert_eq!(arrived, sent);
}

#[tokio::test]
async fn scheduled_messages_can_be_taken_back() {
    let emulator = emulator().await;
    let client = client(&emulator);
    let at = |wait: u64| OutgoingMessage {
        scheduled_for: Some(SystemTime::now() + Duration::from_millis(wait)),
        ..OutgoingMessage::json(format!("{wait}"))
    };
    let sequences = client.schedule(QUEUE, &[at(600_000), at(400)]).await.expect("schedules");
    assert_eq!(client.counts(QUEUE, 10).await, Ok(Counts { scheduled: 2, exact: true, ..Counts::default() }));
    client.cancel(QUEUE, &sequences[..1]).await.expect("cancels");
    let again = client.cancel(QUEUE, &sequences[..1]).await;
    assert!(matches!(again, Err(ServiceBusError::NotFound(_))), "{again:?}");
    let due = one(&client).await;
    assert_eq!((text(&due), due.lock.sequence), ("400", sequences[1]));
}

#[tokio::test]
async fn counts_say_whether_they_are_exact() {
    let emulator = emulator().await;
    let client = client(&emulator);
    client.send(QUEUE, &numbered(300)).await.expect("sends");
    let exact = Counts { active: 300, exact: true, ..Counts::default() };
    assert_eq!(client.counts(QUEUE, 300).await, Ok(exact));
    assert_eq!(client.counts(QUEUE, 299).await, Ok(Counts { active: 299, exact: false, ..exact }));
}

#[tokio::test]
async fn dead_letters_keep_their_reason_and_go_back() {
    let emulator = emulator().await;
    let client = client(&emulator);
    send(&client, &["{\"task_id\":\"t1\"}"]).await;
    let message = one(&client).await;
    client.dead_letter(QUEUE, message.lock, "BAD", "it is bad").await.expect("sets aside");
    let letters = client.peek(&dead_letters(QUEUE), 0, 10).await.expect("looks");
    let why = (letters[0].dead_letter_reason.as_deref(), letters[0].dead_letter_description.as_deref());
    assert_eq!((letters.len(), why), (1, (Some("BAD"), Some("it is bad"))));
    assert_eq!(client.redrive(QUEUE, 10).await, Ok(1));
    let again = one(&client).await;
    assert_eq!((text(&again), again.message.properties["task_id"].as_str()), ("{\"task_id\":\"t1\"}", "t1"));
    assert_eq!(again.message.dead_letter_reason, None);
    client.complete(QUEUE, again.lock).await.expect("completes");
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_receiver_that_is_dropped_leaves_nothing_locked() {
    let emulator = emulator().await;
    let (dropped, other) = (client(&emulator), client(&emulator));
    other.send(QUEUE, &numbered(1)).await.expect("sends");
    let warm = one(&dropped).await;
    dropped.complete(QUEUE, warm.lock).await.expect("completes");
    for round in 0..60 {
        let message = [OutgoingMessage::json("{}".into())];
        let (sent, received) = tokio::join!(
            other.send(QUEUE, &message),
            tokio::time::timeout(Duration::from_micros(round * 150), dropped.receive(QUEUE, 1, LONG)),
        );
        sent.expect("sends");
        // The message was in time, or it comes to whoever asks next.
        let message = match received {
            Ok(received) => received.expect("receives").pop().expect("a message"),
            Err(_) => one(&other).await,
        };
        other.complete(QUEUE, message.lock).await.expect("completes");
    }
    dropped.close().await;
    assert_eq!(counts(&emulator), Default::default());
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_named() {
    let emulator = emulator_with(Broker { strict: true, ..Broker::default() }).await;
    let client = client(&emulator);
    let (sent, received, seen) = (
        client.send("elsewhere", &numbered(1)).await.map(|()| 0),
        client.receive("elsewhere", 1, LONG).await.map(|messages| messages.len()),
        client.peek("elsewhere", 0, 1).await.map(|messages| messages.len()),
    );
    for result in [sent, received, seen] {
        assert!(matches!(result, Err(ServiceBusError::NotFound(_))), "{result:?}");
    }
    send(&client, &["{}"]).await;
}
