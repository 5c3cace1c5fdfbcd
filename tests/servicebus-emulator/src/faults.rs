//! Faults on demand: what goes wrong, at which point, how often. Random faults depend on the seed only.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The link is detached (`amqp:link:detach-forced`), as for idle links and upgrades.
    Detach,
    /// The session is ended.
    End,
    /// The connection is closed (`amqp:connection:forced`).
    Close,
    /// The TCP connection is cut without a word.
    Drop,
    /// The operation is answered with `com.microsoft:server-busy`.
    Busy,
    /// The lock concerned is lost first; only for renewal and settlement.
    LoseLock,
}

/// Operations that faults can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A message sent, scheduled or not.
    Send,
    /// A message delivered.
    Receive,
    /// A lock renewed.
    Renew,
    /// A delivery settled in any way.
    Complete,
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// At once, on every connection.
    Now,
    /// Instead of the operation.
    Before(Operation),
    /// The operation takes effect, the client does not learn it.
    After(Operation),
}

/// How often it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frequency {
    /// The next so many times.
    Times(u32),
    /// Each time with this probability, until cleared.
    Probability(f64),
}

/// A fault: `ACTION POINT [FREQUENCY]`, for example `detach receive once`, `drop before-complete 0.1`, `close now`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub action: Action,
    /// Where.
    pub point: Point,
    /// How often. No effect for [`Point::Now`].
    pub frequency: Frequency,
}

/// A fault that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read {0:?}; a fault is (detach|end|close|drop) (now|[before-|after-](send|receive|renew|complete)), \
     busy [before-](send|receive|renew|complete) or lose-lock [before-](renew|complete), \
     and then once, always, a number of times, or a probability as 0.1"
)]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut words = text.split_ascii_whitespace();
        let action = words.next().and_then(|word| value_of(&ACTIONS, word));
        let point = words.next().and_then(point);
        let frequency = words.next().map_or(Some(Frequency::Times(1)), frequency);
        match (action, point, frequency, words.next()) {
            (Some(action), Some(point), Some(frequency), None) if action.strikes_at(point) => {
                Ok(Self { action, point, frequency })
            }
            _ => Err(FaultError(text.to_owned())),
        }
    }
}

impl Action {
    /// Whether the two go together. A fault of which they do not has no effect.
    fn strikes_at(self, point: Point) -> bool {
        match self {
            Self::Detach | Self::End | Self::Close | Self::Drop => true,
            Self::Busy => matches!(point, Point::Before(_)),
            Self::LoseLock => matches!(point, Point::Before(Operation::Renew | Operation::Complete)),
        }
    }
}

const ACTIONS: [(&str, Action); 6] = [
    ("detach", Action::Detach),
    ("end", Action::End),
    ("close", Action::Close),
    ("drop", Action::Drop),
    ("busy", Action::Busy),
    ("lose-lock", Action::LoseLock),
];

const OPERATIONS: [(&str, Operation); 4] = [
    ("send", Operation::Send),
    ("receive", Operation::Receive),
    ("renew", Operation::Renew),
    ("complete", Operation::Complete),
];

fn value_of<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, found)| found == value).map_or("", |(name, _)| *name)
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", name_of(&ACTIONS, &self.action))?;
        match &self.point {
            Point::Now => return formatter.write_str("now"),
            Point::Before(operation) => write!(formatter, "before-{}", name_of(&OPERATIONS, operation))?,
            Point::After(operation) => write!(formatter, "after-{}", name_of(&OPERATIONS, operation))?,
        }
        match self.frequency {
            Frequency::Times(times) => write!(formatter, " {times}"),
            Frequency::Probability(probability) => write!(formatter, " {probability:?}"),
        }
    }
}

fn point(word: &str) -> Option<Point> {
    match word.split_once('-') {
        None if word == "now" => Some(Point::Now),
        None => value_of(&OPERATIONS, word).map(Point::Before),
        Some(("before", name)) => value_of(&OPERATIONS, name).map(Point::Before),
        Some(("after", name)) => value_of(&OPERATIONS, name).map(Point::After),
        Some(_) => None,
    }
}

fn frequency(word: &str) -> Option<Frequency> {
    match word {
        "once" => Some(Frequency::Times(1)),
        "always" => Some(Frequency::Probability(1.0)),
        _ if word.contains('.') => {
            let probability: f64 = word.parse().ok()?;
            (0.0..=1.0).contains(&probability).then_some(Frequency::Probability(probability))
        }
        _ => word.parse().ok().map(Frequency::Times),
    }
}

/// The faults in force.
#[derive(Debug)]
pub struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    faults: Vec<Fault>,
    dice: Dice,
}

impl Faults {
    /// No faults yet; random ones will follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { inner: Mutex::new(Inner { faults: Vec::new(), dice: Dice(seed) }) }
    }

    /// Puts a fault in force.
    pub fn add(&self, fault: Fault) {
        self.with(|inner| inner.faults.push(fault));
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.with(|inner| inner.faults.clear());
    }

    /// The faults in force, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Fault> {
        self.with(|inner| inner.faults.clone())
    }

    /// What goes wrong at this point this time. The first fault that strikes is used up by one.
    #[must_use]
    pub fn strike(&self, point: Point) -> Option<Action> {
        self.with(|inner| {
            let dice = &mut inner.dice;
            let mut strikes = |fault: &mut Fault| {
                fault.point == point
                    && match &mut fault.frequency {
                        Frequency::Times(left) => {
                            *left = left.saturating_sub(1);
                            true
                        }
                        Frequency::Probability(probability) => dice.roll() < *probability,
                    }
            };
            let action = inner.faults.iter_mut().find_map(|fault| strikes(fault).then_some(fault.action));
            inner.faults.retain(|fault| fault.frequency != Frequency::Times(0));
            action
        })
    }

    fn with<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `SplitMix64`: small, and the same on every machine.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// A number from 0 (included) to 1 (excluded).
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_is_spoken() {
        let fault: Fault = "detach receive once".parse().unwrap();
        assert_eq!(fault.action, Action::Detach);
        assert_eq!(fault.point, Point::Before(Operation::Receive));
        assert_eq!(fault.frequency, Frequency::Times(1));
        let fault: Fault = "drop after-complete 0.1".parse().unwrap();
        assert_eq!(fault.point, Point::After(Operation::Complete));
        assert_eq!(fault.frequency, Frequency::Probability(0.1));
        for wrong in [
            "",
            "drop",
            "drop sometimes",
            "fall now",
            "drop send 1.5",
            "drop send once more",
            "busy now",
            "lose-lock send",
        ] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says_and_only_at_its_point() {
        let faults = Faults::new(0);
        faults.add("busy send 2".parse().unwrap());
        let send = Point::Before(Operation::Send);
        assert_eq!(faults.strike(Point::Before(Operation::Renew)), None);
        assert_eq!(faults.strike(send), Some(Action::Busy));
        assert_eq!(faults.strike(send), Some(Action::Busy));
        assert_eq!(faults.strike(send), None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn random_faults_follow_from_the_seed() {
        let pattern = |seed| -> Vec<bool> {
            let faults = Faults::new(seed);
            faults.add("drop send 0.25".parse().unwrap());
            (0..1000).map(|_| faults.strike(Point::Before(Operation::Send)).is_some()).collect()
        };
        assert_eq!(pattern(7), pattern(7));
        assert_ne!(pattern(7), pattern(8));
        let struck = pattern(7).iter().filter(|struck| **struck).count();
        assert!((200..300).contains(&struck), "{struck} of 1000 at 0.25");
    }
}
