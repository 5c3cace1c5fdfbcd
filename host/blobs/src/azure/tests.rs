//! Against the emulator, and through a proxy that breaks things.

mod azurite;
mod proxy;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use geoworker_identity::{IdentityError, Token, TokenSource};

use self::azurite::{Azurite, zones_at};
use self::proxy::{Fate, Gate};
use super::*;
use crate::conformance::{self, blob, fence, read, write};

#[tokio::test]
async fn storage_accounts_conform() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    conformance::run(&azurite.zones().await, &azurite.zones().await).await;
}

#[tokio::test]
async fn what_the_account_refuses_is_said_without_secrets() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    let zones = azurite.zones().await;
    let nowhere = BlobRef::new("silver", "nowhere", "x");
    for result in [
        zones.write(&nowhere, &mut &b"x"[..], None).await.map(drop),
        zones.stat(&nowhere).await.map(drop),
        zones.list("silver", "nowhere", "", 1).await.map(drop),
    ] {
        let text = result.expect_err("there is no container").to_string();
        assert_eq!(text, "container silver:nowhere does not exist");
    }
    let text = format!("AccountName=silver;AccountKey=d3Jvbmc=;BlobEndpoint={}/silver", azurite.address);
    let account = Account::from_connection_string(&text).expect("is valid");
    let stranger = AzureZones::open(BTreeMap::from([("silver".to_owned(), account)]));
    let denied = write(&stranger.expect("opens"), "x", "x", None).await.expect_err("the key is wrong");
    assert!(matches!(denied, BlobError::Denied(_)), "{denied:?}");
    let text = format!("{denied:?} {denied}");
    assert!(!text.contains("sig=") && !text.contains("http") && !text.contains("d3Jv"), "{text}");
}

#[tokio::test]
async fn nobody_answers() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = server.local_addr().expect("is bound");
    drop(server);
    let mut zones = zones_at([&format!("http://{address}"); 2].map(String::as_str));
    for client in zones.zones.values_mut() {
        client.without_retries();
    }
    let error = zones.stat(&blob("x")).await.expect_err("nobody is there");
    assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains("refused") && !text.contains("sig"), "{text}");
}

/// Whether a request, by its head, is of a kind.
type Kind = fn(&str) -> bool;

/// A rule that lets all pass but the first `count` requests of a kind.
fn first(count: usize, kind: Kind, fate: Fate) -> (impl FnMut(&str) -> Fate + Send, Arc<AtomicUsize>) {
    let met = Arc::new(AtomicUsize::new(0));
    let counter = met.clone();
    let rule = move |head: &str| {
        let is_met = kind(head) && counter.fetch_add(1, Ordering::SeqCst) < count;
        if is_met { fate } else { Fate::Pass }
    };
    (rule, met)
}

fn is_block(head: &str) -> bool {
    head.starts_with("PUT") && head.contains("comp=block&")
}

fn is_commit(head: &str) -> bool {
    head.starts_with("PUT") && head.contains("comp=blocklist")
}

fn is_range(head: &str) -> bool {
    head.starts_with("GET") && head.contains("range:")
}

#[tokio::test]
async fn what_breaks_on_the_way_is_repeated() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    azurite.zones().await;
    let busy = Fate::Answer(503, "ServerBusy");
    let cases: [(&str, Kind, usize, Fate); 8] = [
        ("a busy server", is_block, 2, busy),
        ("a busy server at the commit", is_commit, 2, busy),
        ("a broken block", is_block, 2, Fate::Break),
        ("the lost answer of a block", is_block, 1, Fate::LoseAnswer),
        ("a broken commit", is_commit, 1, Fate::Break),
        ("the lost answer of a commit", is_commit, 1, Fate::LoseAnswer),
        ("a commit that was overtaken", is_commit, 1, Fate::Answer(412, "ConditionNotMet")),
        ("a blob that came into being", is_commit, 1, Fate::Answer(409, "BlobAlreadyExists")),
    ];
    for (epoch, (case, kind, count, fate)) in (1..).zip(cases) {
        let (rule, met) = first(count, kind, fate);
        let zones = azurite.zones_at(&proxy::start(&azurite.address, rule).await);
        let text = case.repeat(1000);
        let attempt = fence("task", epoch, epoch);
        let facts = write(&zones, "faults", &text, Some(&attempt)).await.expect(case);
        assert_eq!(facts.size_bytes, text.len() as u64, "{case}");
        assert!(read(&zones, &blob("faults")).await == text, "{case}");
        assert!(met.load(Ordering::SeqCst) > count, "{case}: it was met and repeated");
    }
    for fate in [busy, Fate::Break, Fate::LoseAnswer, Fate::HalfAnswer] {
        let (rule, met) = first(2, is_range, fate);
        let zones = azurite.zones_at(&proxy::start(&azurite.address, rule).await);
        assert!(read(&zones, &blob("faults")).await.starts_with("a blob that came"), "{fate:?}");
        assert_eq!(met.load(Ordering::SeqCst), 3, "{fate:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_overtaken_between_look_and_commit_is_fenced() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    let zones = azurite.zones().await;
    for (name, condition) in [("new", "if-none-match: *"), ("old", "if-match: \"0x")] {
        if name == "old" {
            write(&zones, name, "first", Some(&fence("task", 1, 100))).await.expect("publishes");
        }
        let gate: &'static Gate = Box::leak(Box::default());
        let (seen, mut held) = (Arc::new(AtomicUsize::new(0)), false);
        let counter = seen.clone();
        let slow = move |head: &str| {
            if !is_commit(head) || std::mem::replace(&mut held, true) {
                return Fate::Pass;
            }
            counter.fetch_add(usize::from(head.contains(condition)), Ordering::SeqCst);
            Fate::Hold(gate)
        };
        let late = azurite.zones_at(&proxy::start(&azurite.address, slow).await);
        let overtake = async {
            gate.reached.notified().await;
            write(&zones, name, "third", Some(&fence("task", 3, 300))).await.expect("publishes");
            gate.open.notify_one();
        };
        let second = fence("task", 2, 200);
        let (lost, ()) = tokio::join!(write(&late, name, "second", Some(&second)), overtake);
        assert!(matches!(lost, Err(BlobError::Fenced)), "{name}: {lost:?}");
        assert_eq!(read(&zones, &blob(name)).await, "third");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{name}: the commit had its condition");
    }
}

#[tokio::test]
async fn an_output_is_copied_again_where_its_blocks_were_taken() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    azurite.zones().await;
    let taken = |head: &str| is_commit(head) && head.contains("/cogs/taken?");
    let (rule, met) = first(1, taken, Fate::Answer(400, "InvalidBlockList"));
    let zones = azurite.zones_at(&proxy::start(&azurite.address, rule).await);
    let output = zones.create(&blob("taken")).await.expect("begins");
    conformance::fill(&output, "pixels").await;
    zones.publish(output, None).await.expect("publishes");
    assert_eq!((read(&zones, &blob("taken")).await.as_str(), met.load(Ordering::SeqCst)), ("pixels", 2));
    let (rule, _) = first(usize::MAX, is_commit, Fate::Answer(400, "InvalidBlockList"));
    let zones = azurite.zones_at(&proxy::start(&azurite.address, rule).await);
    let busy = write(&zones, "taken", "never", None).await;
    assert!(matches!(busy, Err(BlobError::Busy)), "{busy:?}");
}

/// The emulator does not do that: the proxy before the target does. Addresses have no account in their paths here.
#[tokio::test]
async fn the_service_reads_the_source_of_a_copy_itself_where_it_can() {
    let Some(azurite) = Azurite::start(&[]).await else { return };
    let content = vec![7_u8; (16 << 20) + 1];
    let source = BlobRef::new("bronze", "cogs", "large");
    azurite.zones().await.write(&source, &mut content.as_slice(), None).await.expect("writes");
    for (fate, asked) in [(Fate::ReadSource, 2..=2), (Fate::Answer(403, "CannotVerifyCopySource"), 1..=2)] {
        let (rule, met) = first(2, |head| head.to_lowercase().contains("x-ms-copy-source:"), fate);
        let bronze = proxy::start(&format!("{}/bronze", azurite.address), |_| Fate::Pass).await;
        let silver = proxy::start(&format!("{}/silver", azurite.address), rule).await;
        let zones = zones_at([&bronze, &silver]);
        let copied = zones.copy(&source, &blob("large"), Some(&fence("task", 1, 1))).await.expect("copies");
        assert_eq!(copied.size_bytes, content.len() as u64);
        assert!(asked.contains(&met.load(Ordering::SeqCst)), "{fate:?}");
        let Source::Object(object) = zones.open(&blob("large")).await.expect("opens") else {
            panic!("a file")
        };
        assert!(object.read(0, content.len()).await.expect("reads") == content, "{fate:?}");
    }
}

/// Gives what the emulator takes for a token.
#[derive(Debug)]
struct Unsigned(String);

#[async_trait]
impl TokenSource for Unsigned {
    async fn token(&self, scope: &str) -> Result<Token, IdentityError> {
        assert_eq!(scope, "https://storage.azure.com/.default");
        let expires_at = SystemTime::now() + std::time::Duration::from_secs(3600);
        Ok(Token { secret: self.0.clone(), expires_at })
    }
}

#[derive(Debug)]
struct Down;

#[async_trait]
impl TokenSource for Down {
    async fn token(&self, _: &str) -> Result<Token, IdentityError> {
        Err(IdentityError::Unavailable("is down".to_owned()))
    }
}

#[tokio::test]
async fn an_identity_opens_an_account_over_tls() {
    if azurite::script().is_none() {
        return;
    }
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("generates");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, signed.cert.pem()).expect("writes");
    std::fs::write(&key, signed.signing_key.serialize_pem()).expect("writes");
    let path = |path: &std::path::Path| path.to_str().expect("is text").to_owned();
    let (certificate, key) = (path(&certificate), path(&key));
    let azurite = Azurite::start(&["--oauth", "basic", "--cert", &certificate, "--key", &key]).await;
    let azurite = azurite.expect("starts");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("is later").as_secs();
    let claims = format!(
        r#"{{"aud":"https://storage.azure.com","iss":"https://sts.windows.net/t/","nbf":{},"iat":{now},"exp":{}}}"#,
        now - 60,
        now + 3600
    );
    let part = |text: &str| azure_core::base64::encode_url_safe(text).trim_end_matches('=').to_owned();
    let token = format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), part(&claims));
    let open = |identity: Arc<dyn TokenSource>| {
        let account = |name: &str| {
            let account = Account::with_identity(name, identity.clone()).expect("is a name");
            (name.to_owned(), account.at(&format!("{}/{name}", azurite.address)).expect("is an address"))
        };
        let transport = geoworker_identity::transport(vec![signed.cert.der().to_vec()]).expect("opens");
        let accounts = BTreeMap::from(["bronze", "silver"].map(account));
        AzureZones::over(transport, accounts)
    };
    let zones = open(Arc::new(Unsigned(token.clone())));
    for zone in ["bronze", "silver"] {
        zones.create_container(zone, "cogs").await.expect("creates");
    }
    conformance::run(&zones, &open(Arc::new(Unsigned(token)))).await;
    let down = open(Arc::new(Down)).stat(&blob("x")).await;
    assert!(matches!(down, Err(BlobError::Unavailable(_))), "{down:?}");
}
