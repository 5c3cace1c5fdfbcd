//! Statistics over samples that are spread over the whole raster.

use std::path::Path;

use gdal::Dataset;
use gdal::raster::RasterBand;

use crate::error::{FILE_UNREADABLE, RasterError};
use crate::inspect::band;
use crate::model::BandStatistics;
use crate::source;

/// Edge of a sample window: large enough for neighbours, small enough to spread.
const WINDOW: usize = 256;
/// Distinct values are counted up to this.
const DISTINCT_LIMIT: usize = 257;
/// From here on a value of continuous data is suspicious.
const EXTREME: f64 = 1e30;

/// Samples at most `max_pixels` of each band; 0 reads all.
///
/// # Errors
/// `FILE_UNREADABLE` where pixels cannot be read.
pub fn statistics(path: &Path, max_pixels: u64) -> Result<Vec<BandStatistics>, RasterError> {
    let dataset = source::open(path)?;
    let windows = windows(dataset.raster_size(), max_pixels);
    (1..=dataset.raster_count()).map(|index| band_statistics(&dataset, index, &windows)).collect()
}

type Place = ((isize, isize), (usize, usize));

/// Windows on a regular grid over the raster, together at most `max_pixels` (but at least one).
fn windows((width, height): (usize, usize), max_pixels: u64) -> Vec<Place> {
    let columns = width.div_ceil(WINDOW);
    let rows = height.div_ceil(WINDOW);
    let affordable = (max_pixels / (WINDOW * WINDOW) as u64).max(1);
    let per_axis = |cells: usize, other: usize| {
        if max_pixels == 0 || (cells as u64 * other as u64) <= affordable {
            return cells;
        }
        let share = (affordable as f64 * cells as f64 / other as f64).sqrt();
        (share as usize).clamp(1, cells)
    };
    let (across, down) = (per_axis(columns, rows), per_axis(rows, columns));
    // The middle of each share, so that no corner is preferred.
    let pick = |n: usize, of: usize, cells: usize| ((2 * n + 1) * cells / (2 * of)) * WINDOW;
    let mut places = Vec::with_capacity(across * down);
    for row in 0..down {
        for column in 0..across {
            let (x, y) = (pick(column, across, columns), pick(row, down, rows));
            places.push(((x as isize, y as isize), (WINDOW.min(width - x), WINDOW.min(height - y))));
        }
    }
    places
}

fn band_statistics(
    dataset: &Dataset,
    index: usize,
    windows: &[Place],
) -> Result<BandStatistics, RasterError> {
    let failed = |_| RasterError::gdal(FILE_UNREADABLE, &format!("pixels of band {index} cannot be read"));
    let facts = band(dataset, index)?;
    let raster = dataset.rasterband(index).map_err(failed)?;
    let mask = mask_band(&raster);
    let mut sums = Sums::new(&facts.data_type, facts.nodata.is_none());
    for (origin, size) in windows {
        let pixels = raster.read_as::<f64>(*origin, *size, *size, None).map_err(failed)?;
        let valid = match &mask {
            Some(mask) => mask.read_as::<u8>(*origin, *size, *size, None).map_err(failed)?.data().to_vec(),
            None => vec![255; pixels.data().len()],
        };
        sums.add(pixels.data(), &valid, size.0);
    }
    Ok(sums.finish(index))
}

/// The mask, unless all pixels are valid (an alpha band is not taken as one: its own statistics matter too).
fn mask_band<'a>(band: &'a RasterBand<'_>) -> Option<RasterBand<'a>> {
    let flags = band.mask_flags().ok()?;
    if flags.is_all_valid() { None } else { band.open_mask_band().ok() }
}

struct Sums {
    sampled: u64,
    valid: u64,
    mean: f64,
    squares: f64,
    minimum: f64,
    maximum: f64,
    distinct: std::collections::HashSet<u64>,
    differences: f64,
    pairs: u64,
    integral: bool,
    extreme: u64,
    suspects: Vec<(f64, u64)>,
}

impl Sums {
    fn new(kind: &str, look_for_nodata: bool) -> Self {
        let candidates: &[f64] = match kind {
            _ if !look_for_nodata => &[],
            "int16" => &[-32768.0, -32767.0, -9999.0],
            "int32" => &[-2_147_483_648.0, -9999.0],
            "float32" | "float64" => &[-9999.0, -32768.0, -3.402_823_466_385_288_6e38],
            _ => &[],
        };
        Self {
            sampled: 0,
            valid: 0,
            mean: 0.0,
            squares: 0.0,
            minimum: f64::INFINITY,
            maximum: f64::NEG_INFINITY,
            distinct: std::collections::HashSet::new(),
            differences: 0.0,
            pairs: 0,
            integral: true,
            extreme: 0,
            suspects: candidates.iter().map(|value| (*value, 0)).collect(),
        }
    }

    fn add(&mut self, pixels: &[f64], mask: &[u8], width: usize) {
        let usable = |n: usize| mask[n] != 0 && !pixels[n].is_nan();
        for (n, value) in pixels.iter().enumerate() {
            self.sampled += 1;
            if !usable(n) {
                continue;
            }
            self.value(*value);
            if n % width > 0 && usable(n - 1) {
                self.neighbours(*value, pixels[n - 1]);
            }
            if n >= width && usable(n - width) {
                self.neighbours(*value, pixels[n - width]);
            }
        }
    }

    fn value(&mut self, value: f64) {
        if value.is_infinite() || value.abs() >= EXTREME {
            self.extreme += 1;
        }
        for (candidate, count) in &mut self.suspects {
            *count += u64::from(*candidate == value);
        }
        if value.is_infinite() {
            return;
        }
        self.valid += 1;
        // Welford's update: stable for large offsets.
        let delta = value - self.mean;
        self.mean += delta / self.valid as f64;
        self.squares += delta * (value - self.mean);
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
        self.integral &= value.fract() == 0.0;
        if self.distinct.len() < DISTINCT_LIMIT {
            self.distinct.insert(value.to_bits());
        }
    }

    fn neighbours(&mut self, one: f64, other: f64) {
        let difference = (one - other).abs();
        if difference.is_finite() {
            self.differences += difference;
            self.pairs += 1;
        }
    }

    fn finish(self, index: usize) -> BandStatistics {
        let some = |value: f64| (self.valid > 0).then_some(value);
        let range = self.maximum - self.minimum;
        let smooth = self.pairs == 0 || self.valid == 0 || range == 0.0;
        BandStatistics {
            index: index as u32,
            sampled: self.sampled,
            valid: self.valid,
            minimum: some(self.minimum),
            maximum: some(self.maximum),
            mean: some(self.mean),
            stddev: some((self.squares / self.valid.max(1) as f64).sqrt()),
            distinct: self.distinct.len() as u32,
            roughness: if smooth { 0.0 } else { self.differences / self.pairs as f64 / range },
            integral: self.integral && self.valid > 0,
            extreme: self.extreme,
            undeclared_nodata: self.suspects.iter().map(|(_, count)| *count).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_within_budget_and_raster() {
        for (size, budget) in
            [((1, 1), 1), ((10_000, 10_000), 1 << 20), ((513, 511), 0), ((100_000, 10), 1 << 18)]
        {
            let places = windows(size, budget);
            assert!(!places.is_empty());
            let pixels: u64 = places.iter().map(|(_, (w, h))| (w * h) as u64).sum();
            assert!(budget == 0 || pixels <= budget.max((WINDOW * WINDOW) as u64), "{size:?}: {pixels}");
            for ((x, y), (w, h)) in places {
                assert!(x as usize + w <= size.0 && y as usize + h <= size.1);
            }
        }
        let all: usize = windows((513, 511), 0).iter().map(|(_, (w, h))| w * h).sum();
        assert_eq!(all, 513 * 511);
    }

    #[test]
    fn sums_skip_what_is_masked_and_see_what_is_odd() {
        let mut sums = Sums::new("float32", true);
        sums.add(&[1.0, 2.0, f64::NAN, 1e31, -9999.0, 5.0], &[255, 255, 255, 255, 255, 0], 3);
        let found = sums.finish(1);
        assert_eq!((found.sampled, found.valid, found.extreme, found.undeclared_nodata), (6, 4, 1, 1));
        assert_eq!((found.minimum, found.maximum), (Some(-9999.0), Some(1e31)));
        assert!(found.integral);
        let empty = Sums::new("uint8", true).finish(1);
        assert_eq!((empty.minimum, empty.integral, empty.roughness), (None, false, 0.0));
    }
}
