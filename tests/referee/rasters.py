"""Rasters that are made for tests: every data type, odd sizes, every kind of mask and georeference."""

import numpy
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

NORTH_UP = from_origin(500_000, 4_600_000, 10, 10)
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
         "complex64", "complex128", "complex_int16"]


def pattern(kind, count, height, width):
    """Smooth, different in every band, over the whole range of small types."""
    y, x = numpy.mgrid[0:height, 0:width]
    bands = []
    for band in range(count):
        values = 100 + 90 * numpy.sin(x / 37 + band) * numpy.cos(y / 23)
        bands.append(values)
    stack = numpy.array(bands)
    if kind.startswith("complex"):
        return (stack + 1j * stack[:, ::-1]).astype("complex64" if kind == "complex_int16" else kind)
    return stack.astype(kind) if kind.startswith(("float", "u")) else (stack - 100).astype(kind)


def write(path, kind="uint8", count=1, height=600, width=700, crs="EPSG:32633", transform=NORTH_UP, mask=None, **extra):
    """Writes a raster and answers its path."""
    profile = dict(driver="GTiff", dtype=kind, count=count, height=height, width=width, crs=crs, transform=transform)
    nodata = extra.pop("nodata", None)
    alpha = extra.pop("alpha", False)
    palette = extra.pop("palette", None)
    gcps = extra.pop("gcps", None)
    if transform is None:
        del profile["transform"]
    with rasterio.open(path, "w", **profile, nodata=nodata, **extra) as target:
        data = pattern(kind, count, height, width)
        if palette:
            data = (data % len(palette)).astype("uint8")
        if nodata is not None:
            data[:, : height // 3, : width // 3] = nodata
        if alpha:
            data[-1] = 255
            data[-1, : height // 2] = 0
        target.write(data)
        if alpha:
            target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha][:count]
        if palette:
            target.write_colormap(1, palette)
        if mask:
            flags = numpy.full((height, width), 255, "uint8")
            flags[: height // 4] = 0
            target.write_mask(flags)
        if gcps:
            target.gcps = (gcps, rasterio.crs.CRS.from_string("EPSG:4326"))
    return path


PALETTE = {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255), 3: (0, 0, 255, 255)}
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 4_600_000)
ROTATED = Affine.translation(500_000, 4_600_000) * Affine.rotation(30) * Affine.scale(10, -10)
GCPS = [GroundControlPoint(row=r, col=c, x=10 + c / 1000, y=50 - r / 1000) for r, c in ((0, 0), (0, 700), (600, 0), (600, 700))]

# name: (how to write it, expected error code or None)
VARIANTS = {
    **{f"type_{kind}": (dict(kind=kind), None) for kind in TYPES},
    "size_1x1": (dict(height=1, width=1), None),
    "size_1xN": (dict(height=1, width=900), None),
    "size_Nx1": (dict(height=900, width=1), None),
    "size_513x511": (dict(height=511, width=513, count=3), None),
    "size_512x512": (dict(height=512, width=512), None),
    "size_1025x1024": (dict(height=1024, width=1025), None),
    "nodata_nan": (dict(kind="float32", nodata=float("nan")), None),
    "nodata_float": (dict(kind="float32", nodata=-9999.0), None),
    "nodata_int": (dict(kind="int16", nodata=-32768), None),
    "nodata_zero": (dict(count=3, nodata=0), None),
    "mask": (dict(count=3, mask=True), None),
    "alpha": (dict(count=4, alpha=True), None),
    "palette": (dict(palette=PALETTE), None),
    "many_bands": (dict(kind="uint16", count=12), None),
    "band_interleaved": (dict(count=3, interleave="band"), None),
    "big_endian": (dict(kind="uint16", endianness="big"), None),
    "tiled_zstd": (dict(kind="float32", tiled=True, compress="zstd"), None),
    "south_up": (dict(transform=SOUTH_UP), None),
    "rotated": (dict(transform=ROTATED), None),
    "gcps": (dict(transform=None, crs=None, gcps=GCPS), None),
    "antimeridian": (dict(crs="EPSG:4326", transform=from_origin(175, 10, 0.02, 0.02)), None),
    "polar": (dict(crs="EPSG:3413", transform=from_origin(-300_000, 300_000, 1000, 1000)), None),
    "no_crs": (dict(crs=None), "CRS_MISSING"),
    "no_geotransform": (dict(transform=None), "BOUNDS_SUSPICIOUS"),
    "nothing_valid": (dict(kind="float32", nodata=1.0, count=1, height=1, width=1), None),
}
