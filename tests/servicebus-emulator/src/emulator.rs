//! A running emulator.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::broker::{Broker, UnknownQueue};
use crate::faults::{Action, Fault};
use crate::queue::Counts;
use crate::settings::{QueueSettings, Settings, SettingsError};
use crate::tls::{TlsError, acceptor};
use crate::{admin, connection};

/// Key in the connection string. It guards nothing: signatures are not checked.
const ACCESS_KEY: &str = "RW11bGF0b3JFbXVsYXRvckVtdWxhdG9yRW11bGF0b3I=";

/// An emulator that serves until it is dropped. What it does by command, it also does by method.
#[derive(Debug)]
pub struct Emulator {
    broker: Arc<Broker>,
    amqp: SocketAddr,
    admin: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Why an emulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that does not hold.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A port that cannot be had.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// An identity that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Emulator {
    /// Starts an emulator on the current tokio runtime. It takes connections as soon as this returns.
    ///
    /// # Errors
    /// Settings outside the service's limits, ports that are taken, TLS files that cannot be read.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        settings.defaults.check()?;
        for queue in &settings.queues {
            queue.rules.check()?;
        }
        let tls = settings.tls.as_ref().map(acceptor).transpose()?;
        let (amqp_listener, amqp) = listen(SocketAddr::new(settings.bind, settings.port)).await?;
        let (admin_listener, admin) = listen(SocketAddr::new(settings.bind, settings.admin_port)).await?;
        let broker = Arc::new(Broker::new(settings));

        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&broker).keep_time());
        let shared = Arc::clone(&broker);
        tasks
            .spawn(accept(amqp_listener, move |stream| serve_amqp(stream, Arc::clone(&shared), tls.clone())));
        let shared = Arc::clone(&broker);
        tasks.spawn(accept(admin_listener, move |stream| serve_admin(stream, Arc::clone(&shared))));
        Ok(Self { broker, amqp, admin, _tasks: tasks })
    }

    /// What clients connect with.
    #[must_use]
    pub fn connection_string(&self) -> String {
        // The flag lets clients speak plain AMQP; with TLS it must not be there.
        let plain = if self.broker.settings.tls.is_some() { "" } else { ";UseDevelopmentEmulator=true" };
        let address = self.amqp;
        format!("Endpoint=sb://{address};SharedAccessKeyName=emulator;SharedAccessKey={ACCESS_KEY}{plain}")
    }

    /// The AMQP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.amqp.port()
    }

    /// Address of the AMQP port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.amqp
    }

    /// Address of the port for commands.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Numbers of messages of a queue.
    ///
    /// # Errors
    /// There is no such queue (yet).
    pub fn counts(&self, queue: &str) -> Result<Counts, UnknownQueue> {
        self.broker.counts(&queue.to_ascii_lowercase())
    }

    /// Makes a queue; one of that name is emptied and takes the new rules.
    ///
    /// # Errors
    /// Rules outside the service's limits.
    pub fn create(&self, queue: QueueSettings) -> Result<(), SettingsError> {
        queue.rules.check()?;
        self.broker.create(queue);
        Ok(())
    }

    /// Deletes all messages of a queue.
    ///
    /// # Errors
    /// There is no such queue (yet).
    pub fn purge(&self, queue: &str) -> Result<(), UnknownQueue> {
        self.broker.purge(&queue.to_ascii_lowercase())
    }

    /// Puts a fault in force, or lets it strike at once.
    pub fn fault(&self, fault: Fault) {
        self.broker.fault(fault);
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.broker.faults.list()
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.broker.faults.clear();
    }

    /// Answers `com.microsoft:server-busy` for a time; receivers get nothing.
    pub fn throttle(&self, time: Duration) {
        self.broker.throttle(time);
    }

    /// Drops all connections. Messages and locks stay, as when the service moves a queue to another machine.
    pub fn restart(&self) {
        self.broker.strike_all(Action::Drop);
    }

    /// Drops all connections, and new ones for a time.
    pub fn outage(&self, time: Duration) {
        self.broker.outage(time);
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves every connection in a task of its own. All end with this one.
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(serve(stream))),
            // Out of file descriptors, say: better late than never.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_amqp(stream: TcpStream, broker: Arc<Broker>, tls: Option<TlsAcceptor>) {
    if broker.is_out() {
        return;
    }
    let trace = broker.settings.trace;
    let end = async {
        // Small frames must not wait for each other.
        stream.set_nodelay(true)?;
        match tls {
            None => connection::serve(stream, broker).await,
            Some(tls) => connection::serve(tls.accept(stream).await?, broker).await,
        }
    };
    match end.await {
        Err(error) if trace => eprintln!("connection ended: {error}"),
        Ok(()) | Err(_) => {}
    }
}

async fn serve_admin(stream: TcpStream, broker: Arc<Broker>) {
    // Whoever sends commands sees for himself that his connection broke.
    let _end = admin::serve(stream, broker).await;
}
