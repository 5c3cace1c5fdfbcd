//! `geoworker-servicebus-emulator`: Azure Service Bus queues in memory.

use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use geoworker_servicebus_emulator::queue::Rules;
use geoworker_servicebus_emulator::settings::{
    DEFAULT_MAX_DELIVERIES, DEFAULT_MAX_MESSAGE, TlsFiles, parse_time,
};
use geoworker_servicebus_emulator::{COMMANDS, Emulator, QueueSettings, Settings};
use tokio::signal::unix::{SignalKind, signal};

const FAULTS: &str = "\
Faults: ACTION POINT [FREQUENCY]
  ACTION     detach (link), end (session), close (connection), drop (TCP); busy; lose-lock
  POINT      now, or [before-|after-](send|receive|renew|complete); \"after\" means it took effect, unknown to the client
  FREQUENCY  once (default), a number of times, always, or a probability such as 0.1";

const EXAMPLES: &str = "\
Examples:
  geoworker-servicebus-emulator --queue tasks:lock=30s,max-deliveries=3
  geoworker-servicebus-emulator --port 0 --admin-port 0 --strict --queue tasks --seed 7
  echo 'fault drop before-complete 0.1' | nc -N 127.0.0.1 5673

Not there: topics and subscriptions, sessions, transactions, duplicate detection, forwarding, partitions, management \
over HTTP, websockets, changes of properties on abandon. Tokens are read but their signatures are not checked.";

/// Azure Service Bus queues in memory, over AMQP 1.0, for tests and benchmarks. Everything is lost when it ends.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("Commands of the admin port, one a line:\n{COMMANDS}\n\n{FAULTS}\n\n{EXAMPLES}"))]
struct Arguments {
    /// AMQP port; 0 takes a free one.
    #[arg(long, default_value_t = 5672)]
    port: u16,
    /// Port for commands; 0 takes a free one.
    #[arg(long, default_value_t = 5673)]
    admin_port: u16,
    /// Address of both ports. There is no protection: leave it on loopback.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// A queue to start with: NAME[:lock=60s,max-deliveries=10,ttl=1h,dead-letter-expired]. Can be repeated.
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// Refuse queues that were not created, instead of making them on first use.
    #[arg(long)]
    strict: bool,
    /// Lock of queues that state none, at most 5m.
    #[arg(long, default_value = "60s", value_parser = parse_time, value_name = "SECONDS")]
    lock: Duration,
    /// Deliveries of queues that state no limit.
    #[arg(long, default_value_t = DEFAULT_MAX_DELIVERIES, value_name = "N")]
    max_deliveries: u32,
    /// Largest message in bytes.
    #[arg(long, default_value_t = DEFAULT_MAX_MESSAGE, value_name = "BYTES")]
    max_message: u64,
    /// Refuse and detach links without a token that is still good.
    #[arg(long)]
    enforce_tokens: bool,
    /// Seed of random faults.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Certificate chain in PEM, for amqps.
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM, for amqps.
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Write every performative to standard error.
    #[arg(long)]
    trace: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("error: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let emulator = Emulator::start(settings(arguments)?).await?;
    {
        let mut output = std::io::stdout().lock();
        writeln!(output, "listening amqp={} admin={}", emulator.address(), emulator.admin_address())?;
        writeln!(output, "{}", emulator.connection_string())?;
        output.flush()?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn settings(arguments: Arguments) -> Result<Settings, Box<dyn Error>> {
    let defaults =
        Rules { lock: arguments.lock, max_deliveries: arguments.max_deliveries, ..Rules::default() };
    let queues = arguments.queues.iter().map(|queue| QueueSettings::parse(queue, defaults));
    let files = arguments.tls_cert.zip(arguments.tls_key);
    Ok(Settings {
        bind: arguments.bind,
        port: arguments.port,
        admin_port: arguments.admin_port,
        queues: queues.collect::<Result<_, _>>()?,
        strict: arguments.strict,
        defaults,
        max_message: arguments.max_message,
        enforce_tokens: arguments.enforce_tokens,
        seed: arguments.seed,
        trace: arguments.trace,
        tls: files.map(|(certificate, key)| TlsFiles { certificate, key }),
    })
}
