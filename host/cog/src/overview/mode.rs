//! The most frequent value. Floats that are not a number never are the same value.

use super::axis::Window;
use super::number::Number;

/// Values of one window with their numbers, in order of appearance.
#[derive(Debug, Default)]
struct Votes<T> {
    values: Vec<(T, u32)>,
    best: usize,
}

impl<T: Number> Votes<T> {
    fn clear(&mut self) {
        self.values.clear();
        self.best = 0;
    }

    fn add(&mut self, value: T) {
        let Some(index) = self.values.iter().position(|(v, _)| *v == value) else {
            self.values.push((value, 1));
            return;
        };
        self.values[index].1 += 1;
        // A tie stays with the value that was there first.
        if self.values[index].1 > self.values[self.best].1 {
            self.best = index;
        }
    }

    fn winner(&self) -> Option<T> {
        self.values.get(self.best).map(|(value, _)| *value)
    }
}

/// One row. `masks` hold 0 where a source pixel does not count; `empty` is for windows without any.
pub(super) fn row<T: Number>(
    rows: &[&[T]],
    masks: Option<&[&[u8]]>,
    windows: &[Window],
    empty: T,
    out: &mut [T],
) {
    if let (None, [top, bottom], true) = (masks, rows, windows.iter().all(|w| w.len() == 2)) {
        for (pixel, window) in out.iter_mut().zip(windows) {
            let (a, b) = (window.start, window.start + 1);
            *pixel = of_four(top[a], top[b], bottom[a], bottom[b]);
        }
        return;
    }
    let mut votes = Votes::default();
    for (pixel, window) in out.iter_mut().zip(windows) {
        votes.clear();
        for (index, source) in rows.iter().enumerate() {
            for column in window.start..window.end {
                if masks.is_none_or(|masks| masks[index][column] != 0) {
                    votes.add(source[column]);
                }
            }
        }
        *pixel = votes.winner().unwrap_or(empty);
    }
}

/// Two equal values win, the first such pair in reading order; else the first value does.
fn of_four<T: Number>(a: T, b: T, c: T, d: T) -> T {
    if a == b || a == c {
        a
    } else if b == c {
        b
    } else if a == d {
        a
    } else if b == d {
        b
    } else if c == d {
        c
    } else {
        a
    }
}
