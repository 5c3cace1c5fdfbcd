//! Many slots at once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

use crate::support::{LONG, QUEUE, client, counts, emulator, numbered, text};

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_slots_share_a_client() {
    const MESSAGES: usize = 2000;
    let emulator = emulator().await;
    let client = client(&emulator);
    let begin = Instant::now();
    client.send(QUEUE, &numbered(MESSAGES)).await.expect("sends");
    let sent = begin.elapsed();
    let begin = Instant::now();
    let seen = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    let slots: Vec<_> = (0..16)
        .map(|_| {
            let (client, seen) = (client.clone(), seen.clone());
            tokio::spawn(async move {
                loop {
                    let message = client.receive(QUEUE, 1, LONG / 20).await.expect("receives").pop();
                    let Some(message) = message else { return };
                    client.complete(QUEUE, message.lock).await.expect("completes");
                    assert!(seen.lock().expect("lock").insert(text(&message).to_owned()), "received once");
                    if seen.lock().expect("lock").len() == MESSAGES {
                        eprintln!(
                            "{MESSAGES} messages: sent in {sent:?}, received and completed in {:?}",
                            begin.elapsed()
                        );
                    }
                }
            })
        })
        .collect();
    for slot in slots {
        slot.await.expect("ends");
    }
    assert_eq!(seen.lock().expect("lock").len(), MESSAGES);
    assert_eq!(counts(&emulator), Default::default());
}
