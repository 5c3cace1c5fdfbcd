//! The library as tests use it: in process, on free ports, by method and by command.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::time::Duration;

use geoworker_servicebus_emulator::{Counts, Emulator, QueueSettings, Settings, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SASL_HEADER: &[u8; 8] = b"AMQP\x03\x01\x00\x00";

async fn start(settings: Settings) -> Emulator {
    Emulator::start(settings).await.unwrap()
}

fn queues(text: &str) -> Settings {
    Settings { queues: vec![text.parse().unwrap()], ..Settings::default() }
}

/// What the emulator says to a client that asks for SASL; empty where it hangs up.
async fn greeting(emulator: &Emulator) -> Vec<u8> {
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    // The write fails where the emulator hung up first; the read tells.
    let _sent = stream.write_all(SASL_HEADER).await;
    let mut answer = vec![0; 8];
    match stream.read_exact(&mut answer).await {
        Ok(_) => answer,
        Err(_) => Vec::new(),
    }
}

#[tokio::test]
async fn an_emulator_listens_as_soon_as_it_has_started() {
    let emulator = start(queues("tasks:lock=5s")).await;
    assert_eq!(greeting(&emulator).await, SASL_HEADER);
    let endpoint = format!("Endpoint=sb://127.0.0.1:{};", emulator.port());
    assert!(emulator.connection_string().starts_with(&endpoint));
    assert!(emulator.connection_string().ends_with(";UseDevelopmentEmulator=true"));
    assert_eq!(emulator.counts("Tasks"), Ok(Counts::default()));
    assert!(emulator.counts("others").is_err());
}

#[tokio::test]
async fn an_emulator_that_is_dropped_is_gone() {
    let emulator = start(Settings::default()).await;
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    stream.write_all(SASL_HEADER).await.unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.unwrap();
    drop(emulator);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection outlived the emulator");
}

#[tokio::test]
async fn an_outage_ends() {
    let emulator = start(Settings::default()).await;
    emulator.outage(Duration::from_secs(60));
    assert_eq!(greeting(&emulator).await, b"", "it is out");
    emulator.outage(Duration::ZERO);
    assert_eq!(greeting(&emulator).await, SASL_HEADER);
}

#[tokio::test]
async fn settings_outside_the_limits_are_refused() {
    let mut settings = Settings::default();
    settings.defaults.lock = Duration::from_secs(301);
    assert!(matches!(Emulator::start(settings).await, Err(StartError::Settings(_))));
    let emulator = start(Settings::default()).await;
    let mut queue: QueueSettings = "tasks".parse().unwrap();
    queue.rules.max_deliveries = 0;
    assert!(emulator.create(queue).is_err());
    assert!(emulator.counts("tasks").is_err(), "it was not made");
}

#[tokio::test]
async fn commands_and_methods_do_the_same() {
    let emulator = start(queues("tasks")).await;
    let mut admin = TcpStream::connect(emulator.admin_address()).await.unwrap();
    admin.write_all(b"fault drop after-complete 0.5\ncounts tasks\n").await.unwrap();
    admin.shutdown().await.unwrap();
    let mut answers = String::new();
    admin.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers, "ok\nok ready=0 locked=0 deferred=0 scheduled=0 dead=0\n");
    assert_eq!(emulator.faults(), ["drop after-complete 0.5".parse().unwrap()]);
    emulator.clear_faults();
    assert_eq!(emulator.faults(), []);
}
