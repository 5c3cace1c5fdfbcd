//! Commands in plain text, one a line, each answered by one line, `ok …` or `error …`; only `help` answers with more.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use crate::broker::Broker;
use crate::faults::{Action, Fault};
use crate::queue::Counts;
use crate::settings::{QueueSettings, parse_time};

/// All commands, for `help` and the manual.
pub const COMMANDS: &str = "\
counts QUEUE            numbers of messages: ready locked deferred scheduled dead
queues                  names of all queues
create NAME[:OPTIONS]   makes a queue; one of that name is emptied and takes the new options
purge QUEUE             deletes all messages of a queue
fault ACTION POINT [N]  puts a fault in force; see below
faults                  the faults in force
clear                   ends all faults
throttle TIME           answers com.microsoft:server-busy for a time; receivers get nothing
restart                 drops all connections; messages and locks stay
outage TIME             the same, and new connections are dropped for a time
help                    these lines";

/// Serves one client of the admin port until it leaves.
pub(crate) async fn serve<S>(stream: S, broker: Arc<Broker>) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match run(&broker, line.trim()) {
            Ok(text) if text.is_empty() => "ok\n".to_owned(),
            Ok(text) => format!("ok {text}\n"),
            Err(text) => format!("error {text}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

fn run(broker: &Broker, line: &str) -> Result<String, String> {
    let (command, rest) = line.split_once(' ').map_or((line, ""), |(command, rest)| (command, rest.trim()));
    let name = rest.to_ascii_lowercase();
    match command {
        "counts" => broker.counts(&name).map(|counts| show(&counts)).map_err(|error| error.to_string()),
        "queues" => Ok(broker.names().join(" ")),
        "create" => {
            let queue = QueueSettings::parse(rest, broker.settings.defaults);
            done(queue.map(|queue| broker.create(queue)))
        }
        "purge" => done(broker.purge(&name)),
        "fault" => done(rest.parse::<Fault>().map(|fault| broker.fault(fault))),
        "faults" => {
            let faults: Vec<String> = broker.faults.list().iter().map(ToString::to_string).collect();
            Ok(faults.join("; "))
        }
        "clear" => {
            broker.faults.clear();
            Ok(String::new())
        }
        "throttle" => done(parse_time(rest).map(|time| broker.throttle(time))),
        "restart" => {
            broker.strike_all(Action::Drop);
            Ok(String::new())
        }
        "outage" => done(parse_time(rest).map(|time| broker.outage(time))),
        "help" => Ok(format!("\n{COMMANDS}")),
        other => Err(format!("no command {other:?}; \"help\" lists them")),
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>) -> Result<String, String> {
    result.map(|()| String::new()).map_err(|error| error.to_string())
}

fn show(counts: &Counts) -> String {
    let Counts { ready, locked, deferred, scheduled, dead } = counts;
    format!("ready={ready} locked={locked} deferred={deferred} scheduled={scheduled} dead={dead}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn commands_answer_in_one_line() {
        let broker = Broker::new(Settings { strict: true, ..Settings::default() });
        assert_eq!(run(&broker, "create Tasks:lock=5s"), Ok(String::new()));
        assert_eq!(run(&broker, "queues"), Ok("tasks".to_owned()));
        let empty = "ready=0 locked=0 deferred=0 scheduled=0 dead=0";
        assert_eq!(run(&broker, "counts TASKS"), Ok(empty.to_owned()));
        assert!(run(&broker, "counts others").unwrap_err().contains("others"));
        assert!(run(&broker, "create tasks:lock=6m").unwrap_err().contains("5 minutes"));
        assert_eq!(run(&broker, "fault drop after-complete 0.5"), Ok(String::new()));
        assert_eq!(run(&broker, "fault detach receive"), Ok(String::new()));
        let faults = "drop after-complete 0.5; detach before-receive 1";
        assert_eq!(run(&broker, "faults"), Ok(faults.to_owned()));
        assert_eq!(run(&broker, "clear"), Ok(String::new()));
        assert_eq!(run(&broker, "faults"), Ok(String::new()));
        assert!(run(&broker, "explode").is_err());
    }
}
