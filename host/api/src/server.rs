//! The listener: few connections, none for long.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use geoworker_machine::{AppMode, ErrorInfo, codes};
use geoworker_worker::Platform;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::{Bind, CONNECTION_TIME, CONNECTIONS, HEAD_TIME, HttpSettings, LAST_REQUEST_TIME};
use crate::state::Api;
use crate::{health, routes};

/// Wait after the kernel refused a connection, as where files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the components are looked at, so that `since` is right where nobody asks.
const LOOK: Duration = Duration::from_secs(5);

/// The HTTP side of a process, until [`Self::end`].
pub struct Server {
    api: Api,
    address: SocketAddr,
    ended: CancellationToken,
    listening: JoinHandle<()>,
}

impl Server {
    /// Listens and answers probes from now on; `stop` tells that the process is ending.
    ///
    /// # Errors
    /// `HTTP_BIND` where the address that was asked for cannot be had.
    pub async fn start(
        settings: HttpSettings,
        mode: AppMode,
        stop: CancellationToken,
    ) -> Result<Self, ErrorInfo> {
        let (listener, address) = listen(settings.bind).await?;
        let api = Api::new(settings, address.ip().is_loopback(), stop);
        let router = routes::router(&api, mode.properties().http);
        let ended = CancellationToken::new();
        let listening = tokio::spawn(accept(listener, router, api.clone(), ended.clone()));
        Ok(Self { api, address, ended, listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database is there, and the plugins are loaded: the job API answers from now on.
    pub fn attach(&self, platform: Platform) {
        self.api.attach(platform);
    }

    /// Takes no more connections and waits for the requests under way, not for long.
    pub async fn end(self) {
        self.ended.cancel();
        if let Err(error) = self.listening.await {
            tracing::error!(%error, "the HTTP listener ended unexpectedly");
        }
    }
}

async fn listen(bind: Bind) -> Result<(TcpListener, SocketAddr), ErrorInfo> {
    let wanted = bind.address();
    let refused = |error: std::io::Error| {
        ErrorInfo::permanent(codes::HTTP_BIND, format!("{wanted} cannot be listened on: {error}"))
    };
    let listener = match (TcpListener::bind(wanted).await, bind) {
        (Err(error), Bind::Default) => {
            let free = TcpListener::bind((wanted.ip(), 0)).await.map_err(refused)?;
            tracing::warn!(
                "{wanted} cannot be listened on ({error}): a free port is taken; GEOWORKER_HTTP sets one"
            );
            free
        }
        (bound, _) => bound.map_err(refused)?,
    };
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

async fn accept(listener: TcpListener, router: Router, api: Api, ended: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => break,
            _ = look.tick() => {
                health::all(&api);
            }
            next = next(&listener, &places) => match next {
                Ok((stream, place)) => {
                    let connection = serve(stream, router.clone(), ended.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    // All places free: no connection is left.
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_REQUEST_TIME, places.acquire_many(all)).await;
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Serves one connection until its client, its age or the process ends it.
async fn serve(stream: TcpStream, router: Router, ended: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        // How a client goes away is its own affair.
        _ = &mut connection => return,
        () = ended.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_REQUEST_TIME, connection).await;
}
