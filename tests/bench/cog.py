"""geoworker cog beside gdal_translate -of COG: same raster, same options, interleaved; ratios of time and memory."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 3
EDGE = 6000

CASES = {
    "deflate": (["--compression", "deflate"], ["COMPRESS=DEFLATE", "PREDICTOR=YES"]),
    "zstd": (["--compression", "zstd"], ["COMPRESS=ZSTD", "PREDICTOR=YES"]),
    "jpeg": (["--compression", "jpeg", "--quality", "85"], ["COMPRESS=JPEG", "QUALITY=85"]),
}


def make_source(path):
    """Smooth shapes with noise, so that neither codec nor predictor gets it for free."""
    noise = f"{path}.raw"
    with open("/dev/urandom", "rb") as random, open(noise, "wb") as raw:
        row = bytes((x // 24) % 200 for x in range(EDGE))
        for y in range(EDGE):
            grain = random.read(EDGE)
            raw.write(bytes((value + y // 40 % 40 + (g & 7)) & 255 for value, g in zip(row, grain)))
    vrt = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}" subClass="VRTRawRasterBand"><SourceFilename>{noise}</SourceFilename>'
        f"<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{EDGE}</LineOffset></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    pathlib.Path(f"{path}.vrt").write_text(f'<VRTDataset rasterXSize="{EDGE}" rasterYSize="{EDGE}"><SRS>EPSG:32633</SRS>'
                                           f"<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>{vrt}</VRTDataset>")
    subprocess.run(["gdal_translate", "-q", "-co", "TILED=YES", "-co", "PHOTOMETRIC=RGB", f"{path}.vrt", path], check=True)


def measure(command):
    """Wall seconds and peak memory in MB of a command and all it started."""
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return time.monotonic() - started, usage.ru_maxrss / 1000


def main():
    with tempfile.TemporaryDirectory() as folder:
        source, out = f"{folder}/source.tif", f"{folder}/out.tif"
        make_source(source)
        print(f"{EDGE} × {EDGE} × 3 bytes, medians of {ROUNDS} interleaved rounds; geoworker's time includes its verification")
        print(f"{'':8} {'geoworker':>22} {'gdal_translate':>22} {'time':>6} {'memory':>7} {'size':>6}")
        for name, (ours, theirs) in CASES.items():
            runs = {"ours": [], "theirs": []}
            sizes = {}
            options = [part for option in [*theirs, "NUM_THREADS=ALL_CPUS", "OVERVIEW_RESAMPLING=AVERAGE"] for part in ("-co", option)]
            commands = {
                "ours": [str(ROOT / "bin/geoworker"), "cog", source, out, "--overwrite", *ours],
                "theirs": ["gdal_translate", "-q", "-of", "COG", *options, source, out],
            }
            for _ in range(ROUNDS):
                for who, command in commands.items():
                    runs[who].append(measure(command))
                    sizes[who] = os.path.getsize(out)
            (our_time, our_memory), (their_time, their_memory) = (
                [statistics.median(values) for values in zip(*runs[who])] for who in ("ours", "theirs")
            )
            print(f"{name:8} {our_time:9.2f} s {our_memory:7.0f} MB {their_time:10.2f} s {their_memory:7.0f} MB "
                  f"{our_time / their_time:6.2f} {our_memory / their_memory:7.2f} {sizes['ours'] / sizes['theirs']:6.3f}")


if __name__ == "__main__":
    main()
