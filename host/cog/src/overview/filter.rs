//! Kernels of convolutions, and their weights for each pixel of an axis.

use super::axis::Axis;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Triangle.
    Bilinear,
    /// Cubic convolution, a = -0.5.
    Cubic,
}

impl Kernel {
    /// Pixels of the level to each side.
    pub(super) fn radius(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Cubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear if x <= 1.0 => 1.0 - x,
            Self::Cubic if x <= 1.0 => x * x * (1.5 * x - 2.5) + 1.0,
            Self::Cubic if x <= 2.0 => x * x * (-0.5 * x + 2.5) - 4.0 * x + 2.0,
            _ => 0.0,
        }
    }
}

/// Weights of the source pixels `start..start + weights.len()`.
#[derive(Debug, Clone)]
pub(super) struct Taps {
    /// First source pixel.
    pub(super) start: usize,
    /// Weights as the kernel has them.
    pub(super) raw: Vec<f64>,
    /// Weights with a sum of one.
    pub(super) normal: Vec<f64>,
}

impl Taps {
    /// Weights for the pixel `index`.
    pub(super) fn new(kernel: Kernel, axis: &Axis, index: usize) -> Self {
        let scale = (1.0 / axis.ratio).min(1.0);
        let radius = kernel.radius() / scale;
        let centre = (index as f64 + 0.5) * axis.ratio;
        let start = ((centre - radius + 0.5).floor().max(0.0) as usize).min(axis.source - 1);
        let end = ((centre + radius + 0.5) as usize).clamp(start + 1, axis.source);
        let first = scale * (start as f64 - centre + 0.5);
        let raw: Vec<f64> = (0..end - start).map(|i| kernel.at(first + i as f64 * scale)).collect();
        let sum: f64 = raw.iter().sum();
        let inverse = if sum == 0.0 { 1.0 } else { 1.0 / sum };
        let normal = raw.iter().map(|weight| weight * inverse).collect();
        Self { start, raw, normal }
    }

    /// One after the last source pixel.
    pub(super) fn end(&self) -> usize {
        self.start + self.raw.len()
    }
}
