//! The client against an emulator in the same process.
#![expect(clippy::expect_used, reason = "a test suite fails by panicking")]

mod faults;
mod load;
mod messages;
mod security;
mod support;
