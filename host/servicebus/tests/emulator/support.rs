//! An emulator, clients of it, and short cuts.

use std::time::Duration;

use geoworker_servicebus::{Client, LockedMessage, OutgoingMessage, PlainHosts, Settings};
use geoworker_servicebus_emulator::{Counts, Emulator, Settings as Broker};

pub(crate) const QUEUE: &str = "tasks";
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Locks last a minute: what is not given back is not seen again in a test.
pub(crate) async fn emulator() -> Emulator {
    emulator_with(Broker::default()).await
}

pub(crate) async fn emulator_with(mut broker: Broker) -> Emulator {
    broker.queues.push(QUEUE.parse().expect("a queue"));
    Emulator::start(broker).await.expect("starts")
}

pub(crate) async fn emulator_with_lock(lock: &str) -> Emulator {
    let queue = format!("{QUEUE}:lock={lock}").parse().expect("a queue");
    Emulator::start(Broker { queues: vec![queue], ..Broker::default() }).await.expect("starts")
}

pub(crate) fn settings(emulator: &Emulator) -> Settings {
    Settings::from_connection_string(&emulator.connection_string(), PlainHosts::Loopback).expect("reads")
}

pub(crate) fn client(emulator: &Emulator) -> Client {
    Client::new(settings(emulator))
}

pub(crate) fn numbered(count: usize) -> Vec<OutgoingMessage> {
    (0..count).map(|number| OutgoingMessage::json(format!("{{\"number\":{number}}}"))).collect()
}

pub(crate) async fn send(client: &Client, bodies: &[&str]) {
    let messages: Vec<_> = bodies.iter().map(|body| OutgoingMessage::json((*body).to_owned())).collect();
    client.send(QUEUE, &messages).await.expect("sends");
}

pub(crate) async fn one(client: &Client) -> LockedMessage {
    client.receive(QUEUE, 1, LONG).await.expect("receives").pop().expect("a message")
}

pub(crate) fn text(message: &LockedMessage) -> &str {
    std::str::from_utf8(&message.message.body).expect("text")
}

pub(crate) fn counts(emulator: &Emulator) -> Counts {
    emulator.counts(QUEUE).expect("a queue")
}
