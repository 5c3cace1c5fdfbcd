//! The single-pass encoder on GDAL's datasets: what it needs to know of them, and their pixels.

mod describe;
mod engine;
mod levels;
mod reader;
mod template;

pub(crate) use engine::{Prepared, encode, prepare};
