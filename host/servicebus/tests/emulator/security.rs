//! Tokens that end, and TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use geoworker_identity::{IdentityError, Token, TokenSource};
use geoworker_servicebus::{Client, Credential, ServiceBusError, Settings, Transport};
use geoworker_servicebus_emulator::settings::TlsFiles;
use geoworker_servicebus_emulator::{Emulator, Settings as Broker};

use crate::support::{QUEUE, emulator_with, one, send, settings};

/// Gives tokens of a length.
#[derive(Debug)]
struct Source {
    life: Duration,
    given: AtomicU32,
}

#[async_trait]
impl TokenSource for Source {
    async fn token(&self, scope: &str) -> Result<Token, IdentityError> {
        assert_eq!(scope, "https://servicebus.azure.net/.default");
        self.given.fetch_add(1, Ordering::Relaxed);
        let expires_at = SystemTime::now() + self.life;
        let end = expires_at.duration_since(UNIX_EPOCH).expect("later").as_secs();
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{end}}}"));
        Ok(Token { secret: format!("e30.{claims}.x"), expires_at })
    }
}

fn with_tokens(emulator: &Emulator, life: Duration) -> (Client, Arc<Source>) {
    let source = Arc::new(Source { life, given: AtomicU32::new(0) });
    let credential = Credential::Tokens(source.clone());
    (Client::new(Settings { credential, ..settings(emulator) }), source)
}

#[tokio::test]
async fn tokens_are_put_again_before_they_end() {
    let emulator = emulator_with(Broker { enforce_tokens: true, ..Broker::default() }).await;
    let (client, source) = with_tokens(&emulator, Duration::from_secs(4));
    send(&client, &["{}"]).await;
    let message = one(&client).await;
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        client.renew(QUEUE, message.lock).await.expect("renews");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client.complete(QUEUE, message.lock).await.expect("completes");
    let given = source.given.load(Ordering::Relaxed);
    assert!((3..=6).contains(&given), "{given} tokens");
}

#[tokio::test]
async fn a_token_that_is_refused_is_an_error() {
    let emulator = emulator_with(Broker { enforce_tokens: true, ..Broker::default() }).await;
    let (client, source) = with_tokens(&emulator, Duration::ZERO);
    let refused = client.peek(QUEUE, 0, 1).await;
    assert!(matches!(refused, Err(ServiceBusError::Unauthorized(_))), "{refused:?}");
    assert_eq!(source.given.load(Ordering::Relaxed), 2, "tried with a fresh one");
}

#[tokio::test]
async fn tls_is_checked_against_the_extra_roots() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()])
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("a certificate");
    let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&files.certificate, certificate.pem()).expect("writes");
    std::fs::write(&files.key, key.serialize_pem()).expect("writes");
    let roots = files.certificate.clone();
    let emulator = emulator_with(Broker { tls: Some(files), ..Broker::default() }).await;

    let trusting = Transport::Tls { extra_roots: Some(roots) };
    let client = Client::new(Settings { transport: trusting, ..settings(&emulator) });
    send(&client, &["{}"]).await;
    let message = one(&client).await;
    client.complete(QUEUE, message.lock).await.expect("completes");

    let operation_timeout = Duration::from_millis(300);
    let distrusting = Client::new(Settings { operation_timeout, ..settings(&emulator) });
    let refused = distrusting.peek(QUEUE, 0, 1).await;
    assert!(matches!(refused, Err(ServiceBusError::Unavailable(_))), "{refused:?}");
}
