//! HTTP: the job API, probes and metrics of a process (R24, B9).
//!
//! [`Server`] is bound before the database is there, so that probes answer from the start; it gets the platform with
//! [`Server::attach`].

mod guard;
mod health;
mod jobs;
mod metrics;
mod probes;
mod problem;
mod rate;
mod requests;
mod routes;
mod server;
mod settings;
mod state;
mod tasks;
mod types;

pub use server::Server;
pub use settings::{Bind, HttpSettings, Rate, Token};
