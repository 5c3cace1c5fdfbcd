"""The native engine of geoworker cog makes what GDAL's COG driver makes: real rasters, a pairwise matrix, and random ones."""

import os

import pytest
import rasterio

import cog_matrix
from cog_matrix import COMPLEX, Case, check_engines, codec_options, matrix, random_cases, write_case
from conftest import SHARED

# What the native engine refuses with RASTER_UNSUPPORTED and GDAL's driver does. An entry refuses every case that has all of its
# values; a real raster is its name and its codec. Anything else that is refused fails a test, and so does an entry that is not.
NATIVE_REFUSES = [
    {"codec": "lerc"},
    {"codec": "lerc_error"},
    {"codec": "lerc_deflate"},
    {"codec": "lerc_zstd"},
    # GDAL takes every level of complex samples from full resolution: at odd sizes that is not a cascade.
    *({"kind": kind, "size": size} for kind in COMPLEX for size in ("odd", "tall")),
    {"name": "slc.tif"},
]

# Cannot be decoded, by anybody.
BROKEN = {"corrupt.tif"}
# Every codec where it goes, every resampling, and both a size with and without cut blocks.
REAL_OPTIONS = [("deflate", "average", 128), ("zstd", "nearest", 256), ("lzw", "cubic", 128), ("none", "mode", 128)]
REAL_PICTURE_OPTIONS = [("jpeg", "average", 128), ("webp", "bilinear", 128)]
REAL_NUMBER_OPTIONS = [("lerc", "rms", 128), ("lerc_error", "average", 128)]
RANDOM_CASES = 40
# The random cases of a day are the same ones; another seed gives others.
SEED = int(os.environ.get("SEED", "1"))


def refused(**known):
    """Whether an entry of the table is about this case."""
    return any(all(known.get(name) == value for name, value in entry.items()) for entry in NATIVE_REFUSES)


def check_case(geoworker, case):
    source = write_case(geoworker.folder / "source.tif", case)
    check_engines(geoworker, source, case.options(), case.codec, refused(**vars(case)))


def real_cases():
    """Names of the shared rasters with the options that their types allow."""
    if not SHARED.is_dir():
        return []
    found = []
    for path in sorted(SHARED.glob("*.tif")):
        if path.name not in BROKEN:
            found += [(path.name, *options) for options in REAL_OPTIONS + more_options(path) if goes(path, options)]
    return found


def more_options(path):
    with rasterio.open(path) as dataset:
        byte, count = dataset.dtypes[0] == "uint8", dataset.count
        if dataset.dtypes[0].startswith("complex"):
            return []
        if not byte:
            return REAL_NUMBER_OPTIONS
        return [options for options in REAL_PICTURE_OPTIONS if count == 3 or (count == 1 and options[0] == "jpeg")]


def goes(path, options):
    """Colours of a table and complex numbers have no mean, and JPEG has no table."""
    codec, method, _ = options
    with rasterio.open(path) as dataset:
        if any(cog_matrix.colormap(dataset, band) for band in dataset.indexes):
            return method in ("nearest", "mode") and codec != "jpeg"
        return method == "nearest" or not dataset.dtypes[0].startswith("complex")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"SKIPPED: the shared rasters are not at {SHARED}")
@pytest.mark.parametrize("name, codec, method, block", real_cases())
def test_real_rasters(geoworker, name, codec, method, block):
    options = [*codec_options(codec), "--overview-resampling", method, "--block-size", str(block)]
    check_engines(geoworker, SHARED / name, options, codec, refused(name=name, codec=codec, resampling=method))


@pytest.mark.parametrize("case", matrix(), ids=str)
def test_matrix(geoworker, case):
    check_case(geoworker, case)


@pytest.mark.parametrize("case", random_cases(RANDOM_CASES, SEED), ids=str)
def test_random_rasters(geoworker, case):
    check_case(geoworker, case)


@pytest.mark.parametrize("extra", ["nodata", "nan", "mask"])
@pytest.mark.parametrize("method", ["average", "cubic", "mode"])
def test_a_raster_without_a_valid_pixel(geoworker, tmp_path, method, extra):
    """Nothing to resample, at any level."""
    case = Case("float32", extra=extra, resampling=method, size="blocks")
    source = write_case(tmp_path / "source.tif", case)
    with rasterio.open(source, "r+") as dataset:
        if extra == "mask":
            dataset.write_mask(dataset.read(1) < -1e9)
        else:
            dataset.write(dataset.read() * 0 + dataset.nodata)
    check_engines(geoworker, source, case.options(), case.codec, refused(**vars(case)))
