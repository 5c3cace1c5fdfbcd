//! What an emulator is started with.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::queue::Rules;

/// Lock of a queue that states none.
pub const DEFAULT_LOCK: Duration = Duration::from_secs(60);

/// Longest lock the service accepts.
pub const LONGEST_LOCK: Duration = Duration::from_secs(300);

/// Deliveries of a queue that states no limit.
pub const DEFAULT_MAX_DELIVERIES: u32 = 10;

/// Largest message of the Standard tier, in bytes.
pub const DEFAULT_MAX_MESSAGE: u64 = 256 * 1024;

/// Settings of an emulator. The default listens on free ports of 127.0.0.1 and makes queues on first use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of both ports. Default: 127.0.0.1.
    pub bind: IpAddr,
    /// AMQP port; 0, the default, takes a free one.
    pub port: u16,
    /// Port for commands; 0, the default, takes a free one.
    pub admin_port: u16,
    /// Queues that exist from the start. Default: none.
    pub queues: Vec<QueueSettings>,
    /// Whether other queues are refused (`amqp:not-found`) instead of made on first use. Default: `false`.
    pub strict: bool,
    /// Rules of queues made on first use.
    pub defaults: Rules,
    /// Largest message in bytes. Default: [`DEFAULT_MAX_MESSAGE`].
    pub max_message: u64,
    /// Whether links need a token that is not out of date. Default: `false`.
    pub enforce_tokens: bool,
    /// Seed of random faults. Default: 0.
    pub seed: u64,
    /// Whether every performative is written to standard error. Message content never is. Default: `false`.
    pub trace: bool,
    /// Certificate chain and key in PEM for `amqps`. Default: plain AMQP.
    pub tls: Option<TlsFiles>,
}

/// Files of the server's identity.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// A queue by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Name without slashes at its ends; upper and lower case are the same.
    pub name: String,
    /// What it does with its messages.
    pub rules: Rules,
}

/// A setting that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Locks end within five minutes in the service.
    #[error("a lock lasts from 1 ms to 5 minutes, not {0:?}")]
    Lock(Duration),
    /// At least one delivery.
    #[error("the number of deliveries starts at 1")]
    MaxDeliveries,
    /// A queue without a name.
    #[error("a queue needs a name: NAME[:lock=60s,max-deliveries=10,ttl=1h,dead-letter-expired]")]
    QueueName,
    /// An option of a queue that is not known or cannot be read.
    #[error(
        "cannot read queue option {0:?}; known: lock=60s, max-deliveries=10, ttl=1h, dead-letter-expired"
    )]
    QueueOption(String),
    /// A time that cannot be read.
    #[error("cannot read time {0:?}; write 250ms, 5s, 2m or 1h")]
    Time(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            admin_port: 0,
            queues: Vec::new(),
            strict: false,
            defaults: Rules::default(),
            max_message: DEFAULT_MAX_MESSAGE,
            enforce_tokens: false,
            seed: 0,
            trace: false,
            tls: None,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lock: DEFAULT_LOCK,
            max_deliveries: DEFAULT_MAX_DELIVERIES,
            time_to_live: None,
            dead_letter_expired: false,
        }
    }
}

impl Rules {
    /// Holds the rules against the limits of the service.
    ///
    /// # Errors
    /// The limit that is broken.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.lock < Duration::from_millis(1) || self.lock > LONGEST_LOCK {
            return Err(SettingsError::Lock(self.lock));
        }
        if self.max_deliveries == 0 {
            return Err(SettingsError::MaxDeliveries);
        }
        Ok(())
    }
}

impl QueueSettings {
    /// Reads `NAME[:option,…]`; what it does not state is taken from `defaults`.
    ///
    /// # Errors
    /// The option that cannot be read, or the limit that is broken.
    pub fn parse(text: &str, defaults: Rules) -> Result<Self, SettingsError> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let name = name.trim_matches('/').to_ascii_lowercase();
        if name.is_empty() {
            return Err(SettingsError::QueueName);
        }
        let mut rules = defaults;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let unknown = || SettingsError::QueueOption(option.to_owned());
            match option.split_once('=').unwrap_or((option, "")) {
                ("lock", value) => rules.lock = parse_time(value)?,
                ("max-deliveries", value) => rules.max_deliveries = value.parse().map_err(|_| unknown())?,
                ("ttl", value) => rules.time_to_live = Some(parse_time(value)?),
                ("dead-letter-expired", "") => rules.dead_letter_expired = true,
                _ => return Err(unknown()),
            }
        }
        rules.check()?;
        Ok(Self { name, rules })
    }
}

impl FromStr for QueueSettings {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        Self::parse(text, Rules::default())
    }
}

/// Reads a time: a number with `ms`, `s`, `m` or `h`; without a unit it is seconds.
///
/// # Errors
/// [`SettingsError::Time`].
pub fn parse_time(text: &str) -> Result<Duration, SettingsError> {
    let wrong = || SettingsError::Time(text.to_owned());
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_states_what_differs_from_the_defaults() {
        let queue: QueueSettings =
            "Tasks:lock=5s,max-deliveries=3,ttl=250ms,dead-letter-expired".parse().unwrap();
        assert_eq!(queue.name, "tasks");
        assert_eq!(queue.rules.lock, Duration::from_secs(5));
        assert_eq!(queue.rules.max_deliveries, 3);
        assert_eq!(queue.rules.time_to_live, Some(Duration::from_millis(250)));
        assert!(queue.rules.dead_letter_expired);
        assert_eq!("tasks".parse::<QueueSettings>().unwrap().rules, Rules::default());
    }

    #[test]
    fn a_lock_above_five_minutes_is_refused() {
        assert!("q:lock=5m".parse::<QueueSettings>().is_ok());
        let refused = "q:lock=301s".parse::<QueueSettings>();
        assert_eq!(refused, Err(SettingsError::Lock(Duration::from_secs(301))));
        assert!("q:lock=0s".parse::<QueueSettings>().is_err());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(":lock=5s".parse::<QueueSettings>(), Err(SettingsError::QueueName));
        assert_eq!("q:lock=5d".parse::<QueueSettings>(), Err(SettingsError::Time("5d".to_owned())));
        assert_eq!("q:max-deliveries=0".parse::<QueueSettings>(), Err(SettingsError::MaxDeliveries));
        let sessions = "q:sessions".parse::<QueueSettings>();
        assert_eq!(sessions, Err(SettingsError::QueueOption("sessions".to_owned())));
        assert!(parse_time("-1s").is_err());
    }
}
