"""Two engines make COGs of the same raster with the same options; what other tools decode must be equal.

GDAL's COG driver is the oracle. What is compared: pixels of full resolution with the source, pixels and masks of every overview,
everything that describes them, and the fields of every TIFF directory.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import pathlib
import random
import re
import shutil
import subprocess

import numpy
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.rpc import RPC
from rio_cogeo.cogeo import cog_validate

from judges import decoded
from osgeo_utils_path import gdal_validate
from rasters import NORTH_UP, PALETTE, pattern

# The option of geoworker cog that chooses the engine. None: both runs are the default engine, which tests the comparison itself.
ENGINE_OPTION = "--engine"
TESTED, ORACLE = "native", "gdal"

# GDAL 3.6.2 resamples these by way of 32-bit floats. Their overviews must be those of the newer GDAL in rasterio's wheel; except where
# versions differ in more than that, in masks and in the mode: there they must be those of 3.6.2, but for the rounding of 32-bit floats.
WIDE = ("int32", "uint32", "int64", "uint64", "float64", "complex128")
# Overviews of these are the oracle's bit for bit. Others agree within one unit, or within a share of the largest value.
EXACT = ("nearest", "average", "mode")
INTEGER_TOLERANCE, FLOAT_TOLERANCE = 1, 1e-5
# Mean error of a lossy codec, of the oracle's, and an error that is nothing: of a value, of a block of equal values.
LOSSY_FACTOR, LOSSY_NOTHING = 1.2, 0.05

REFUSED = "RASTER_UNSUPPORTED"
REFUSED_EXIT = 2


# Cases

INTEGERS = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float32", "float64"]
COMPLEX = ["complex_int16", "complex64", "complex128"]
CODECS = {
    "none": [], "deflate": [], "zstd": ["--level", "5"], "lzw": [], "jpeg": ["--quality", "90"], "webp": ["--quality", "80"],
    "webp_lossless": ["--quality", "100"], "lerc": [], "lerc_error": ["--max-z-error", "0.5"], "lerc_deflate": [], "lerc_zstd": [],
}
WITH_PREDICTOR = ("deflate", "zstd", "lzw")
LOSSY = ("jpeg", "webp", "lerc_error")
# One block, several whole blocks, cut blocks at odd sizes, a column that soon is a few pixels wide.
SIZES = {"block": (96, 120), "blocks": (384, 256), "odd": (333, 517), "tall": (700, 37)}
RESAMPLING = ["nearest", "average", "bilinear", "cubic", "mode", "rms", "gauss"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A raster and how it is encoded."""

    kind: str
    codec: str = "deflate"
    predictor: str = "auto"
    size: str | tuple = "odd"
    extra: str = "plain"
    bands: int = 1
    resampling: str = "average"
    interleave: str = "pixel"
    block: int = 128

    def __str__(self):
        size = self.size if isinstance(self.size, str) else "x".join(map(str, self.size))
        return f"{self.kind}-{self.codec}-{self.predictor}-{size}-{self.extra}-{self.bands}-{self.resampling}-{self.interleave}-{self.block}"

    @property
    def shape(self):
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    def options(self):
        predictor = [] if self.predictor == "auto" else ["--predictor", self.predictor]
        return [*codec_options(self.codec), *predictor, "--overview-resampling", self.resampling, "--block-size", str(self.block)]

    def possible(self):
        """Whether the documented rules allow it, and this test can make it."""
        values = {name: getattr(self, name) for name in FIELDS}
        return all(agrees(values, name, value) for name, value in values.items()) and all(rule(self) for rule in RULES)


def codec_options(codec):
    """`lerc_error` and `webp_lossless` are names of this test: a codec with an option."""
    name = {"webp_lossless": "webp", "lerc_error": "lerc"}.get(codec, codec)
    return ["--compression", name, *CODECS[codec]]


FIELDS = {
    "codec": list(CODECS), "extra": ["plain", "nodata", "nan", "mask", "alpha", "palette"], "kind": [*INTEGERS, *FLOATS, *COMPLEX],
    "bands": [1, 2, 3, 4], "predictor": ["auto", "none", "horizontal", "floating-point"], "size": list(SIZES), "resampling": RESAMPLING,
    "interleave": ["pixel", "band"],
}
SMALL = ["uint8", "int16", "uint16", "int32", "uint32", *FLOATS]
# What a value of one field demands of the others: what the codecs can hold, and what makes sense.
DEMANDS = {
    ("codec", "jpeg"): {"kind": ["uint8"], "bands": [1, 3, 4]},
    ("codec", "webp"): {"kind": ["uint8"], "bands": [3, 4]},
    # GDAL 3.6.2 lets WEBP change colours that alpha hides, and geoworker does not accept that as lossless.
    ("codec", "webp_lossless"): {"kind": ["uint8"], "bands": [3]},
    **{("codec", name): {"kind": SMALL} for name in CODECS if name.startswith("lerc")},
    **{("predictor", name): {"codec": WITH_PREDICTOR} for name in ("none", "horizontal", "floating-point")},
    ("predictor", "horizontal"): {"codec": WITH_PREDICTOR, "kind": SMALL},
    ("predictor", "floating-point"): {"codec": WITH_PREDICTOR, "kind": FLOATS},
    ("extra", "nan"): {"kind": FLOATS},
    ("extra", "nodata"): {"kind": [*INTEGERS, *FLOATS]},
    ("extra", "alpha"): {"kind": ["uint8", "uint16"], "bands": [2, 4]},
    # Indices of a colour table have no mean.
    ("extra", "palette"): {"kind": ["uint8"], "bands": [1], "codec": ["none", *WITH_PREDICTOR], "resampling": ["nearest", "mode"]},
    **{("kind", name): {"resampling": ["nearest"]} for name in COMPLEX},
    # One block has no overviews.
    ("size", "block"): {"resampling": ["nearest", "average"]},
}
RULES = [
    # The fourth band of JPEG and WEBP is alpha.
    lambda case: case.codec not in ("jpeg", "webp") or case.bands != 4 or case.extra == "alpha",
    # GDAL 3.6.2 writes LERC blocks that cannot be read where some bands of a pixel are NaN and others are not.
    lambda case: case.extra != "nan" or not case.codec.startswith("lerc") or case.bands == 1,
]
# Every combination of values of these fields occurs in a case, where the rules allow it at all.
COMBINED = [("extra", "size", "resampling"), ("kind", "codec"), ("kind", "size"), ("kind", "extra"), ("kind", "resampling"), ("kind", "bands"),
            ("kind", "predictor"), ("codec", "predictor"), ("codec", "size"), ("codec", "extra"), ("codec", "interleave"), ("bands", "extra")]
# Random cases that are tried for each case of the matrix; more of them make it smaller, and its making slower.
TRIES = 8
# Random values that are tried before a combination is taken for impossible.
CHANCES = 30


def matrix(seed=1):
    """Few cases that hold every combination: of random cases that hold a missing one, the case with most of them, again and again."""
    chance = random.Random(seed)
    missing = set(possible_combinations(chance))
    cases = []
    while missing:
        wanted = min(missing)
        tried = [case for case in (random_case(chance, dict(wanted)) for _ in range(TRIES)) if case]
        cases.append(max(tried, key=lambda case: len(combinations(case) & missing)))
        missing -= combinations(cases[-1])
    return cases


def combinations(case):
    return {tuple((name, getattr(case, name)) for name in names) for names in COMBINED}


def possible_combinations(chance):
    """Those for which a case can be found."""
    for names in COMBINED:
        for values in itertools.product(*(FIELDS[name] for name in names)):
            if random_case(chance, dict(zip(names, values))):
                yield tuple(zip(names, values))


def random_case(chance, fixed):
    """A possible case with some values given, or none where chance finds none."""
    if not all(agrees(fixed, name, value) for name, value in fixed.items()):
        return None
    for _ in range(CHANCES):
        values = dict(fixed)
        for name in [name for name in FIELDS if name not in fixed]:
            values[name] = chance.choice([value for value in FIELDS[name] if agrees(values, name, value)] or FIELDS[name])
        case = Case(**values)
        if case.possible():
            return case
    return None


def agrees(values, name, value):
    """Whether a value goes with those of other fields."""
    demands = DEMANDS.get((name, value), {})
    return all(
        other_value in demands.get(other, (other_value,)) and value in DEMANDS.get((other, other_value), {}).get(name, (value,))
        for other, other_value in values.items()
    )


def random_cases(count, seed):
    """Any size, block size and number of bands, without loss."""
    chance = random.Random(seed)
    cases = []
    while len(cases) < count:
        case = Case(
            kind=chance.choice([*INTEGERS, *FLOATS]), codec=chance.choice(["none", "deflate", "zstd", "lzw"]),
            size=(chance.randint(1, 600), chance.randint(1, 700)), extra=chance.choice(["plain", "nodata", "nan", "mask", "alpha"]),
            bands=chance.choice([1, 2, 3, 4, 5]), resampling=chance.choice(RESAMPLING), interleave=chance.choice(["pixel", "band"]),
            block=chance.choice([128, 256, 512]),
        )
        if case.possible():
            cases.append(case)
    return cases


# Rasters

NODATA = {"uint8": 0, "int16": -32768, "float32": -9999.0, "float64": -1e30}


def write_case(path, case):
    """The raster of a case, with something in every place where a file can describe itself."""
    height, width = case.shape
    data = values(case, height, width)
    nodata = nodata_of(case)
    profile = dict(driver="GTiff", dtype=case.kind, count=case.bands, height=height, width=width, crs="EPSG:32633", transform=NORTH_UP,
                   interleave=case.interleave, nodata=nodata)
    if case.bands >= 3 and case.kind == "uint8":
        profile["photometric"] = "RGB"
    with rasterio.open(path, "w", **profile) as target:
        # Before the pixels: afterwards the directory of a TIFF cannot say any more that a band is alpha.
        if case.extra == "alpha":
            colours = [ColorInterp.gray] if case.bands == 2 else [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
            target.colorinterp = [*colours, ColorInterp.alpha]
        target.write(data)
        describe(target, case)
        if case.extra == "palette":
            target.write_colormap(1, PALETTE)
        if case.extra == "mask":
            target.write_mask(islands(height, width))
    return path


def nodata_of(case):
    if case.extra == "nan":
        return float("nan")
    return NODATA.get(case.kind, 7) if case.extra == "nodata" else None


def values(case, height, width):
    """Smooth in its lower half, noise above, in the middle of a large range."""
    chance = numpy.random.default_rng([height, width, case.bands])
    data = pattern(case.kind, case.bands, height, width)
    noise = chance.integers(0, 40, (case.bands, height, width))
    noise[:, height // 2:] = 0
    if case.kind.startswith("complex"):
        return (data + noise).astype(data.dtype)
    data = (data.astype("float64") + noise if case.kind in FLOATS else data.astype("int64") + noise) * spread(case.kind)
    data = data.astype(case.kind)
    hole = islands(height, width) == 0
    nodata = nodata_of(case)
    if nodata is not None:
        data[:, hole] = nodata
        # One band alone is empty here, as happens where every band has its own detector.
        data[0, : height // 5, : width // 3] = nodata
    if case.extra == "alpha":
        data[-1] = numpy.where(hole, 0, numpy.iinfo(case.kind).max)
        data[-1, height // 3: height // 2] = 100
    if case.extra == "palette":
        data %= len(PALETTE)
    return data


def spread(kind):
    """More than fits into the next smaller type; no 64-bit integer that a double cannot hold."""
    return {"uint8": 1, "int16": 70, "uint16": 250, "int32": 3_000_000, "uint32": 6_000_000, "int64": 10**12, "uint64": 10**12,
            "float32": 1.37, "float64": 1.000_000_137}[kind]


def islands(height, width):
    """255 where something is: an edge, a disc and single pixels are missing."""
    y, x = numpy.mgrid[0:height, 0:width]
    there = numpy.full((height, width), 255, "uint8")
    there[: height // 6] = 0
    there[(y - height * 0.6) ** 2 + (x - width * 0.6) ** 2 < (min(height, width) * 0.2) ** 2] = 0
    there[(3 * y + 7 * x) % 61 == 0] = 0
    return there


def describe(target, case):
    target.update_tags(PLACE="here & <there>", AREA_OR_POINT="Point" if case.size == "odd" else "Area", TIFFTAG_DATETIME="2024:02:29 10:11:12")
    for band in target.indexes:
        target.update_tags(band, WAVELENGTH=str(400 + band))
        target.set_band_description(band, f"band \N{LATIN SMALL LETTER E WITH ACUTE} {band}")
    target.scales = [0.5 * band for band in target.indexes]
    target.offsets = [-10.0 * band for band in target.indexes]
    target.units = ["m"] * target.count
    if case.size == "block":
        terms = [0.01 * number for number in range(20)]
        target.rpcs = RPC(height_off=1, height_scale=2, lat_off=3, lat_scale=4, line_den_coeff=terms, line_num_coeff=terms, line_off=5, line_scale=6,
                          long_off=7, long_scale=8, samp_den_coeff=terms, samp_num_coeff=terms, samp_off=9, samp_scale=10)


# Running


class Refused(Exception):
    """An engine says that it cannot do this; the message names the reason."""


def encode(geoworker, engine, source, options, name=None):
    """Path of the COG that an engine makes of a raster."""
    target = geoworker.folder / f"{name or engine}.tif"
    chosen = [ENGINE_OPTION, engine] if ENGINE_OPTION else []
    command = geoworker.command("--json", "cog", source, target, *options, *chosen)
    done = subprocess.run(command, env=geoworker.environment, cwd=geoworker.folder, capture_output=True, text=True, timeout=120)
    assert "panicked" not in done.stderr, done.stderr
    if done.returncode:
        assert not target.exists() and not list(geoworker.folder.glob(f".{target.name}*")), "something is left of a failure"
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["code"]) == (REFUSED_EXIT, REFUSED), f"{engine}: exit {done.returncode}, {error}"
        raise Refused(error["message"])
    return target


def check_engines(geoworker, source, options, codec, refused):
    """Both engines on one raster. `refused` says that the tested engine must refuse it, which the oracle does not."""
    method = options[options.index("--overview-resampling") + 1]
    # Beside each other: starting a program takes longer than encoding a small raster.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tested = pool.submit(encode, geoworker, TESTED, source, options)
        oracle = pool.submit(encode, geoworker, ORACLE, source, options)
        plain = pool.submit(encode_lossless, geoworker, source, options) if codec in LOSSY else None
    oracle = oracle.result()
    try:
        tested = tested.result()
    except Refused as refusal:
        assert refused, f"refused, and not in the table: {refusal}"
        return
    assert not refused, "it is in the table of refusals, and it is not refused"
    check_valid(tested)
    check_same_directories(tested, oracle)
    check_descriptions(tested, oracle)
    if plain:
        check_lossy_pixels(tested, oracle, source, plain.result(), max_error(options))
        check_masks(tested, oracle, lossy=True)
        return
    wide, masked = is_wide(oracle)
    needs_newer = (wide and not masked and method != "mode") or overflows(oracle, method)
    newer = newer_gdal(geoworker, source, oracle, method) if needs_newer else oracle
    check_lossless_pixels(tested, newer, source, method, rounded=wide and newer is oracle)
    check_masks(tested, newer)


def is_wide(path):
    """Whether values are wider than a 32-bit float, and whether there is a mask or alpha."""
    with rasterio.open(path) as dataset:
        flags = dataset.mask_flag_enums[0]
        return dataset.dtypes[0] in WIDE, MaskFlags.per_dataset in flags


def overflows(path, method):
    """Squares of large 16-bit numbers are beyond what GDAL 3.6.2 adds them up in."""
    with rasterio.open(path) as dataset:
        return dataset.dtypes[0] == "uint16" and method == "rms"


def newer_gdal(geoworker, source, oracle, method):
    """The same raster, without loss, by the COG driver in rasterio's wheel."""
    target = geoworker.folder / "newer.tif"
    with rasterio.open(oracle) as dataset:
        options = {"BLOCKSIZE": dataset.block_shapes[0][0], "OVERVIEW_COUNT": len(dataset.overviews(1))}
    options |= {"OVERVIEWS": "IGNORE_EXISTING"} if options["OVERVIEW_COUNT"] else {"OVERVIEWS": "NONE"}
    rasterio.shutil.copy(source, target, driver="COG", COMPRESS="DEFLATE", OVERVIEW_RESAMPLING=method.upper(), **options)
    return target


def encode_lossless(geoworker, source, options):
    """What a lossy codec was given to encode: the oracle's overviews without loss."""
    kept = [part for name in ("--overview-resampling", "--block-size") for part in options[options.index(name):][:2]]
    return encode(geoworker, ORACLE, source, ["--compression", "zstd", "--level", "1", *kept], "lossless")


def max_error(options):
    return float(options[options.index("--max-z-error") + 1]) if "--max-z-error" in options else None


# Comparing


def levels(path):
    """Options that open full resolution and every overview."""
    with rasterio.open(path) as dataset:
        count = len(dataset.overviews(1))
    return [{}, *({"overview_level": level} for level in range(count))]


def read(path, level=None):
    with rasterio.open(path, **(level or {})) as dataset:
        return dataset.read()


def canonical(data):
    """Bits, where all that is not a number is the same."""
    if data.dtype.kind in "fc" and numpy.isnan(data).any():
        data = data.copy()
        data[numpy.isnan(data)] = numpy.nan
    return data.tobytes()


def difference(one, other):
    """Where and how two arrays differ, for the message of a failed test."""
    differs = (one != other) & ~((one != one) & (other != other))
    if not differs.any():
        return "only the bits of zeros"
    first = tuple(int(index[0]) for index in numpy.nonzero(differs))
    return f"{int(differs.sum())} of {differs.size} values, first at (band, row, column) {first}: {one[first]} and {other[first]}"


def check_lossless_pixels(tested, oracle, source, method, rounded):
    """`rounded` says that the oracle's overviews went through 32-bit floats."""
    full, expected = read(tested), read(decoded(source))
    assert full.dtype == expected.dtype and full.shape == expected.shape
    assert canonical(full) == canonical(expected), f"full resolution is not the source's: {difference(full, expected)}"
    for level in levels(oracle)[1:]:
        mine, theirs = read(tested, level), read(oracle, level)
        assert mine.shape == theirs.shape, level
        if method in EXACT and not rounded:
            assert canonical(mine) == canonical(theirs), f"{level}, {method}: {difference(mine, theirs)}"
        else:
            check_close(mine, theirs, rounded, f"{level}, {method}")


def check_close(mine, theirs, rounded, what):
    """Within one unit, or within a share of the value; where the oracle rounded, of the largest value: others may have cancelled."""
    magnitude = numpy.nan_to_num(numpy.abs(theirs.astype("complex128" if theirs.dtype.kind == "c" else "float64")))
    share = FLOAT_TOLERANCE * (magnitude.max() if rounded else magnitude)
    if mine.dtype.kind in "iu":
        # Of the larger and the smaller: unsigned numbers have no difference below zero.
        apart = numpy.maximum(mine, theirs) - numpy.minimum(mine, theirs)
        limit = numpy.maximum(INTEGER_TOLERANCE, share if rounded else 0)
    else:
        assert (numpy.isnan(mine) == numpy.isnan(theirs)).all(), f"{what}: {difference(mine, theirs)}"
        apart = numpy.nan_to_num(numpy.abs(mine - theirs))
        limit = share
    assert (apart <= limit).all(), f"{what}: up to {apart.max()} apart; {difference(mine, theirs)}"


def check_lossy_pixels(tested, oracle, source, plain, most):
    """At every level as near to what was encoded as the oracle is."""
    references = [read(decoded(source)), *(read(plain, level) for level in levels(plain)[1:])]
    for level, reference in zip(levels(oracle), references, strict=True):
        mine, theirs = read(tested, level), read(oracle, level)
        assert mine.shape == theirs.shape, level
        # Alpha of a JPEG is its mask.
        reference = reference[: len(mine)]
        there = visible(oracle, level)
        error, allowed = mean_error(mine, reference, there), mean_error(theirs, reference, there)
        assert error <= LOSSY_FACTOR * allowed + LOSSY_NOTHING, f"{level}: mean error {error}, the oracle's is {allowed}"
        if most is not None:
            largest = numpy.nan_to_num(numpy.abs(mine.astype("float64") - reference)).max()
            assert largest <= most * (1 + FLOAT_TOLERANCE), f"{level}: error {largest}, allowed is {most}"


def visible(path, level):
    """Pixels that count: what is below nothing, a lossy codec may spoil."""
    with rasterio.open(path, **level) as dataset:
        return dataset.dataset_mask() > 0


def mean_error(data, reference, there):
    apart = numpy.abs(data.astype("float64") - reference.astype("float64"))[:, there]
    return float(numpy.nan_to_num(apart).mean()) if apart.size else 0.0


def check_masks(tested, oracle, lossy=False):
    for level in levels(oracle):
        with rasterio.open(tested, **level) as mine, rasterio.open(oracle, **level) as theirs:
            assert mine.mask_flag_enums == theirs.mask_flag_enums, level
            if lossy and MaskFlags.nodata in theirs.mask_flag_enums[0]:
                # Which values are still nodata afterwards is chance.
                continue
            for band in theirs.indexes:
                one, other = mine.read_masks(band), theirs.read_masks(band)
                if level and theirs.nodata is None and mine.nodata is not None:
                    # GDAL forgets 64-bit nodata in overviews; the pixels, which were compared, say what is empty.
                    other = numpy.where(mine.read(band) == mine.nodata, 0, 255)
                # Overviews of a mask that was alpha: one pixel in a hundred, where opaque and transparent ones balance.
                most = one.size // 100 if lossy and level else 0
                assert (one != other).sum() <= most, f"{level}, mask of band {band}: {difference(one, other)}"


# What GDAL guesses from the tables that an encoder of JPEG chose.
GUESSED = ("JPEG_QUALITY", "JPEGTABLESMODE")


def description(path, level):
    """All that a dataset says about itself, comparable."""
    with rasterio.open(path, **level) as dataset:
        gcps, gcps_crs = dataset.gcps
        found = {
            "size": (dataset.width, dataset.height, dataset.count), "types": dataset.dtypes, "crs": dataset.crs and dataset.crs.to_wkt(),
            "nodata": [str(value) for value in dataset.nodatavals],
            "colours": [colormap(dataset, band) for band in dataset.indexes], "interpretation": dataset.colorinterp,
            "descriptions": dataset.descriptions, "scales": dataset.scales, "offsets": dataset.offsets, "units": dataset.units,
            "gcps": [(point.row, point.col, point.x, point.y, point.z) for point in gcps], "gcps_crs": gcps_crs and gcps_crs.to_wkt(),
            "rpcs": dataset.rpcs and dataset.rpcs.to_gdal(), "blocks": dataset.block_shapes, "interleaving": dataset.interleaving,
            "photometric": dataset.photometric, "overviews": dataset.overviews(1) if not level else None,
        }
        # An overview of a raster that has GCPs only has no geotransform, and rasterio reads it all the same.
        if not level:
            found["transform"] = tuple(dataset.transform)
        for name in dataset.tag_namespaces():
            if name != "DERIVED_SUBDATASETS":
                found[f"tags {name}"] = {key: value for key, value in dataset.tags(ns=name).items() if key not in GUESSED}
        found["tags"] = dataset.tags()
        for band in dataset.indexes:
            found[f"tags of band {band}"] = dataset.tags(band)
            # The value of a block's statistics cannot be told from a file's, so the size of compressed data stays out.
            found[f"image structure of band {band}"] = dataset.tags(band, ns="IMAGE_STRUCTURE")
    return found


def colormap(dataset, band):
    try:
        return dataset.colormap(band)
    except ValueError:
        return None


def check_descriptions(tested, oracle):
    for level in levels(oracle):
        mine, theirs = description(tested, level), description(oracle, level)
        if level and set(theirs["nodata"]) == {"None"}:
            # GDAL 3.6.2 repeats nodata in overviews, but not that of 64-bit integers.
            del mine["nodata"], theirs["nodata"]
        if theirs["interleaving"] != mine["interleaving"]:
            # Uncompressed, GDAL 3.6.2 keeps separate planes, and then it makes no COG that it would call one.
            assert str(mine["interleaving"].value) == "PIXEL" and "LAYOUT" not in theirs.get("tags IMAGE_STRUCTURE", {})
            for name in ("interleaving", "tags IMAGE_STRUCTURE"):
                mine.pop(name, None), theirs.pop(name, None)
        different = {key: (mine.get(key), theirs.get(key)) for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        assert not different, f"{level}: {different}"


# The file


# What plain libtiff does not know: tags of GeoTIFF and GDAL, and RPCs. It says so of every GeoTIFF.
KNOWN_TAGS = {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844}
UNKNOWN_TAG = re.compile(r"Unknown field with tag (\d+) ")
# tiffinfo cannot print subsampled colours, and has nothing to read where a block is sparse; pixels are compared elsewhere.
NOT_PRINTED = ("Cannot display data", "Invalid tile byte count")
NODATA_LINE = "GDAL NoDataValue"
# Lines of tiffinfo that say nothing: places, the predictor that is none, the length of tables that encoders choose.
# Uncompressed, GDAL keeps the planes of a source whose bands are separate; a COG of ours always has the samples of a pixel together.
NOT_COMPARED = ("offset", "Predictor: none", "JPEG Tables", "Planar Configuration")


def tiffinfo(path, *options):
    return subprocess.run(["tiffinfo", *options, str(path)], capture_output=True, text=True, errors="replace", timeout=60)


def check_valid(path):
    """Every validator accepts it, and libtiff reads all of it without a warning."""
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert valid, (errors, warnings)
    gdal_validate(path)
    if shutil.which("tiffinfo"):
        # Without -D libtiff reads directories only.
        done = tiffinfo(path, "-D")
        said = [line for line in done.stderr.splitlines() if not is_known(line)]
        assert not said, said


def is_known(line):
    found = UNKNOWN_TAG.search(line)
    return any(text in line for text in NOT_PRINTED) or (found is not None and int(found.group(1)) in KNOWN_TAGS)


def directories(path):
    """What tiffinfo prints of every directory, where it must be equal."""
    printed = tiffinfo(path).stdout.split("=== TIFF directory")[1:]
    lines = [[comparable(line.strip()) for line in part.splitlines()[1:]] for part in printed]
    return [sorted(line for line in part if line and not any(text in line for text in NOT_COMPARED)) for part in lines]


def comparable(line):
    """A number has more than one spelling."""
    return f"{NODATA_LINE}: {float(line.partition(': ')[2])}" if line.startswith(NODATA_LINE) else line


def check_same_directories(tested, oracle):
    """Same directories in the same order with the same fields: types, codec, predictor, photometric, extra samples and all others."""
    if not shutil.which("tiffinfo"):
        return
    mine, theirs = directories(tested), directories(oracle)
    assert len(mine) == len(theirs), f"{len(mine)} directories instead of {len(theirs)}"
    for number, (one, other) in enumerate(zip(mine, theirs)):
        if number and not any(line.startswith(NODATA_LINE) for line in other):
            # GDAL 3.6.2 repeats nodata in overviews, but not that of 64-bit integers.
            one = [line for line in one if not line.startswith(NODATA_LINE)]
        assert one == other, f"directory {number}: {sorted(set(one) ^ set(other))}"
