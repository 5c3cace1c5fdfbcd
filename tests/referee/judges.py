"""What independent tools say about an output."""

import json
import pathlib
import subprocess
import tempfile

import numpy
import pystac
import pystac.validation
import rasterio
from osgeo_utils_path import gdal_validate
from rio_cogeo.cogeo import cog_validate

SCHEMAS = pathlib.Path(__file__).parent / "schemas"


def check_cog(path):
    """rio-cogeo's and GDAL's validators accept the file."""
    valid, errors, _ = cog_validate(path, quiet=True)
    assert valid, errors
    gdal_validate(path)


def decoded(path):
    """A lossy source as the system's GDAL decodes it: decoders of other builds may differ by a rounding."""
    with rasterio.open(path) as source:
        lossy = "JPEG" in source.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
    if not lossy:
        return path
    plain = pathlib.Path(tempfile.mkdtemp()) / "decoded.tif"
    subprocess.run(["gdal_translate", "-q", str(path), str(plain)], check=True)
    return plain


def check_same_pixels(source_path, cog_path):
    """Bands, masks and everything that describes them are the source's."""
    source_path = decoded(source_path)
    with rasterio.open(source_path) as source, rasterio.open(cog_path) as cog:
        assert (cog.width, cog.height, cog.count, cog.dtypes) == (source.width, source.height, source.count, source.dtypes)
        for band in source.indexes:
            same = source.read(band).tobytes() == cog.read(band).tobytes()
            assert same, f"band {band} differs"
            assert numpy.array_equal(source.read_masks(band), cog.read_masks(band)), f"mask of band {band} differs"
        assert list(map(str, cog.nodatavals)) == list(map(str, source.nodatavals))
        assert cog.crs == source.crs
        assert cog.transform.almost_equals(source.transform, precision=1e-9)
        assert (cog.scales, cog.offsets, cog.units) == (source.scales, source.offsets, source.units)
        assert (cog.descriptions, cog.colorinterp) == (source.descriptions, source.colorinterp)
        assert [flags for flags in cog.mask_flag_enums] == [flags for flags in source.mask_flag_enums]
        assert len(cog.gcps[0]) == len(source.gcps[0])
        for band in source.indexes:
            assert tags(cog, band) == tags(source, band)
            assert colours(cog, band) == colours(source, band)
        assert tags(cog).items() >= tags(source).items()


def tags(dataset, band=0):
    kept = dataset.tags(band) if band else dataset.tags()
    return {key: value for key, value in kept.items() if key not in ("OVR_RESAMPLING_ALG",) and not key.startswith("STATISTICS_")}


def colours(dataset, band):
    try:
        return dataset.colormap(band)
    except ValueError:
        return None


def check_item(path):
    """pystac accepts the item, its extensions included, without a network."""
    validator = pystac.validation.JsonSchemaSTACValidator()
    for schema in SCHEMAS.glob("*.json"):
        name, version = schema.stem.rsplit("-", 1)
        uri = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
        validator.schema_cache[uri] = json.loads(schema.read_text())
    item = json.loads(pathlib.Path(path).read_text())
    pystac.validation.validate_dict(item, validator=validator)
    assert pystac.Item.from_dict(item).id == item["id"]
    return item
