"""process_raster on real and generated rasters: a COG that referees accept, or a coded failure and nothing published."""

import json

import pytest
import rasterio

from conftest import SHARED
from judges import check_cog, check_item, check_same_pixels
from rasters import VARIANTS, write

# What must not become a COG, and why. Everything else must.
REFUSED = {
    "all-nodata.tif": "RASTER_EMPTY",
    "corrupt.tif": "FILE_UNREADABLE",
    "float_nan.tif": "CRS_MISSING",
    "rotated.tif": "CRS_MISSING",
}


def check(geoworker, source, refused):
    name = geoworker.put(source)
    job = geoworker.process(name, code=1 if refused else 0)
    if refused:
        assert job["state"] == "failed"
        assert job["error"]["code"] == refused, job["error"]
        assert geoworker.published() == []
        return None
    result = job["result"]
    cog = geoworker.silver(result["cog"]["target"])
    assert result["cog"]["pixels_verified"] and result["cog"]["not_carried"] == []
    check_cog(cog)
    check_same_pixels(source, cog)
    item = check_item(geoworker.silver(result["item"]))
    assert item["assets"]["data"]["file:size"] == cog.stat().st_size
    with rasterio.open(geoworker.silver(result["preview"])) as preview:
        assert max(preview.shape) <= 512
    return item


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"SKIPPED: the shared rasters are not at {SHARED}")
@pytest.mark.parametrize("name", sorted(f.name for f in SHARED.glob("*.tif")))
def test_real_rasters(geoworker, name):
    check(geoworker, SHARED / name, REFUSED.get(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_generated_rasters(geoworker, tmp_path, name):
    how, refused = VARIANTS[name]
    if how.get("kind") == "int8" and not system_gdal_has_int8():
        pytest.skip("this GDAL has no 8-bit signed integers")
    if name == "nothing_valid":
        source = tmp_path / "nothing.tif"
        write(source, **how)
        with rasterio.open(source, "r+") as dataset:
            dataset.write(dataset.read() * 0 + 1)
        check(geoworker, source, "RASTER_EMPTY")
        return
    check(geoworker, write(tmp_path / f"{name}.tif", **how), refused)


def system_gdal_has_int8():
    import subprocess

    version = subprocess.run(["gdalinfo", "--version"], capture_output=True, text=True).stdout
    major, minor = version.split()[1].split(".")[:2]
    return (int(major), int(minor)) >= (3, 7)


def test_the_item_says_where_and_when(geoworker, tmp_path):
    source = write(tmp_path / "antimeridian.tif", **VARIANTS["antimeridian"][0])
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(TIFFTAG_DATETIME="2024:02:29 10:11:12")
    item = check(geoworker, source, None)
    assert item["geometry"]["type"] == "MultiPolygon"
    assert item["bbox"][0] == 175 and item["bbox"][2] == -171
    assert item["properties"]["datetime"] == "2024-02-29T10:11:12Z"
    assert item["properties"]["proj:code"] == "EPSG:4326"
    assert item["properties"]["proj:shape"] == [600, 700]


def test_equal_work_gives_equal_bytes(make_geoworker, tmp_path):
    source = write(tmp_path / "same.tif", count=3)
    outputs = []
    for run in ("one", "two"):
        folder = tmp_path / run
        folder.mkdir()
        geoworker = make_geoworker()
        geoworker.folder, geoworker.data = folder, folder / "data"
        result = geoworker.process(geoworker.put(source))["result"]
        outputs.append(geoworker.silver(result["cog"]["target"]).read_bytes())
    assert outputs[0] == outputs[1]


def test_the_job_document_is_whole(geoworker, tmp_path):
    geoworker.process(geoworker.put(write(tmp_path / "a.tif")))
    job = geoworker.json("jobs")[0]
    shown = geoworker.json("jobs", "show", job["job_id"][:10], "--events")
    assert [stage["name"] for stage in shown["stages"]] == ["validate_raster", "create_cog", "extract_stac_metadata"]
    assert {event["kind"] for event in shown["events"]} >= {"job_submitted", "stage_planned", "task_claimed", "task_completed", "job_ended"}
    assert all(task["route_reason"] == "class: raster" and task["plugin_digest"] for task in shown["tasks"])
    assert json.dumps(shown)
