//! A proxy that breaks what passes through it. It serves one request for each connection.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Where a request waits.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) reached: Notify,
    pub(super) open: Notify,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Pass,
    /// Answered here with this status and error code.
    Answer(u16, &'static str),
    /// Half of the request is read, then the connection breaks.
    Break,
    /// Waits at a gate, then passes.
    Hold(&'static Gate),
    /// The server does it, but its answer is lost.
    LoseAnswer,
    /// The server does it, but only half of its answer arrives.
    HalfAnswer,
    /// Put Block From URL, which the emulator lacks.
    ReadSource,
}

/// A request's first line and headers, in lower case but for the address.
pub(super) type Rule = dyn FnMut(&str) -> Fate + Send;

/// Starts a proxy before a server, or before an account in its path; answers its address.
pub(super) async fn start(server: &str, rule: impl FnMut(&str) -> Fate + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = format!("http://{}", listener.local_addr().expect("is bound"));
    let server = server.trim_start_matches("http://");
    let (server, account) = server
        .split_once('/')
        .map_or((server, String::new()), |(server, account)| (server, format!("/{account}")));
    let server = server.to_owned();
    let rule: Arc<Mutex<Box<Rule>>> = Arc::new(Mutex::new(Box::new(rule)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (server, account, rule) = (server.clone(), account.clone(), rule.clone());
            // A client that went away is no failure.
            tokio::spawn(async move { drop(serve(stream, &server, &account, &rule).await) });
        }
    });
    address
}

async fn serve(
    stream: TcpStream,
    server: &str,
    account: &str,
    rule: &Mutex<Box<Rule>>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let fate = (rule.lock().expect("unpoisoned"))(&head);
    let head = head.replacen(" /", &format!(" {account}/"), 1);
    let length = header(&head, "content-length").map_or(0, |value| value.parse().expect("is a number"));
    if matches!(fate, Fate::Break) {
        let mut half = vec![0; length / 2];
        client.read_exact(&mut half).await?;
        return Ok(());
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    if let Fate::Hold(gate) = fate {
        gate.reached.notify_one();
        gate.open.notified().await;
    }
    let answer = match fate {
        Fate::Answer(status, code) => {
            format!("HTTP/1.1 {status} Said\r\nx-ms-error-code: {code}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .into_bytes()
        }
        Fate::ReadSource => read_source(server, &head).await?,
        _ => ask(server, &head, &body).await?,
    };
    let shown = match fate {
        Fate::LoseAnswer => 0,
        Fate::HalfAnswer => answer.len() - 2,
        _ => answer.len(),
    };
    client.get_mut().write_all(&answer[..shown]).await
}

/// Asks the server, on a connection of its own.
async fn ask(server: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Reads the source as the service would, with what its address authorises, and puts the block.
async fn read_source(server: &str, head: &str) -> std::io::Result<Vec<u8>> {
    let source = header(head, "x-ms-copy-source").expect("names its source");
    let (host, path) = source.trim_start_matches("http://").split_once('/').expect("has a path");
    let range = header(head, "x-ms-source-range").expect("names a range");
    let etag = header(head, "x-ms-source-if-match").expect("pins its source");
    let get =
        format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nx-ms-range: {range}\r\nif-match: {etag}\r\n\r\n");
    let answer = ask(host, &get, &[]).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("has a head") + 4;
    if !answer.starts_with(b"HTTP/1.1 206") {
        return Ok(answer);
    }
    let kept = head.lines().filter(|line| {
        let line = line.to_lowercase();
        !line.starts_with("x-ms-copy-source")
            && !line.starts_with("x-ms-source")
            && !line.starts_with("content-length")
    });
    let body = &answer[end..];
    let head = kept.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\r\n");
    ask(server, &format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len()), body).await
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
