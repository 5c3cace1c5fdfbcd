//! Means of the colours of a palette.

use super::axis::Window;
use super::{Colour, Error};

/// The colour table of a band of `u8`.
#[derive(Debug, Clone)]
pub(super) struct Palette {
    colours: Vec<Colour>,
    /// Index where no pixel of a window has a visible colour.
    empty: u8,
}

impl Palette {
    /// `None` where the table has index `i` for a grey `i` throughout, which GDAL treats as no table.
    pub(super) fn new(colours: &[Colour], nodata: Option<u8>) -> Result<Option<Self>, Error> {
        if colours.len() > 256 {
            return Err(Error::Unsupported("palettes of more than 256 colours"));
        }
        let identity = colours.iter().zip(0..=u8::MAX).all(|(colour, i)| *colour == [i, i, i, 255]);
        if identity {
            return Ok(None);
        }
        let mut colours = colours.to_vec();
        let transparent = colours.iter().position(|colour| colour[3] == 0);
        if let Some(colour) = nodata.and_then(|nodata| colours.get_mut(usize::from(nodata))) {
            colour[3] = 0;
        }
        let empty = nodata.or_else(|| transparent.and_then(|index| u8::try_from(index).ok()));
        Ok(Some(Self { colours, empty: empty.unwrap_or(0) }))
    }

    /// One row of indexes of the colours nearest to the means.
    pub(super) fn row(&self, rows: &[&[u8]], windows: &[Window], out: &mut [u8]) {
        // Neighbours often are equal, and a search of the table is slow.
        let mut last = ([0; 3], self.nearest([0; 3]));
        for (pixel, window) in out.iter_mut().zip(windows) {
            let Some(mean) = self.mean(rows, window) else {
                *pixel = self.empty;
                continue;
            };
            if mean != last.0 {
                last = (mean, self.nearest(mean));
            }
            *pixel = last.1;
        }
    }

    fn mean(&self, rows: &[&[u8]], window: &Window) -> Option<[i32; 3]> {
        let (mut sums, mut count) = ([0_i32; 3], 0);
        let indexes = rows.iter().flat_map(|row| &row[window.start..window.end]);
        for colour in indexes.filter_map(|&index| self.colours.get(usize::from(index))) {
            if colour[3] != 0 {
                for (sum, &part) in sums.iter_mut().zip(colour) {
                    *sum += i32::from(part);
                }
                count += 1;
            }
        }
        (count > 0).then(|| sums.map(|sum| (sum + count / 2) / count))
    }

    fn nearest(&self, [red, green, blue]: [i32; 3]) -> u8 {
        let distance = |colour: &Colour| {
            let [r, g, b, _] = colour.map(i32::from);
            (red - r).pow(2) + (green - g).pow(2) + (blue - b).pow(2)
        };
        let visible = (0..=u8::MAX).zip(&self.colours).filter(|(_, colour)| colour[3] != 0);
        visible.min_by_key(|(_, colour)| distance(colour)).map_or(0, |(index, _)| index)
    }
}
