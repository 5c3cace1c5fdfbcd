//! The pipeline as a library: what it makes does not depend on threads, and failures end it.

#![expect(clippy::expect_used, reason = "a test may stop where it stands")]

use std::io;
use std::ops::ControlFlow;

use geoworker_cog::codec::{Compression, DeflateLevel, Predictor};
use geoworker_cog::overview::{Band, Image, Resampling, Strip};
use geoworker_cog::sample::SampleType;
use geoworker_cog::sink::{FileSink, Sink};
use geoworker_cog::{EncodeError, Encoding, Raster, Source, Summary, encode, memory};
use proptest::prelude::*;

/// Something to look at, and an error from a row on.
struct Pattern {
    fails_at: usize,
}

impl Source for Pattern {
    type Error = io::Error;

    fn read(&mut self, strip: &mut Strip) -> io::Result<()> {
        if strip.first_row + strip.rows > self.fails_at {
            return Err(io::Error::other("the source broke off"));
        }
        let (first, width, rows) = (strip.first_row, strip.width, strip.rows);
        for (band, plane) in strip.planes.iter_mut().enumerate() {
            for (place, value) in plane.bytes_mut()[..rows * width].iter_mut().enumerate() {
                let (row, column) = (first + place / width, place % width);
                *value =
                    u8::try_from((row * 7 + column * 3 + band * 50 + row * column / 64) % 251).unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// A file in memory.
#[derive(Default)]
struct InMemory {
    body: Vec<u8>,
    head: Vec<u8>,
}

impl Sink for InMemory {
    fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.body.extend_from_slice(bytes);
        Ok(())
    }
    fn make_room(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn head(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(&mut self) -> io::Result<u64> {
        Ok((self.head.len() + self.body.len()) as u64)
    }
}

fn raster(width: usize, height: usize, bands: usize) -> Raster {
    let bands = vec![Band::default(); bands];
    let image = Image { width, height, sample: SampleType::U8, bands, mask: false, palette: None };
    Raster { image, fill: None, shared: Vec::new(), own: Vec::new() }
}

fn encoding(threads: usize, spool_bytes: usize) -> Encoding {
    Encoding {
        compression: Compression::Deflate(DeflateLevel::Fast),
        predictor: Predictor::Horizontal,
        block: 128,
        resampling: Resampling::Average,
        threads,
        spool_bytes,
        scratch: std::env::temp_dir(),
    }
}

fn encoded(raster: &Raster, encoding: &Encoding) -> (Summary, Vec<u8>) {
    let mut sink = InMemory::default();
    let mut go_on = |_| ControlFlow::Continue(());
    let mut source = Pattern { fails_at: usize::MAX };
    let summary = encode(raster, encoding, &mut source, &mut sink, &mut go_on).expect("encodes");
    (summary, [sink.head, sink.body].concat())
}

/// B7: where it is written decides nothing, neither the sink nor what its file system can do.
#[test]
fn every_sink_gets_the_same_bytes() {
    let raster = raster(700, 300, 3);
    let (_, expected) = encoded(&raster, &encoding(2, 1 << 20));
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        let Ok(folder) = tempfile::tempdir_in(&folder) else { continue };
        let path = folder.path().join("x.tif");
        let mut sink = FileSink::create(&path).expect("creates");
        let mut source = Pattern { fails_at: usize::MAX };
        let mut go_on = |_| ControlFlow::Continue(());
        encode(&raster, &encoding(2, 1 << 20), &mut source, &mut sink, &mut go_on).expect("encodes");
        assert!(std::fs::read(&path).expect("reads") == expected, "{} has other bytes", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Neither threads nor the budget of the spool change a byte.
    #[test]
    fn the_same_raster_is_the_same_file(width in 1_usize..700, height in 1_usize..700, bands in 1_usize..5) {
        let raster = raster(width, height, bands);
        let (summary, one) = encoded(&raster, &encoding(1, usize::MAX >> 1));
        let (_, other) = encoded(&raster, &encoding(4, 0));
        prop_assert!(one == other);
        prop_assert_eq!(summary.bytes, one.len() as u64);
        prop_assert_eq!(&one[..4], b"II*\0");
    }
}

#[test]
fn a_source_that_fails_ends_the_encoder() {
    let raster = raster(300, 900, 3);
    let mut go_on = |_| ControlFlow::Continue(());
    let mut source = Pattern { fails_at: 300 };
    let made = encode(&raster, &encoding(2, 0), &mut source, &mut InMemory::default(), &mut go_on);
    assert!(matches!(made, Err(EncodeError::Source(error)) if error.to_string() == "the source broke off"));
}

#[test]
fn it_can_be_cancelled_between_rows() {
    let raster = raster(300, 900, 3);
    let mut rows = Vec::new();
    let mut stop = |done| {
        rows.push(done);
        if done >= 256 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut source = Pattern { fails_at: usize::MAX };
    let made = encode(&raster, &encoding(2, 0), &mut source, &mut InMemory::default(), &mut stop);
    assert!(matches!(made, Err(EncodeError::Cancelled)));
    assert_eq!(rows, [128, 256]);
}

#[test]
fn what_the_codec_cannot_hold_is_refused_before_anything_is_read() {
    let webp = Compression::Webp { quality: 75, lossless: false };
    let encoding = Encoding { compression: webp, predictor: Predictor::None, ..encoding(1, 0) };
    assert!(matches!(memory(&raster(300, 300, 1), &encoding), Err(EncodeError::Codec(_))));
}

/// The estimate grows with the width, not with the height.
#[test]
fn memory_does_not_depend_on_the_height() {
    let bytes = |width, height| memory(&raster(width, height, 3), &encoding(2, 1 << 20)).expect("fits");
    assert!(bytes(10_000, 200_000) < bytes(10_000, 2_000) * 11 / 10);
    assert!(bytes(20_000, 2_000) > bytes(10_000, 2_000));
}
