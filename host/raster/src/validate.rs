//! The layout rules of a Cloud Optimized GeoTIFF.

use std::path::Path;

use crate::error::{FILE_UNREADABLE, RasterError};
use crate::model::{CogProblem, CogVerdict};
use crate::object;
use crate::tiff::{Directory, Tiff};

/// Images up to this edge need neither tiles nor overviews.
const SMALL: u64 = 512;

/// Checks the layout of a file. Pixels are not read.
///
/// # Errors
/// `FILE_UNREADABLE` where the file is no TIFF.
pub fn validate_cog(path: &Path) -> Result<CogVerdict, RasterError> {
    let unreadable = |error| {
        let wrong = || RasterError::permanent(FILE_UNREADABLE, format!("not a readable TIFF: {error}"));
        object::failure().unwrap_or_else(wrong)
    };
    let tiff = Tiff::read(path).map_err(unreadable)?;
    let mut verdict = Verdict::default();
    let images: Vec<&Directory> = tiff.directories.iter().filter(|directory| !directory.is_mask()).collect();
    match images.split_first() {
        Some((main, overviews)) => {
            check_main(&tiff, main, overviews, &mut verdict);
            check_order(&tiff, main, overviews, &mut verdict);
        }
        None => verdict.problem("main-image", "the file has no image".into()),
    }
    check_extent(&tiff, &mut verdict);
    Ok(CogVerdict {
        valid: verdict.problems.is_empty(),
        problems: verdict.problems,
        warnings: verdict.warnings,
    })
}

#[derive(Default)]
struct Verdict {
    problems: Vec<CogProblem>,
    warnings: Vec<CogProblem>,
}

impl Verdict {
    fn problem(&mut self, requirement: &str, message: String) {
        self.problems.push(CogProblem { requirement: requirement.into(), message });
    }

    fn warning(&mut self, requirement: &str, message: String) {
        self.warnings.push(CogProblem { requirement: requirement.into(), message });
    }
}

fn check_main(tiff: &Tiff, main: &Directory, overviews: &[&Directory], verdict: &mut Verdict) {
    let large = main.width > SMALL || main.height > SMALL;
    if large && main.tile.is_none() {
        verdict
            .problem("tiled", format!("an image of {} × {} pixels must be tiled", main.width, main.height));
    }
    if large && overviews.is_empty() {
        verdict.warning("overviews", "the image has no overviews".into());
    }
    // Directories begin on even bytes.
    let earliest = tiff.header_end.next_multiple_of(2);
    if main.offset > earliest {
        let message = format!(
            "the first directory is at byte {}, not right after the header ({earliest})",
            main.offset
        );
        verdict.problem("first-directory", message);
    }
    if main.is_reduced() {
        verdict.problem("main-image", "the first image is a reduced-resolution one".into());
    }
    for overview in overviews {
        if !overview.is_reduced() {
            verdict.problem("overviews", format!("the image at byte {} is no overview", overview.offset));
        }
        if overview.tile.is_none() && (overview.width > SMALL || overview.height > SMALL) {
            verdict.problem(
                "tiled",
                format!("the overview of {} × {} is not tiled", overview.width, overview.height),
            );
        }
    }
}

fn check_order(tiff: &Tiff, main: &Directory, overviews: &[&Directory], verdict: &mut Verdict) {
    let ascending = tiff.directories.windows(2).all(|pair| pair[0].offset < pair[1].offset);
    if !ascending {
        verdict.problem("directory-order", "directories do not follow each other in the file".into());
    }
    let mut larger = main;
    for overview in overviews {
        if overview.width > larger.width || overview.height > larger.height {
            verdict
                .problem("overview-size", format!("{} × {} is not smaller", overview.width, overview.height));
        }
        let (small, large) = (first_data(overview), first_data(larger));
        if let (Some(small), Some(large)) = (small, large)
            && small > large
        {
            let message = format!(
                "the data of {} × {} comes after that of its larger neighbour",
                overview.width, overview.height
            );
            verdict.problem("data-order", message);
        }
        larger = overview;
    }
    let last_directory = tiff.directories.iter().map(|directory| directory.offset).max();
    let data = tiff.directories.iter().filter_map(first_data).min();
    if let (Some(directory), Some(data)) = (last_directory, data)
        && directory > data
    {
        verdict.problem("directories-first", "image data comes before the last directory".into());
    }
}

fn check_extent(tiff: &Tiff, verdict: &mut Verdict) {
    for directory in &tiff.directories {
        let mut blocks = directory.data_offsets.iter().zip(&directory.data_lengths);
        let outside =
            |(offset, length): (&u64, &u64)| offset.checked_add(*length).is_none_or(|end| end > tiff.length);
        if blocks.any(outside) {
            verdict.problem("complete", "a block lies outside of the file: it was cut off".into());
        }
        if directory.data_offsets.len() != directory.data_lengths.len() {
            verdict.problem("complete", "offsets and lengths of blocks do not match".into());
        }
    }
}

fn first_data(directory: &Directory) -> Option<u64> {
    directory.data_offsets.iter().copied().find(|offset| *offset > 0)
}
