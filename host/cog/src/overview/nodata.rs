//! Which samples have no data, and what a result that looks like "no data" becomes.

use super::number::Number;
use super::{Error, Nodata};

/// The nodata value of a band of `T`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing<T> {
    /// The value.
    pub(super) value: T,
    /// As a number.
    pub(super) number: f64,
    /// Takes the place of a computed result that equals the value.
    pub(super) replacement: f64,
}

impl<T: Number> Missing<T> {
    /// `None` where there is no such value.
    pub(super) fn new(nodata: Option<Nodata>) -> Result<Option<Self>, Error> {
        let Some(nodata) = nodata else { return Ok(None) };
        let (number, value) = match nodata {
            Nodata::Float(v) => (v, cast::<T>(v)),
            Nodata::Int(v) => (v as f64, exact::<T, i64>(v)),
            Nodata::UInt(v) => (v as f64, exact::<T, u64>(v)),
        };
        let value = value.ok_or(Error::Nodata)?;
        let number = if T::INTEGER { number } else { value.number() };
        Ok(Some(Self { value, number, replacement: replacement::<T>(number) }))
    }

    /// Whether a sample has no data. Floats match with a tolerance of two steps of `f32`, as in GDAL.
    #[inline(always)]
    pub(super) fn is(&self, sample: T) -> bool {
        if T::INTEGER {
            return sample == self.value;
        }
        if T::SINGLE { self.near_f32(sample.number()) } else { self.near_f64(sample.number()) }
    }

    #[inline(always)]
    fn near_f32(&self, sample: f64) -> bool {
        let (a, b) = (sample as f32, self.number as f32);
        // No short circuits: this has to vectorise.
        let near = (a - b).abs() < f32::EPSILON * (a + b).abs() * 2.0;
        (a == b) | near | (a.is_nan() & b.is_nan())
    }

    #[inline(always)]
    fn near_f64(&self, sample: f64) -> bool {
        let (a, b) = (sample, self.number);
        let near = (a - b).abs() < f64::from(f32::EPSILON) * (a + b).abs() * 2.0;
        (a == b) | near | (a.is_nan() & b.is_nan())
    }

    /// Moves a result (a value of the working type) away from the nodata value.
    #[inline(always)]
    pub(super) fn avoid(&self, result: f64) -> f64 {
        if result == self.number { self.replacement } else { result }
    }
}

/// A finite float rounds to `f32`; an integer type takes only its own values.
fn cast<T: Number>(value: f64) -> Option<T> {
    let (low, high) = T::RANGE;
    let inside = if T::INTEGER {
        value.trunc() == value && (low..=high).contains(&value)
    } else {
        !value.is_finite() || (low..=high).contains(&value)
    };
    inside.then(|| T::store(value))
}

/// Only for the type itself: a 64-bit value of another type is not what the caller means.
fn exact<T: Number, V: Number>(value: V) -> Option<T> {
    let same_type = size_of::<T>() == size_of::<V>() && T::INTEGER && T::RANGE == V::RANGE;
    same_type.then(|| bytemuck::cast_slice::<V, T>(&[value]).first().copied()).flatten()
}

fn replacement<T: Number>(number: f64) -> f64 {
    let (low, high) = T::RANGE;
    if T::INTEGER {
        return if number >= high { number - 1.0 } else { number + 1.0 };
    }
    if number.is_nan() {
        return number;
    }
    if number < low || number > high {
        return 0.0; // an infinity
    }
    let single = number as f32;
    match (T::SINGLE, number == high) {
        (true, true) => f64::from(single.next_down()),
        (true, false) => f64::from(single.next_up()),
        (false, true) => number.next_down(),
        (false, false) => number.next_up(),
    }
}
