//! Which source pixels make a pixel of a level, along one axis.

/// Guards the limits of a window against rounding.
const EPSILON: f64 = 1e-8;

/// One axis of a level: `source` pixels become `size` pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Pixels of the level below.
    pub(super) source: usize,
    /// Pixels of this level.
    pub(super) size: usize,
    /// Source pixels for each pixel.
    pub(super) ratio: f64,
}

/// Source pixels `start..end`, the first and the last of which count only in part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    /// First source pixel.
    pub(super) start: usize,
    /// One after the last source pixel.
    pub(super) end: usize,
    /// Weight of the first.
    pub(super) first: f64,
    /// Weight of the last, where there are two or more.
    pub(super) last: f64,
    /// Sum of the weights.
    pub(super) total: f64,
}

impl Axis {
    /// Sizes are not zero.
    pub(super) fn new(source: usize, size: usize) -> Self {
        Self { source, size, ratio: source as f64 / size as f64 }
    }

    /// Whether each pixel is made of exactly two.
    pub(super) fn halves(&self) -> bool {
        self.source == 2 * self.size
    }

    /// Source pixel of the nearest neighbour.
    pub(super) fn nearest(&self, index: usize) -> usize {
        ((0.5 + index as f64 * self.ratio) as usize).min(self.source - 1)
    }

    /// Source pixels that a pixel covers.
    pub(super) fn window(&self, index: usize) -> Window {
        let low = index as f64 * self.ratio;
        let high = (index + 1) as f64 * self.ratio;
        let start = ((low + EPSILON) as usize).min(self.source - 1);
        let end = ((high - EPSILON).ceil() as usize).clamp(start + 1, self.source);
        let single = end == start + 1;
        let first = if single { 1.0 } else { 1.0 - (low - start as f64) };
        let last = 1.0 - (end as f64 - high);
        let total = if single { first } else { (first + (end - start - 2) as f64) + last };
        Window { start, end, first, last, total }
    }
}

impl Window {
    /// Number of source pixels.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Weight of the `index`-th source pixel of the window.
    pub(super) fn weight(&self, index: usize) -> f64 {
        if index == 0 {
            self.first
        } else if index + 1 == self.len() {
            self.last
        } else {
            1.0
        }
    }
}
