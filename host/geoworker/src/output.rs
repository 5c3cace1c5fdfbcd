//! Printing: JSON for programs, tables for people.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// Prints one JSON document. A reader that went away is no error.
pub(crate) fn json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(value) {
        line(&text);
    }
}

/// Prints one line. A reader that went away is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints rows in aligned columns, the first one as a heading.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

/// Milliseconds since 1970 as RFC 3339, or `-`.
pub(crate) fn time(ms: Option<i64>) -> String {
    let moment = ms.and_then(DateTime::from_timestamp_millis);
    moment.map_or_else(|| "-".into(), |moment| moment.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A span of milliseconds for people.
pub(crate) fn span(ms: i64) -> String {
    match ms {
        i64::MIN..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}
