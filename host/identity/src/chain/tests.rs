//! The chain over a transport that answers itself, and one real server as IDENTITY_ENDPOINT.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use azure_core::credentials::{AccessToken, TokenRequestOptions};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request, StatusCode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

const SCOPE: &str = "https://storage.azure.com/.default";

/// Answers requests without a network and keeps them.
#[derive(Debug, Clone)]
struct Fake {
    status: StatusCode,
    answer: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn new(status: StatusCode, answer: &'static str) -> Self {
        Self { status, answer, asked: Arc::default() }
    }

    fn identity(&self, variables: &[(&str, &str)]) -> Result<AzureIdentity, IdentityError> {
        let get =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        AzureIdentity::over(Transport::new(Arc::new(self.clone())), &get)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

#[async_trait]
impl HttpClient for Fake {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let body = match request.body() {
            Body::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Body::SeekableStream(_) => String::new(),
        };
        self.asked.lock().expect("unpoisoned").push(format!("{} {body}", request.url()));
        Ok(AsyncRawResponse::from_bytes(self.status, Headers::new(), self.answer))
    }
}

const GRANTED: &str =
    r#"{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"T1"}"#;

#[tokio::test]
async fn a_client_secret_is_exchanged_once_for_each_scope() {
    let entra = Fake::new(StatusCode::Ok, GRANTED);
    let identity = entra
        .identity(&[
            ("AZURE_CLIENT_ID", "app"),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_SECRET", "hush-hush"),
        ])
        .expect("is complete");
    assert_eq!(identity.kind(), "client secret");
    for _ in 0..3 {
        assert_eq!(identity.token(SCOPE).await.expect("is granted").secret, "T1");
    }
    identity.token("https://servicebus.azure.net/.default").await.expect("is granted");
    let asked = entra.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("https://login.microsoftonline.com/tenant/oauth2/v2.0/token client_id=app"));
    assert!(!format!("{identity:?}").contains("hush"));
    let token = identity.token(SCOPE).await.expect("is kept");
    assert!(!format!("{token:?}").contains("T1"));
}

#[tokio::test]
async fn a_federated_token_comes_before_a_secret() {
    let file = std::env::temp_dir().join(format!("federated-{}", std::process::id()));
    std::fs::write(&file, "assertion").expect("writes");
    let entra = Fake::new(StatusCode::Ok, GRANTED);
    let identity = entra.identity(&[
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().expect("is text")),
        ("AZURE_CLIENT_ID", "app"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_SECRET", "hush-hush"),
    ]);
    std::fs::remove_file(&file).expect("removes");
    let identity = identity.expect("is complete");
    assert_eq!(identity.kind(), "workload identity");
    identity.token(SCOPE).await.expect("is granted");
    assert!(entra.asked()[0].contains("client_assertion=assertion"));
}

#[tokio::test]
async fn what_is_missing_is_named_and_a_refusal_is_final() {
    let entra = Fake::new(
        StatusCode::Unauthorized,
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215],"timestamp":"","trace_id":"","correlation_id":""}"#,
    );
    let error = entra.identity(&[("AZURE_CLIENT_SECRET", "hush"), ("AZURE_CLIENT_ID", "app")]);
    let text = error.expect_err("the tenant is missing").to_string();
    assert!(text.contains("AZURE_TENANT_ID") && !text.contains("hush"), "{text}");
    let identity = entra
        .identity(&[("AZURE_CLIENT_SECRET", "hush"), ("AZURE_CLIENT_ID", "a"), ("AZURE_TENANT_ID", "t")])
        .expect("is complete");
    let error = identity.token(SCOPE).await.expect_err("is refused");
    assert!(matches!(&error, IdentityError::Refused(text) if text.contains("AADSTS7000215")), "{error}");
    assert!(!error.to_string().contains("hush"));
}

/// A credential whose tokens are near their end, and which fails after the first.
#[derive(Debug, Default)]
struct Failing(AtomicUsize);

#[async_trait]
impl TokenCredential for Failing {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err(azure_core::Error::with_message(azure_core::error::ErrorKind::Io, "is down"));
        }
        Ok(AccessToken::new("T1", (SystemTime::now() + Duration::from_secs(120)).into()))
    }
}

#[tokio::test]
async fn a_token_that_still_holds_survives_a_failed_renewal() {
    let credential = Arc::new(Failing::default());
    let identity = AzureIdentity::of("test", credential.clone());
    for _ in 0..5 {
        assert_eq!(identity.token(SCOPE).await.expect("holds").secret, "T1");
    }
    assert_eq!(credential.0.load(Ordering::SeqCst), 2, "one renewal was tried, the next has to wait");
    let error = identity.token("other").await.expect_err("there is none for this scope");
    assert!(matches!(error, IdentityError::Unavailable(_)), "{error}");
}

/// Set for the child process of the test below.
const CHILD: &str = "GEOWORKER_IDENTITY_TEST";

/// The endpoint is read from the process's environment, which a test must not change: the test runs itself once more.
#[tokio::test]
async fn a_managed_identity_asks_the_endpoint_of_the_platform() {
    if std::env::var_os(CHILD).is_some() {
        let get = |name: &str| (name == "AZURE_CLIENT_ID").then(|| "user-assigned".to_owned());
        let identity = AzureIdentity::from_environment(&get).expect("is complete");
        assert_eq!(identity.kind(), "managed identity");
        for _ in 0..2 {
            assert_eq!(identity.token(SCOPE).await.expect("is granted").secret, "T2");
        }
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let endpoint = format!("http://{}/msi/token", server.local_addr().expect("is bound"));
    let child = tokio::process::Command::new(std::env::current_exe().expect("is known"))
        .args(["--exact", "chain::tests::a_managed_identity_asks_the_endpoint_of_the_platform"])
        .envs([(CHILD, "1"), ("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "header")])
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let asked = AtomicUsize::new(0);
    let serve = async {
        loop {
            let (mut stream, _) = server.accept().await.expect("accepts");
            // The first request finds the service busy.
            let busy = asked.fetch_add(1, Ordering::SeqCst) == 0;
            let (reader, mut writer) = stream.split();
            let mut lines = BufReader::new(reader).lines();
            let mut head = String::new();
            while let Some(line) = lines.next_line().await.expect("reads").filter(|line| !line.is_empty()) {
                head = head + &line.to_lowercase() + "\n";
            }
            assert!(head.contains("client_id=user-assigned") && head.contains("x-identity-header: header"));
            let end =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("is later").as_secs() + 3600;
            let token = format!(
                r#"{{"access_token":"T2","expires_on":"{end}","resource":"r","token_type":"Bearer","client_id":"c"}}"#
            );
            let (status, body) = if busy { ("503 Busy", String::new()) } else { ("200 OK", token) };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            writer.write_all(answer.as_bytes()).await.expect("writes");
        }
    };
    let output = tokio::select! { output = child => output.expect("runs"), () = serve => unreachable!() };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(asked.into_inner(), 2, "asked until it answered, and kept then");
}
