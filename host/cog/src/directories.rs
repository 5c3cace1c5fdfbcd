//! The directories of a COG, without where their tiles are.

use crate::codec::{Compression, Predictor, TileFormat};
use crate::raster::{Encoding, Raster};
use crate::sample::SampleType;
use crate::tiff::{Directory, Field, TilePlace};

const NEW_SUBFILE_TYPE: u16 = 254;
const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const SAMPLES_PER_PIXEL: u16 = 277;
const PLANAR: u16 = 284;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const PREDICTOR: u16 = 317;
const SAMPLE_FORMAT: u16 = 339;

/// NewSubfileType is made of these.
const REDUCED: u32 = 1;
const MASK: u32 = 4;
/// Samples of a pixel stand next to each other.
const CONTIGUOUS: u16 = 1;
const PHOTOMETRIC_MASK: u16 = 4;

/// Places of the tiles of one level.
#[derive(Debug, Default)]
pub(crate) struct LevelTiles {
    pub(crate) image: Vec<TilePlace>,
    pub(crate) mask: Vec<TilePlace>,
}

/// Directories in GDAL's order: full resolution, its mask, overviews, their masks. `sizes` and `tiles` are by level, the
/// full resolution first.
pub(crate) fn directories(
    raster: &Raster,
    encoding: &Encoding,
    format: &TileFormat,
    mask: &Compression,
    sizes: &[(usize, usize)],
    tiles: Vec<LevelTiles>,
) -> Vec<Directory> {
    let mut images = Vec::new();
    let mut masks = Vec::new();
    for (level, (size, tiles)) in sizes.iter().zip(tiles).enumerate() {
        let mut fields = image_fields(raster, encoding, format, level, *size);
        if level == 0 {
            fields.extend(raster.own.iter().cloned());
        }
        images.push(Directory { fields, tiles: tiles.image, level });
        if raster.image.mask {
            let fields = mask_fields(encoding, mask, level, *size);
            masks.push(Directory { fields, tiles: tiles.mask, level });
        }
    }
    let overviews = images.split_off(images.len().min(1));
    let overview_masks = masks.split_off(masks.len().min(1));
    images.into_iter().chain(masks).chain(overviews).chain(overview_masks).collect()
}

fn image_fields(
    raster: &Raster,
    encoding: &Encoding,
    format: &TileFormat,
    level: usize,
    size: (usize, usize),
) -> Vec<Field> {
    let subfile = if level == 0 { 0 } else { REDUCED };
    let mut fields = common_fields(encoding, &encoding.compression, encoding.predictor, subfile, size);
    let (bits, kind) = bits_and_kind(format.sample);
    fields.extend([
        Field::shorts(BITS_PER_SAMPLE, &vec![bits; format.samples]),
        Field::shorts(SAMPLES_PER_PIXEL, &[short(format.samples)]),
        Field::shorts(SAMPLE_FORMAT, &vec![kind; format.samples]),
    ]);
    let codec: Vec<Field> =
        encoding.compression.tags(format).iter().map(|(tag, value)| Field::of_codec(*tag, value)).collect();
    let replaced = |field: &&Field| !codec.iter().any(|other| other.tag == field.tag);
    fields.extend(raster.shared.iter().filter(replaced).cloned());
    fields.extend(codec);
    fields
}

fn mask_fields(encoding: &Encoding, mask: &Compression, level: usize, size: (usize, usize)) -> Vec<Field> {
    let subfile = if level == 0 { MASK } else { MASK | REDUCED };
    let mut fields = common_fields(encoding, mask, Predictor::None, subfile, size);
    fields.extend([
        Field::shorts(BITS_PER_SAMPLE, &[1]),
        Field::shorts(PHOTOMETRIC, &[PHOTOMETRIC_MASK]),
        Field::shorts(SAMPLES_PER_PIXEL, &[1]),
        Field::shorts(SAMPLE_FORMAT, &[1]),
    ]);
    fields
}

fn common_fields(
    encoding: &Encoding,
    compression: &Compression,
    predictor: Predictor,
    subfile: u32,
    size: (usize, usize),
) -> Vec<Field> {
    let edge = short(encoding.block);
    let mut fields = vec![
        Field::longs(WIDTH, &[long(size.0)]),
        Field::longs(HEIGHT, &[long(size.1)]),
        Field::shorts(COMPRESSION, &[compression.tag()]),
        Field::shorts(PLANAR, &[CONTIGUOUS]),
        Field::shorts(TILE_WIDTH, &[edge]),
        Field::shorts(TILE_HEIGHT, &[edge]),
    ];
    if compression.takes_predictor() {
        fields.push(Field::shorts(PREDICTOR, &[predictor.tag()]));
    }
    if subfile != 0 {
        fields.push(Field::longs(NEW_SUBFILE_TYPE, &[subfile]));
    }
    fields
}

/// BitsPerSample and SampleFormat.
fn bits_and_kind(sample: SampleType) -> (u16, u16) {
    let kind = match sample {
        SampleType::U8 | SampleType::U16 | SampleType::U32 | SampleType::U64 => 1,
        SampleType::I8 | SampleType::I16 | SampleType::I32 | SampleType::I64 => 2,
        SampleType::F32 | SampleType::F64 => 3,
        SampleType::ComplexI16 | SampleType::ComplexI32 => 5,
        SampleType::ComplexF32 | SampleType::ComplexF64 => 6,
    };
    (short(sample.bytes() * 8), kind)
}

/// Of sizes that were checked when the encoder began.
fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn long(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
