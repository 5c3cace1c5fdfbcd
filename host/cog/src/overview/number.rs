//! Conversions of samples to and from the numbers that are computed with.

use bytemuck::{AnyBitPattern, NoUninit};

/// A sample that can be computed with (not a complex one).
///
/// GDAL has a working type for each: `u8` and `u16` are their own, `i8`, `i16` and `f32` are worked on
/// as `f32`, all others as `f64`.
pub(super) trait Number: AnyBitPattern + NoUninit + PartialEq + PartialOrd + Default + Sized {
    /// Whether kernels give `f32` before they are stored, and not `f64`.
    const SINGLE: bool;
    /// Whether the working type is the type itself, an integer.
    const SMALL: bool;
    /// Whether this is an integer.
    const INTEGER: bool;
    /// Smallest and largest value.
    const RANGE: (f64, f64);

    /// As a number.
    fn number(self) -> f64;

    /// A mean (never out of range) as a value of the working type.
    fn mean(value: f64) -> f64;

    /// A value of the working type as a sample: rounded half away from zero, and clamped.
    fn store(value: f64) -> Self;
}

/// Rounds half away from zero as GDAL does: by adding a half in the precision of the working type.
fn round(value: f64, single: bool) -> f64 {
    let half = if value < 0.0 { -0.5 } else { 0.5 };
    if single { f64::from(value as f32 + half as f32) } else { value + half }
}

/// The whole part of a small number from 0 on. Unlike a cast to an integer, this vectorises.
#[inline(always)]
fn floor(value: f64) -> f64 {
    const INTEGERS: f64 = (1_u64 << 52) as f64;
    let near = (value + INTEGERS) - INTEGERS;
    if near > value { near - 1.0 } else { near }
}

macro_rules! integer {
    ($type:ty, single: $single:expr, small: $small:expr, mean: $mean:expr) => {
        impl Number for $type {
            const SINGLE: bool = $single;
            const SMALL: bool = $small;
            const INTEGER: bool = true;
            const RANGE: (f64, f64) = (<$type>::MIN as f64, <$type>::MAX as f64);

            #[inline(always)]
            fn number(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn mean(value: f64) -> f64 {
                let mean: fn(f64) -> f64 = $mean;
                mean(value)
            }

            #[inline(always)]
            fn store(value: f64) -> Self {
                // A cast of a float to an integer clamps and truncates.
                round(value, $single) as Self
            }
        }
    };
}

integer!(u8, single: true, small: true, mean: |v| floor(v + 0.5));
integer!(u16, single: true, small: true, mean: |v| floor(v + 0.5));
integer!(i8, single: true, small: false, mean: |v| f64::from(v as f32));
integer!(i16, single: true, small: false, mean: |v| f64::from(v as f32));
integer!(u32, single: false, small: false, mean: |v| v);
integer!(i32, single: false, small: false, mean: |v| v);
integer!(u64, single: false, small: false, mean: |v| v);
integer!(i64, single: false, small: false, mean: |v| v);

macro_rules! float {
    ($type:ty, single: $single:expr) => {
        impl Number for $type {
            const SINGLE: bool = $single;
            const SMALL: bool = false;
            const INTEGER: bool = false;
            const RANGE: (f64, f64) = (<$type>::MIN as f64, <$type>::MAX as f64);

            #[inline(always)]
            fn number(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn mean(value: f64) -> f64 {
                value as $type as f64
            }

            #[inline(always)]
            fn store(value: f64) -> Self {
                value as Self
            }
        }
    };
}

float!(f32, single: true);
float!(f64, single: false);
