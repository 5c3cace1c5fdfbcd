"""What a new user gets wrong: one sentence, a code, an exit status, and nothing lost."""

import pathlib
import shutil
import subprocess

import pytest
import rasterio

from conftest import ROOT
from rasters import write


def refused(geoworker, code, *arguments, exit_code=2):
    error = geoworker.json(*arguments, code=exit_code)["error"]
    assert error["code"] == code, error
    assert error["message"] and "\n" not in error["message"]
    assert str(ROOT) not in error["message"]
    return error


def submit(job_type, **parameters):
    pairs = [part for key, value in parameters.items() for part in ("--param", f"{key}={value}")]
    return ["submit", job_type, *pairs]


def test_unknown_names(geoworker):
    assert "process_raster" in refused(geoworker, "JOB_TYPE_UNKNOWN", *submit("proces_raster"))["message"]
    error = refused(geoworker, "PARAM_INVALID", *submit("hello_world", m=3))
    assert "'m'" in error["message"] and "failure_rate, n" in error["message"]
    refused(geoworker, "JOB_NOT_FOUND", "jobs", "show", "abc")
    refused(geoworker, "TASK_TYPE_UNKNOWN", "plugin", "inspect", "nothing")
    assert geoworker.json("jobs") == []


def test_wrong_values(geoworker):
    assert "'n'" in refused(geoworker, "PARAM_INVALID", *submit("hello_world", n="many"))["message"]
    refused(geoworker, "PARAM_INVALID", *submit("hello_world", n=1001))
    refused(geoworker, "PARAM_INVALID", *submit("process_raster", blob_name="x.tif"))
    refused(geoworker, "PARAM_INVALID", *submit("hello_world", _route_to_docker="perhaps"))
    refused(geoworker, "USAGE", "submit", "hello_world", "--param", "n", exit_code=64)
    refused(geoworker, "USAGE", "submit", "hello_world", "--params", "missing.json", exit_code=64)


def test_contradictions_are_named_at_submission(geoworker, tmp_path):
    geoworker.put(write(tmp_path / "a.tif"))
    source = dict(container_name="in", blob_name="a.tif")
    refused(geoworker, "PARAM_INCOMPATIBLE", *submit("process_raster", **source, compression="lzw", jpeg_quality=80))
    refused(geoworker, "PARAM_INCOMPATIBLE", *submit("process_raster", **source, compression="jpeg", output_tier="archive"))
    refused(geoworker, "BLOB_NAME_INVALID", *submit("process_raster", **source, output_folder="../../elsewhere"))


@pytest.mark.parametrize("name", ["../../geoworker.db", "/etc/passwd", "a/../../b", "..", "a//b", "/vsicurl/http://127.0.0.1:9/x.tif", "a\nb"])
def test_names_that_leave_their_zone(geoworker, name):
    refused(geoworker, "BLOB_NAME_INVALID", *submit("process_raster", container_name="in", blob_name=name))
    refused(geoworker, "BLOB_NAME_INVALID", *submit("process_raster", container_name="..", blob_name="x.tif"))


def test_missing_empty_and_wrong_files(geoworker, tmp_path):
    refused(geoworker, "BLOB_NOT_FOUND", *submit("process_raster", container_name="in", blob_name="x.tif"))
    (tmp_path / "empty.tif").touch()
    geoworker.put(tmp_path / "empty.tif")
    refused(geoworker, "FILE_EMPTY", *submit("process_raster", container_name="in", blob_name="empty.tif"))
    for name, content in {
        "text.tif": b"not a raster at all",
        "cut.tif": b"II*\0\x08\0\0\0",
        "vrt.tif": b"<VRTDataset rasterXSize='1' rasterYSize='1'><SRS/></VRTDataset>",
    }.items():
        (tmp_path / name).write_bytes(content)
        job = geoworker.process(geoworker.put(tmp_path / name), code=1)
        assert job["error"]["code"] == "FILE_UNREADABLE", job["error"]
    assert geoworker.published() == []


def test_a_cut_off_raster(geoworker, tmp_path):
    whole = write(tmp_path / "whole.tif", count=3)
    content = pathlib.Path(whole).read_bytes()
    (tmp_path / "half.tif").write_bytes(content[: len(content) // 2])
    job = geoworker.process(geoworker.put(tmp_path / "half.tif"), code=1)
    assert job["error"]["code"] == "FILE_UNREADABLE"
    assert geoworker.published() == []


def test_references_to_other_files_are_not_followed(geoworker, tmp_path):
    """A VRT in a raster's clothes names a canary; neither its pixels nor its path come out."""
    canary = write(tmp_path / "canary.tif")
    vrt = subprocess.run(["gdal_translate", "-q", "-of", "VRT", canary, "/vsistdout/"], capture_output=True, check=True).stdout
    (tmp_path / "sly.tif").write_bytes(vrt)
    job = geoworker.process(geoworker.put(tmp_path / "sly.tif"), code=1)
    assert job["error"]["code"] == "FILE_UNREADABLE"
    assert "canary" not in str(job)
    with rasterio.open(canary) as dataset:
        assert dataset.count == 1


def test_wrong_command_lines(geoworker, tmp_path):
    assert geoworker.run("--help").count("geoworker") > 3
    for arguments in (["frobnicate"], ["submit"], ["jobs", "--limit", "x"], ["cog", "one"]):
        geoworker.run(*arguments, code=64)
    refused(geoworker, "USAGE", "cog", "missing.tif", "out.tif", exit_code=64)
    source = write(tmp_path / "a.tif")
    refused(geoworker, "USAGE", "cog", source, source, exit_code=64)
    refused(geoworker, "USAGE", "cog", source, tmp_path / "no" / "out.tif", exit_code=64)
    refused(geoworker, "USAGE", "explain", "NOTHING", exit_code=64)
    assert geoworker.json("explain", "blob_not_found")["code"] == "BLOB_NOT_FOUND"


def test_wrong_configuration(make_geoworker):
    assert "worker_docker" in refused(make_geoworker(APP_MODE="docker"), "CONFIG_INVALID", "serve")["message"]
    error = refused(make_geoworker(APP_MODE="worker_docker", FUNCTIONS_WORKER_RUNTIME="python"), "CONFIG_INVALID", "serve")
    assert "FUNCTIONS_WORKER_RUNTIME" in error["message"] and "POSTGRES_HOST" in error["message"]
    assert "POSTGRES_USER" in refused(make_geoworker(POSTGRES_HOST="db"), "CONFIG_INVALID", "serve")["message"]
    error = refused(make_geoworker(ServiceBusConnection="Endpoint=sb://bus"), "CONFIG_INVALID", "serve")
    assert "SharedAccessKey" in error["message"], error
    refused(make_geoworker(GEOWORKER_PLUGINS="/nowhere"), "CONFIG_INVALID", "plugin", "list")
    shown = make_geoworker(POSTGRES_PASSWORD="secret!").run("config", "show")
    assert "secret!" not in shown and "redacted" in shown


def test_an_unusable_data_directory(make_geoworker, tmp_path):
    (tmp_path / "data").write_text("a file in its place")
    refused(make_geoworker(), "DATA_DIR_UNUSABLE", "serve")


def test_broken_plugins_disable_only_themselves(make_geoworker, tmp_path):
    folder = tmp_path / "plugins"
    shutil.copytree(ROOT / "plugins/dist", folder)
    (folder / "broken.wasm").write_bytes(b"not wasm")
    (folder / "empty.wasm").write_bytes(b"")
    (folder / "wrong_world.wasm").write_bytes(b"\0asm\x0d\0\x01\0")
    (folder / "core.wasm").write_bytes(b"\0asm\x01\0\0\0")
    # The same content under two names is one plugin; other content with the same types is in the way.
    (folder / "copy.wasm").write_bytes((folder / "hello.wasm").read_bytes())
    (folder / "rival.wasm").write_bytes((folder / "hello.wasm").read_bytes() + b"\0\x05\x04note")
    geoworker = make_geoworker(GEOWORKER_PLUGINS=str(folder))
    reports = {r["file"]: r["error"] and r["error"]["code"] for r in geoworker.json("plugin", "list", code=1)}
    assert reports == {
        "broken.wasm": "PLUGIN_NOT_WASM",
        "empty.wasm": "PLUGIN_FILE",
        "wrong_world.wasm": "PLUGIN_WORLD_MISMATCH",
        "core.wasm": "PLUGIN_WORLD_MISMATCH",
        "copy.wasm": None,
        "hello.wasm": None,
        "raster.wasm": None,
        "rival.wasm": "PLUGIN_CONFLICT",
    }
    job = geoworker.json("run", "hello_world")
    assert job["state"] == "completed"
