//! Tests of whole cascades.

use proptest::prelude::*;

use super::{Band, Cascade, Error, Image, Nodata, Resampling, Strip};
use crate::sample::{SampleType, Samples};

const METHODS: [Resampling; 7] = [
    Resampling::Nearest,
    Resampling::Average,
    Resampling::Bilinear,
    Resampling::Cubic,
    Resampling::Mode,
    Resampling::Rms,
    Resampling::Gauss,
];

fn samples<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(values: &[T]) -> Samples {
    let mut samples = Samples::zeroed(size_of_val(values));
    samples.of_mut::<T>().copy_from_slice(values);
    samples
}

fn image(width: usize, height: usize, sample: SampleType, nodata: Option<f64>) -> Image {
    let bands = vec![Band { nodata: nodata.map(Nodata::Float), alpha: false }];
    Image { width, height, sample, bands, mask: false, palette: None }
}

/// Sizes as of the COG driver.
fn sizes(image: &Image, block: usize) -> Vec<(usize, usize)> {
    let mut sizes = vec![(image.width, image.height)];
    while let Some(&(width, height)) = sizes.last()
        && (width > block || height > block)
        && width.min(height) > 1
    {
        sizes.push((width / 2, height / 2));
    }
    sizes.split_off(1)
}

/// All planes of all levels, pushed `step` rows at a time.
fn run(image: &Image, method: Resampling, planes: &[Samples], step: usize, out: usize) -> Vec<Vec<Vec<u8>>> {
    let levels = sizes(image, 4);
    let mut cascade = Cascade::new(image, method, &levels, out).unwrap();
    let bytes = |plane: usize| if plane < image.bands.len() { image.sample.bytes() } else { 1 };
    let mut made = vec![vec![Vec::new(); planes.len()]; levels.len()];
    let mut next = vec![0; levels.len()];
    let mut back = Vec::new();
    for first_row in (0..image.height).step_by(step) {
        let rows = step.min(image.height - first_row);
        let part = |(index, plane): (usize, &Samples)| {
            let row = image.width * bytes(index);
            samples(&plane.bytes()[first_row * row..(first_row + rows) * row])
        };
        let planes = planes.iter().enumerate().map(part).collect();
        let strip = Strip { first_row, rows, width: image.width, planes };
        let mut emit = |level: usize, strip: Strip| {
            assert_eq!((strip.first_row, strip.width), (next[level], levels[level].0));
            next[level] += strip.rows;
            assert!(strip.rows == out || next[level] == levels[level].1);
            for (index, (all, plane)) in made[level].iter_mut().zip(&strip.planes).enumerate() {
                all.extend_from_slice(&plane.bytes()[..strip.rows * strip.width * bytes(index)]);
            }
            back.push((level, strip));
        };
        cascade.push(&strip, &mut emit).unwrap();
        for (level, strip) in back.drain(..) {
            cascade.recycle(level, strip);
        }
    }
    assert_eq!(next, levels.iter().map(|size| size.1).collect::<Vec<_>>());
    cascade.finish().unwrap();
    made
}

fn first_level<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(
    image: &Image,
    method: Resampling,
    values: &[T],
) -> Vec<T> {
    let level = (image.width / 2, image.height / 2);
    let mut cascade = Cascade::new(image, method, &[level], 512).unwrap();
    let planes = vec![samples(values)];
    let strip = Strip { first_row: 0, rows: image.height, width: image.width, planes };
    let mut made = Vec::new();
    cascade.push(&strip, &mut |_, strip| made.extend_from_slice(strip.planes[0].of::<T>())).unwrap();
    cascade.finish().unwrap();
    made.truncate(level.0 * level.1);
    made
}

#[test]
fn means_round_half_up_or_away_from_zero() {
    let bytes = image(4, 2, SampleType::U8, None);
    assert_eq!(first_level(&bytes, Resampling::Average, &[0, 1, 3, 3, 1, 0, 2, 2_u8]), [1, 3]);
    let shorts = image(4, 2, SampleType::I16, None);
    assert_eq!(first_level(&shorts, Resampling::Average, &[0, -1, -3, -3, -1, 0, -2, -2_i16]), [-1, -3]);
    let large = image(2, 2, SampleType::U16, None);
    assert_eq!(first_level(&large, Resampling::Average, &[u16::MAX; 4]), [u16::MAX]);
}

#[test]
fn an_odd_size_gives_shares() {
    // Windows are 0..3 and 2..5; the pixel in the middle counts half in each.
    let image = image(5, 2, SampleType::F64, None);
    let made =
        first_level(&image, Resampling::Average, &[1.0, 2.0, 4.0, 8.0, 16.0, 1.0, 2.0, 4.0, 8.0, 16.0_f64]);
    assert_eq!(made, [2.0, 10.4]);
}

#[test]
fn missing_samples_do_not_count() {
    let shorts = image(6, 2, SampleType::I16, Some(7.0));
    let values = [7, 7, 7, 5, 6, 8, 7, 7, 7, 7, 8, 6_i16];
    // Nothing there; one there; a mean that would look as if nothing was there.
    assert_eq!(first_level(&shorts, Resampling::Average, &values), [7, 5, 8]);
    let largest = image(2, 2, SampleType::U8, Some(255.0));
    assert_eq!(first_level(&largest, Resampling::Average, &[255, 255, 255, 254_u8]), [254]);
    let floats = image(2, 2, SampleType::F32, Some(f64::NAN));
    assert_eq!(first_level(&floats, Resampling::Average, &[f32::NAN, 1.0, 2.0, f32::NAN]), [1.5]);
}

#[test]
fn exact_64_bit_nodata() {
    let value = i64::MAX - 1;
    let mut image = image(2, 2, SampleType::I64, None);
    image.bands[0].nodata = Some(Nodata::Int(value));
    assert_eq!(first_level(&image, Resampling::Average, &[value, value, 3, 5]), [4]);
    assert_eq!(first_level(&image, Resampling::Mode, &[value, value, value, 5]), [5]);
}

#[test]
fn the_nearest_pixel_is_rounded() {
    let image = image(5, 2, SampleType::U8, None);
    assert_eq!(first_level(&image, Resampling::Nearest, &[0, 1, 2, 3, 4, 9, 9, 9, 9, 9_u8]), [0, 3]);
}

#[test]
fn the_mode_is_what_was_most_frequent_first() {
    let image = image(6, 2, SampleType::U16, None);
    let values = [1, 2, 1, 2, 3, 4, 2, 1, 3, 3, 5, 6_u16];
    assert_eq!(first_level(&image, Resampling::Mode, &values), [2, 3, 3]);
}

#[test]
fn constants_stay() {
    for method in METHODS {
        for (width, height) in [(16, 12), (17, 13), (9, 31)] {
            let image = image(width, height, SampleType::F32, Some(-9999.0));
            let planes = [samples(&vec![0.5_f32; width * height])];
            for level in run(&image, method, &planes, 5, 8) {
                let level = samples(&level[0]);
                assert!(level.of::<f32>().iter().all(|v| (v - 0.5).abs() < 1e-6), "{method:?}");
            }
        }
    }
}

#[test]
fn opacity_weighs_the_other_bands() {
    let bands = vec![Band::default(), Band { nodata: None, alpha: true }];
    let image = Image { width: 2, height: 2, sample: SampleType::U8, bands, mask: false, palette: None };
    let planes = vec![samples(&[10, 20, 90, 90_u8]), samples(&[100, 200, 0, 0_u8])];
    let mut cascade = Cascade::new(&image, Resampling::Average, &[(1, 1)], 8).unwrap();
    let strip = Strip { first_row: 0, rows: 2, width: 2, planes };
    let mut made = Vec::new();
    cascade.push(&strip, &mut |_, strip| made = strip.planes.iter().map(|p| p.bytes()[0]).collect()).unwrap();
    assert_eq!(made, [15, 150]);
}

#[test]
fn a_mask_is_of_any_pixel_first_then_of_half_of_them() {
    let mut image = image(16, 16, SampleType::U8, None);
    image.mask = true;
    let mut mask = [0_u8; 256];
    (mask[0], mask[6], mask[16 * 9 + 15]) = (255, 255, 255);
    let planes = [samples(&[7_u8; 256]), samples(&mask)];
    let levels = run(&image, Resampling::Average, &planes, 16, 16);
    let set = |level: usize| levels[level][1].iter().filter(|&&v| v == 255).count();
    assert_eq!((set(0), set(1)), (3, 0));
    assert_eq!(levels[0][0][..4], [7, 0, 0, 7]);
}

#[test]
fn a_palette_gives_the_nearest_colour() {
    let mut image = image(4, 2, SampleType::U8, None);
    let colours = vec![[0, 0, 0, 255], [200, 200, 200, 255], [90, 90, 90, 255], [5, 5, 5, 0]];
    image.palette = Some(colours);
    let values = [0, 1, 3, 3, 0, 1, 3, 3_u8];
    assert_eq!(first_level(&image, Resampling::Average, &values), [2, 3]);
    let refused = Cascade::new(&image, Resampling::Cubic, &[(2, 1)], 8).map(drop);
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let complex = image(4, 4, SampleType::ComplexF32, None);
    assert!(Cascade::new(&complex, Resampling::Nearest, &[(2, 2)], 8).is_ok());
    assert!(Cascade::new(&complex, Resampling::Average, &[(2, 2)], 8).is_err());
    let outside = image(4, 4, SampleType::U8, Some(-1.0));
    assert_eq!(Cascade::new(&outside, Resampling::Average, &[(2, 2)], 8).map(drop), Err(Error::Nodata));
    let bytes = image(4, 4, SampleType::U8, None);
    assert!(Cascade::new(&bytes, Resampling::Average, &[(5, 2)], 8).is_err());
    assert!(Cascade::new(&bytes, Resampling::Average, &[(1, 2), (1, 1)], 8).is_err());
    let mut cascade = Cascade::new(&bytes, Resampling::Average, &[(2, 2)], 8).unwrap();
    let planes = vec![Samples::zeroed(16)];
    let late = Strip { first_row: 1, rows: 3, width: 4, planes };
    assert!(matches!(cascade.push(&late, &mut |_, _| ()), Err(Error::Strip(_))));
    assert!(matches!(cascade.finish(), Err(Error::Strip(_))));
}

#[test]
fn memory_does_not_grow_with_the_height() {
    let levels = |height| [(500, height / 2), (250, height / 4)];
    let bytes = |height| {
        let image = image(1000, height, SampleType::F32, None);
        Cascade::new(&image, Resampling::Cubic, &levels(height), 512).unwrap().bytes()
    };
    assert_eq!(bytes(4096), bytes(1 << 20));
}

fn random(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Few values, so that modes and missing samples occur.
        (state >> 28) as u8
    };
    (0..count).map(next).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any way to cut the rows gives the same.
    #[test]
    fn cutting_changes_nothing(
        width in 2..90_usize,
        height in 2..90_usize,
        method in prop::sample::select(METHODS.to_vec()),
        sample in prop::sample::select(vec![SampleType::U8, SampleType::U16, SampleType::I16, SampleType::F32]),
        nodata in any::<bool>(),
        mask in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let mut image = image(width, height, sample, nodata.then_some(3.0));
        image.mask = mask;
        let bytes = random(seed, width * height);
        let plane = match sample {
            SampleType::U8 => samples(&bytes),
            SampleType::U16 => samples(&bytes.iter().map(|&v| u16::from(v)).collect::<Vec<_>>()),
            SampleType::I16 => samples(&bytes.iter().map(|&v| i16::from(v) - 5).collect::<Vec<_>>()),
            _ => samples(&bytes.iter().map(|&v| f32::from(v)).collect::<Vec<_>>()),
        };
        let mut planes = vec![plane];
        if mask {
            planes.push(samples(&bytes.iter().map(|&v| if v < 9 { 0 } else { 255 }).collect::<Vec<u8>>()));
        }
        let whole = run(&image, method, &planes, height, 512);
        for (step, out) in [(1, 3), (7, 16), (64, 512)] {
            prop_assert_eq!(&run(&image, method, &planes, step, out), &whole);
        }
    }

    /// Means of any size stay within the range of what they are made of.
    #[test]
    fn means_stay_in_range(width in 2..60_usize, height in 2..60_usize, seed in any::<u32>()) {
        let image = image(width, height, SampleType::U8, None);
        let plane = random(seed, width * height);
        let (low, high) = (plane.iter().min().copied(), plane.iter().max().copied());
        for level in run(&image, Resampling::Average, &[samples(&plane)], 11, 8) {
            prop_assert!(level[0].iter().all(|v| Some(*v) >= low && Some(*v) <= high));
        }
    }
}
