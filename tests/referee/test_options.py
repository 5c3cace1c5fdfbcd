"""Every option reaches the encoder: its effect is read from the output by other tools."""

import numpy
import pytest
import rasterio

from judges import check_cog
from rasters import PALETTE, write


def cog(geoworker, source, *options, code=0):
    target = geoworker.folder / "out.tif"
    target.unlink(missing_ok=True)
    report = geoworker.json("cog", source, target, *options, code=code)
    if code == 0:
        check_cog(target)
        return target, report
    assert not target.exists() and not list(geoworker.folder.glob(".out.tif*"))
    return None, report


@pytest.fixture
def rgb(tmp_path):
    return write(tmp_path / "rgb.tif", count=3, height=1100, width=1300)


@pytest.mark.parametrize("compression", ["none", "deflate", "zstd", "lzw", "jpeg", "webp", "lerc", "lerc_deflate", "lerc_zstd"])
def test_compression(geoworker, rgb, compression):
    target, _ = cog(geoworker, rgb, "--compression", compression)
    with rasterio.open(target) as dataset:
        found = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "NONE")
    assert found.split()[-1].lower() in (compression, {"jpeg": "jpeg"}.get(compression), f"{compression}") or found == "YCbCr JPEG"


def test_level_quality_and_error_change_the_size(geoworker, rgb, tmp_path):
    def size(*options, source=rgb):
        return cog(geoworker, source, *options)[1]["size_bytes"]

    assert size("--level", 1) > size("--level", 12)
    assert size("--compression", "zstd", "--level", 1) != size("--compression", "zstd", "--level", 19)
    assert size("--compression", "jpeg", "--quality", 30) < size("--compression", "jpeg", "--quality", 95)
    surface = write(tmp_path / "surface.tif", kind="float32")
    coarse = size("--compression", "lerc", "--max-z-error", 1, source=surface)
    assert coarse < size("--compression", "lerc", "--max-z-error", 0.001, source=surface)


@pytest.mark.parametrize("kind, asked, tag", [
    ("uint8", "auto", "2"), ("uint8", "none", None), ("float32", "auto", "3"), ("float32", "horizontal", "2"),
    ("int64", "auto", None), ("complex64", "auto", None),
])
def test_predictor(geoworker, tmp_path, kind, asked, tag):
    source = write(tmp_path / "p.tif", kind=kind)
    target, _ = cog(geoworker, source, "--predictor", asked)
    with rasterio.open(target) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR", None) in ((tag,) if tag else (None, "1"))


@pytest.mark.parametrize("edge", [128, 256, 512, 1024])
def test_block_size_and_overviews(geoworker, rgb, edge):
    target, report = cog(geoworker, rgb, "--block-size", edge)
    with rasterio.open(target) as dataset:
        assert dataset.block_shapes[0] == (edge, edge)
        assert len(dataset.overviews(1)) == report["overview_count"]


@pytest.mark.parametrize("method", ["nearest", "average", "bilinear", "cubic", "mode", "rms", "gauss"])
def test_overview_resampling(geoworker, rgb, method):
    target, _ = cog(geoworker, rgb, "--overview-resampling", method)
    with rasterio.open(target) as full, rasterio.open(target, overview_level=0) as overview:
        picked = numpy.isin(overview.read(1), full.read(1)).all()
        assert overview.shape == (550, 650)
        assert full.tags().get("OVR_RESAMPLING_ALG", method.upper()) == method.upper()
        assert picked or method not in ("nearest", "mode")


def test_reprojection_and_crs_override(geoworker, rgb, tmp_path):
    target, report = cog(geoworker, rgb, "--target-crs", "EPSG:3857", "--resampling", "cubic")
    with rasterio.open(target) as dataset:
        assert dataset.crs.to_epsg() == 3857
    assert report["crs"] == "EPSG:3857" and not report["pixels_verified"]
    bare = write(tmp_path / "bare.tif", crs=None)
    target, report = cog(geoworker, bare, "--input-crs", "EPSG:25833", "--verify-pixels")
    with rasterio.open(target) as dataset:
        assert dataset.crs.to_epsg() == 25833
    assert report["pixels_verified"]


@pytest.mark.parametrize("options, code", [
    (["--compression", "gzip"], "RASTER_UNSUPPORTED"),
    (["--compression", "jpeg", "--level", "6"], "RASTER_UNSUPPORTED"),
    (["--quality", "80"], "RASTER_UNSUPPORTED"),
    (["--block-size", "500"], "RASTER_UNSUPPORTED"),
    (["--predictor", "floating-point"], "RASTER_UNSUPPORTED"),
    (["--target-crs", "somewhere"], "CRS_INVALID"),
    (["--target-crs", "/vsicurl/http://127.0.0.1:9/x"], "CRS_INVALID"),
    (["--overview-resampling", "lanczos"], "RASTER_UNSUPPORTED"),
])
def test_what_has_no_effect_is_refused(geoworker, rgb, options, code):
    _, report = cog(geoworker, rgb, *options, code=2)
    assert report["error"]["code"] == code


def test_tiers_and_types_choose_the_encoder(make_geoworker, tmp_path):
    geoworker = make_geoworker()
    geoworker.put(write(tmp_path / "rgb.tif", count=3))
    geoworker.put(write(tmp_path / "alpha.tif", count=4, alpha=True))
    geoworker.put(write(tmp_path / "surface.tif", kind="float32"))
    geoworker.put(write(tmp_path / "classes.tif", palette=PALETTE))

    def encoded(name, **parameters):
        cog = geoworker.process(name, **parameters)["result"]["cog"]
        return cog["compression"], cog["predictor"], cog["overview_resampling"]

    assert encoded("rgb.tif") == ("deflate", "horizontal", "average")
    assert encoded("rgb.tif", output_tier="visualization") == ("jpeg", "none", "average")
    assert encoded("alpha.tif", output_tier="visualization") == ("webp", "none", "average")
    assert encoded("surface.tif") == ("deflate", "floating-point", "average")
    assert encoded("surface.tif", output_tier="archive", compression="zstd") == ("zstd", "floating-point", "average")
    assert encoded("classes.tif") == ("deflate", "horizontal", "mode")
    assert encoded("classes.tif", overview_resampling="nearest") == ("deflate", "horizontal", "nearest")

    def refused(name, **parameters):
        return geoworker.process(name, code=1, **parameters)["error"]

    error = refused("surface.tif", output_tier="visualization")
    assert error["code"] == "PARAM_INCOMPATIBLE" and "analysis" in error["message"]
    assert refused("classes.tif", overview_resampling="average")["code"] == "PARAM_INCOMPATIBLE"
    assert refused("surface.tif", raster_type="rgb")["code"] == "RASTER_TYPE_MISMATCH"
    assert refused("rgb.tif", input_crs="EPSG:4326")["code"] == "CRS_MISMATCH"
    assert encoded("rgb.tif", input_crs="EPSG:32633"), "what means the same is no mismatch"
