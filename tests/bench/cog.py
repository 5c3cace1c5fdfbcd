"""geoworker cog beside GDAL and libvips: wall and CPU time, memory, temporary disk and size, in one interleaved run.

    python tests/bench/cog.py [--scale small] [--cases rgb dem] [--codecs deflate zstd] [--rounds 3] [--work DIR] [--outputs DIR] [--json FILE]
    python tests/bench/cog.py --growth | --limit | --huge

The rasters are generated into the work folder on first use (about 3 GB); a folder named by --work keeps them for the next run.
Outputs go beside them, or where --outputs says: on /dev/shm the encoder is measured and not the disk.

- geoworker: once as it comes (encoder and level are its own choice), once at the level that is GDAL's default. "wall" is the whole
  command, its verification of the result included (as it comes, not --verify-pixels), which no peer does; "encode" is what its report
  says about the encoding alone.
- GDAL: the system's, with its default cache and with GDAL_CACHEMAX=64; and the one inside rasterio's wheel, in a Python that
  --newest-python names. Its wall and CPU are measured around the copy, so that starting Python is not counted against it.
- vips: `tiffsave --pyramid`. It makes no COG: no georeference, no nodata, and another layout. Skipped where it is not installed.

"peak" is the largest sum of resident memory over all processes of a command, "temp" the most bytes on disk in other files than the
output, and in the output beyond its final size.
Sources are read once before they are measured. Making rasters needs rasterio: tests/referee/requirements.txt.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import random
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "bin" / "geoworker"
VENV = ROOT / ".venv" / "bin" / "python"

# Width and height at full scale; everything else about a raster is in MAKERS.
EDGES = {"rgb": 16384, "dem": 12000, "ms": 10000, "photo": 12000, "tiled": 12288}
SCALES = {"full": 1, "small": 4}
WARPS = {"warp": "rgb", "warp_dem": "dem"}
CODECS = ["deflate", "zstd", "lzw", "jpeg", "none"]
WARP_CODECS = ["deflate"]
JPEG_CASES = ("rgb", "photo", "tiled")
# Levels that GDAL's COG driver takes where none is given, and its quality of JPEG.
GDAL_LEVEL = {"deflate": 6, "zstd": 9}
QUALITY = 75
BLOCK = 512
TARGET_CRS = "EPSG:3857"
# Seconds between two looks at a command; open files without a name are looked for more rarely.
LOOK = 0.025
LOOKS_AT_OPEN_FILES = 8
# Bytes that are no temporary disk yet: logs and folders.
NEXT_TO_NOTHING = 1 << 20

AUTO, LEVEL = "geoworker", "geoworker, GDAL's level"
SYSTEM, TUNED, NEWEST, VIPS = "system GDAL", "system GDAL, 64 MB", "newest GDAL", "vips"

# The aims of the project: least factors of wall time, largest factor of size.
LEAST_SAME_LEVEL = {"none": 4.0, "jpeg": 4.0, "dem": 2.2, "": 1.6}
LEAST_SAME_LEVEL_NEWEST = 1.25
LEAST_AUTO, LEAST_AUTO_NEWEST, LEAST_AUTO_EVER = 3.0, 2.0, 1.5
LARGEST_AUTO = 1.005
MOST_MEMORY = 0.25
LEAST_WARP = 1.4
GROWTH_TOLERANCE = 0.10
MOST_OF_LIMIT = 1.25
# Of the report: time of reading alone and of compressing alone on as many threads, where the encoder measures them.
LIMIT_FIELDS = ("read_alone_ms", "compress_alone_ms")
HUGE_EDGE, HUGE_MEMORY = 40_000, "256M"
# Beside it: lease of a worker's tasks, and edge of the picture that it encodes for longer than that.
LEASE_SECONDS, BESIDE_EDGE = 3, 6000


# Rasters. All of this runs in a process of its own: what this process holds in memory, its children would seem to hold.

PERIOD = 4096
STRIP = 512
NOISE = 1 << 24


def fractal(seed, beta):
    """Clouds that repeat after PERIOD, mean 0 and deviation 1; the larger `beta`, the smoother."""
    import numpy

    white = numpy.random.default_rng(seed).standard_normal((PERIOD, PERIOD), dtype=numpy.float32)
    spectrum = numpy.fft.rfft2(white)
    radius = numpy.hypot(numpy.fft.fftfreq(PERIOD)[:, None], numpy.fft.rfftfreq(PERIOD)[None, :]).astype(numpy.float32)
    radius[0, 0] = 1
    spectrum *= radius ** (-beta / 2)
    spectrum[0, 0] = 0
    field = numpy.fft.irfft2(spectrum, s=(PERIOD, PERIOD)).astype(numpy.float32)
    return (field - field.mean()) / field.std()


def classes(field, seed, spread):
    """Areas with hard edges, a value each."""
    import numpy

    values = numpy.random.default_rng(seed).integers(-spread, spread, 64).astype(numpy.float32)
    return values[numpy.floor(field * 6).astype(int) & 63]


def aerial():
    """A picture from above: texture, fields with hard edges; its noise is the sensor's."""
    import numpy

    texture, smooth = fractal(1, 2.2), fractal(2, 2.8)
    light = 18 * texture + 22 * numpy.roll(smooth, (777, 333), (0, 1))
    areas = numpy.roll(smooth, (1500, 900), (0, 1))
    bands = [base + light * gain + classes(areas, 9 + seed, 28)
             for seed, (base, gain) in enumerate([(105, 1.0), (112, 0.95), (92, 0.85)])]
    return numpy.array([numpy.rint(band) for band in bands], "int16"), 2.0


def photograph():
    """Smooth shading and soft outlines, as of a photograph that was made smaller; hardly any noise."""
    import numpy

    shade, shape, detail = fractal(4, 3.6), fractal(5, 3.4), fractal(6, 2.9)
    outlines = numpy.tanh(25 * shape) * 32 + numpy.tanh(60 * (shape - 0.6)) * 16
    bands = [base + gain * (outlines + 26 * shade) + tint * numpy.roll(shade, 900, 1) + 9 * detail
             for base, gain, tint in [(128, 1.0, 6), (120, 0.9, -4), (105, 0.8, -10)]]
    return numpy.array([numpy.rint(band) for band in bands], "int16"), 0.8


def terrain():
    """Heights in millimetres."""
    import numpy

    heights = fractal(3, 3.2) * 420_000 + numpy.roll(fractal(2, 2.8), (300, 100), (0, 1)) * 25_000 + 300_000
    return numpy.rint(heights).astype("int32")[None], 45.0


def reflectances():
    import numpy

    light = 0.8 * fractal(1, 2.2) + 1.1 * fractal(2, 2.8)
    areas = numpy.roll(fractal(2, 2.8), (2500, 100), (0, 1))
    bands = [base + gain * light + classes(areas, 19 + seed, 28) * (gain / 25)
             for seed, (base, gain) in enumerate([(900, 90), (1100, 110), (1300, 150), (2800, 420)])]
    return numpy.array([numpy.rint(band) for band in bands], "int16"), 12.0


def as_bytes(values, empty):
    return values.clip(1, 255).astype("uint8")


def as_heights(values, empty):
    """Metres; below the sea and outside of the map is nothing."""
    import numpy

    metres = values.astype("float32") / numpy.float32(1000)
    metres[(values < -120_000) | empty] = -9999
    return metres


def as_reflectances(values, empty):
    bounded = values.clip(1, 12_000).astype("int16")
    bounded[:, empty] = 0
    return bounded


# name: (what repeats, with the deviation of the noise on it; values of pixels; share of the width that is empty; profile)
MAKERS = {
    "rgb": (aerial, as_bytes, 0, dict(count=3, dtype="uint8", photometric="RGB", pixel=0.5)),
    "dem": (terrain, as_heights, 0.06, dict(count=1, dtype="float32", nodata=-9999, pixel=2)),
    "ms": (reflectances, as_reflectances, 0.08, dict(count=4, dtype="int16", nodata=0, pixel=10)),
    "photo": (photograph, as_bytes, 0, dict(count=3, dtype="uint8", photometric="RGB", pixel=0.5)),
    "tiled": (aerial, as_bytes, 0, dict(count=3, dtype="uint8", photometric="RGB", pixel=0.5, tiled=True, blockxsize=512, blockysize=512,
                                        compress="deflate", predictor=2, num_threads="ALL_CPUS")),
}


def make_raster(name, path, width, height):
    """Writes a raster strip by strip; the same arguments give the same pixels."""
    import numpy
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    maker, finish, border, profile = MAKERS[name]
    clean, deviation = maker()
    chance = numpy.random.default_rng(77)
    noise = numpy.rint(chance.standard_normal(NOISE, dtype=numpy.float32) * deviation).clip(-127, 127).astype("int8")
    profile = dict(profile)
    pixel = profile.pop("pixel")
    across = numpy.arange(width)[None, :]
    part = f"{path}.part"
    with rasterio.open(part, "w", driver="GTiff", width=width, height=height, crs="EPSG:32633", interleave="pixel", BIGTIFF="IF_SAFER",
                       transform=from_origin(500_000, 5_400_000, pixel, pixel), **profile) as target:
        for y in range(0, height, STRIP):
            rows = min(STRIP, height - y)
            empty = across + 0.15 * numpy.arange(y, y + rows)[:, None] < border * width
            strip = numpy.empty((len(clean), rows, width), profile["dtype"])
            for x in range(0, width, PERIOD):
                columns = min(PERIOD, width - x)
                piece = clean[:, y % PERIOD:y % PERIOD + rows, :columns]
                start = int(chance.integers(NOISE - piece.size))
                grain = noise[start:start + piece.size].reshape(piece.shape)
                strip[:, :, x:x + columns] = finish(piece + grain, empty[:, x:x + columns])
            target.write(strip, window=Window(0, y, width, rows))
    os.replace(part, path)


def make_source(path, edge=6000):
    """A picture that takes seconds to encode; other benchmarks use it."""
    prepare("rgb", path, edge, edge)


def prepare(name, path, width, height):
    """Generates a raster where it is not there yet."""
    if os.path.exists(path):
        return
    started = time.monotonic()
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([python_with_rasterio(), __file__, "--make", name, str(path), str(width), str(height)], check=True)
    print(f"made {name}, {width} × {height}, {os.path.getsize(path) / 1e6:.0f} MB, in {time.monotonic() - started:.0f} s", flush=True)


def python_with_rasterio():
    for python in filter(os.path.exists, (sys.executable, str(VENV))):
        if subprocess.run([python, "-c", "import rasterio"], capture_output=True).returncode == 0:
            return python
    sys.exit("rasterio is missing: pip install -r tests/referee/requirements.txt")


def ready(name, work, width, height):
    """Path of a raster that is there, and in the page cache for all who are measured."""
    path = work / f"{name}-{width}x{height}.tif"
    prepare(name, path, width, height)
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    return path


# Measuring


class Watch(threading.Thread):
    """Looks at a process with all its descendants and at a folder: largest resident memory, bytes of every file at every time."""

    def __init__(self, pid, folder):
        super().__init__(daemon=True)
        self.pid, self.folder = pid, os.path.realpath(folder)
        self.over = threading.Event()
        self.memory = 0
        self.files, self.nameless = [], {}

    def run(self):
        while not self.over.wait(LOOK):
            self.look()

    def look(self):
        pids = descendants(self.pid)
        self.memory = max(self.memory, sum(resident(pid) for pid in pids))
        if len(self.files) % LOOKS_AT_OPEN_FILES == 0:
            self.nameless = {inode: size for pid in pids for inode, size in nameless(pid, self.folder)}
        self.files.append(self.nameless | dict(allocated(self.folder)))

    def temporary(self, output):
        """Most bytes beyond the output. A file is known by its number: outputs are written under another name."""
        final = os.stat(output)
        own = final.st_ino
        looks = [sum(look.values()) - min(look.get(own, 0), final.st_blocks * 512) for look in self.files]
        return max(looks, default=0)


def descendants(pid):
    found = [pid]
    for known in found:
        for task in pathlib.Path(f"/proc/{known}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def resident(pid):
    with contextlib.suppress(OSError, IndexError):
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def nameless(pid, folder):
    """Number and bytes of files that were removed and are still open."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                link = os.readlink(entry.path)
                if link.startswith(folder) and link.endswith(" (deleted)"):
                    file = os.stat(entry.path)
                    yield file.st_ino, file.st_blocks * 512


def allocated(folder):
    """Number and bytes on disk of all files in a folder."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from allocated(entry.path)
                else:
                    file = entry.stat(follow_symlinks=False)
                    yield file.st_ino, file.st_blocks * 512


def measure(command, folder, output, extra):
    """Runs a command in `folder`, the place of its output and of all that is temporary; the figures of one run."""
    shutil.rmtree(folder, ignore_errors=True)
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    plain = {key: value for key, value in os.environ.items() if key != "GDAL_CACHEMAX"}
    environment = plain | {"TMPDIR": str(scratch), "CPL_TMPDIR": str(scratch)} | extra
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=errors)
        watch = Watch(process.pid, folder)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.over.set()
        watch.join()
        for file in (said, errors):
            file.seek(0)
        if process.returncode:
            raise Failed(f"{' '.join(map(str, command))}\nended with {process.returncode}: {said.read()[-2000:]} {errors.read()[-2000:]}")
        answer = parsed(said.read())
    run = {
        "wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": max(watch.memory, usage.ru_maxrss << 10),
        "temporary": watch.temporary(output), "size": os.path.getsize(output), "overviews": overview_bytes(output),
        "encode": answer["encode_ms"] / 1000 if "encode_ms" in answer else None,
    }
    # A peer that measured itself leaves away what is not its work.
    return run | {key: answer[key] for key in ("wall", "cpu", "import") if key in answer} | {"report": answer}


class Failed(Exception):
    """A command that is measured did not succeed."""


def parsed(text):
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
        return answer if isinstance(answer, dict) else {}
    return {}


SUBFILE, TILE_BYTES, STRIP_BYTES, SUBDIRECTORIES = 254, 325, 279, 330
LETTERS = {3: "H", 4: "I", 16: "Q", 13: "I", 18: "Q"}


def overview_bytes(path):
    """Compressed bytes of all overviews of a TIFF."""
    with open(path, "rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
        unpack = lambda form: struct.unpack(order + form, file.read(struct.calcsize(order + form)))  # noqa: E731
        big = unpack("H")[0] == 43
        if big:
            unpack("HH")
        word, entry, size = ("Q", "HHQ", 8) if big else ("I", "HHI", 4)
        pending, seen, total = [unpack(word)[0]], set(), 0
        while pending:
            start = pending.pop()
            if start == 0 or start in seen:
                continue
            seen.add(start)
            file.seek(start)
            tags = {}
            for _ in range(unpack("Q" if big else "H")[0]):
                tag, kind, count = unpack(entry)
                tags[tag] = (kind, count, file.read(size))
            pending.append(unpack(word)[0])

            def values(tag):
                kind, count, field = tags.get(tag, (4, 0, b""))
                form = f"{order}{count}{LETTERS.get(kind, 'I')}"
                if struct.calcsize(form) > size:
                    file.seek(struct.unpack(order + word, field)[0])
                    field = file.read(struct.calcsize(form))
                return struct.unpack_from(form, field)

            pending += values(SUBDIRECTORIES)
            if values(SUBFILE)[:1] and values(SUBFILE)[0] & 1:
                total += sum(values(TILE_BYTES)) + sum(values(STRIP_BYTES))
    return total


# Who is measured


def geoworker(source, output, codec, level, warp, *more):
    command = [str(BINARY), "--json", "--data-dir", str(output.parent / "tmp" / "data"), "cog", str(source), str(output), "--compression", codec]
    command += ["--level", str(level)] if level else []
    command += ["--quality", str(QUALITY)] if codec == "jpeg" else []
    command += ["--target-crs", TARGET_CRS, "--resampling", "bilinear"] if warp else []
    return [*command, *more]


def gdal_options(codec):
    options = {"COMPRESS": codec.upper(), "NUM_THREADS": "ALL_CPUS", "OVERVIEWS": "IGNORE_EXISTING", "OVERVIEW_RESAMPLING": "AVERAGE",
               "BLOCKSIZE": BLOCK, "BIGTIFF": "IF_SAFER"}
    if codec in ("deflate", "zstd", "lzw"):
        options |= {"PREDICTOR": "YES", "OVERVIEW_PREDICTOR": "YES"}
    if codec == "jpeg":
        options |= {"QUALITY": QUALITY, "OVERVIEW_QUALITY": QUALITY}
    return options


def gdal(source, output, case, codec):
    program = ["gdal_translate", "-q", "-of", "COG"]
    if case in WARPS:
        program = ["gdalwarp", "-q", "-of", "COG", "-t_srs", TARGET_CRS, "-r", "bilinear", "-multi", "-wo", "NUM_THREADS=ALL_CPUS"]
        # The COG driver's own warp adds alpha where nothing else would say what is empty; gdalwarp does so when it is told to.
        program += [] if "nodata" in MAKERS[WARPS[case]][-1] else ["-dstalpha"]
    options = [part for key, value in gdal_options(codec).items() for part in ("-co", f"{key}={value}")]
    return [*program, *options, str(source), str(output)]


def newest_gdal(python, source, output, codec, warp):
    options = gdal_options(codec) | ({"TARGET_SRS": TARGET_CRS, "WARP_RESAMPLING": "BILINEAR"} if warp else {})
    return [python, __file__, "--copy", str(source), str(output), json.dumps(options)]


def copy_with_rasterio(source, output, options):
    """The COG driver of the GDAL in rasterio's wheel; what it took, without the start of Python."""
    started = time.monotonic()
    import rasterio
    import rasterio.shutil

    imported, before = time.monotonic(), own_cpu()
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
        rasterio.shutil.copy(source, output, driver="COG", **json.loads(options))
    print(json.dumps({"wall": time.monotonic() - imported, "cpu": own_cpu() - before, "import": imported - started}))


def own_cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def vips(source, output, case, codec):
    predictor = {"predictor": "float" if case == "dem" else "horizontal"} if codec in ("deflate", "zstd", "lzw") else {}
    level = {"level": GDAL_LEVEL[codec]} if codec in GDAL_LEVEL else {}
    quality = {"Q": QUALITY} if codec == "jpeg" else {}
    options = {"compression": codec, "tile-width": BLOCK, "tile-height": BLOCK, "region-shrink": "mean"} | predictor | level | quality
    return ["vips", "tiffsave", str(source), str(output), "--tile", "--pyramid", *(f"--{key}={value}" for key, value in options.items())]


def contestants(case, codec, source, output, newest):
    """{name: (command, environment)} of a case."""
    warp = case in WARPS
    found = {AUTO: (geoworker(source, output, codec, None, warp), {})}
    if codec in GDAL_LEVEL:
        found[LEVEL] = (geoworker(source, output, codec, GDAL_LEVEL[codec], warp), {})
    if shutil.which("gdalwarp" if warp else "gdal_translate"):
        command = gdal(source, output, case, codec)
        found |= {SYSTEM: (command, {}), TUNED: (command, {"GDAL_CACHEMAX": "64"})}
    if newest:
        found[NEWEST] = (newest_gdal(newest, source, output, codec, warp), {})
    if shutil.which("vips") and not warp:
        found[VIPS] = (vips(source, output, case, codec), {})
    return found


def possible(case, codec):
    """JPEG is for pictures; warping is measured where its own share can be seen."""
    if case in WARPS:
        return codec in WARP_CODECS
    return codec != "jpeg" or case in JPEG_CASES


# The table


def middle(runs):
    """Medians of what was measured; the last report."""
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0] if isinstance(runs[0][key], (int, float))}
    return found | {"report": runs[-1]["report"]}


def compare(arguments, work, outputs):
    results = {}
    print(f"\n{'':26} {'wall s':>8} {'cpu s':>8} {'encode s':>9} {'peak MB':>8} {'temp MB':>8} {'size MB':>9} {'size':>7} "
          f"{'auto ×':>7} {'level ×':>8}")
    for case in arguments.cases:
        raster = WARPS.get(case, case)
        edge = EDGES[raster] // SCALES[arguments.scale]
        source = ready(raster, work, edge, edge)
        for codec in [codec for codec in arguments.codecs if possible(case, codec)]:
            runs = run_case(arguments, case, codec, source, outputs)
            results[f"{case} {codec}"] = {name: middle(found) for name, found in runs.items()} | {"load": os.getloadavg()[0]}
            print_case(f"{case} {codec}", results[f"{case} {codec}"])
        if arguments.tight:
            source.unlink()
    return results


def run_case(arguments, case, codec, source, outputs):
    output = outputs / "run" / "output.tif"
    commands = contestants(case, codec, source, output, arguments.newest_python)
    runs = {}
    for _ in range(arguments.rounds):
        for name, (command, environment) in list(commands.items()):
            try:
                runs.setdefault(name, []).append(measure(command, output.parent, output, environment))
            except Failed as failure:
                print(f"FAILED: {name}, {case} {codec}: {failure}", flush=True)
                runs.pop(name, None)
                del commands[name]
    shutil.rmtree(output.parent, ignore_errors=True)
    return runs


def figures(cell):
    """The contestants of a case, without what is known about the case as a whole."""
    return {name: run for name, run in cell.items() if isinstance(run, dict)}


def print_case(title, cell):
    print(title)
    size = cell.get(SYSTEM, cell.get(NEWEST, cell.get(AUTO, {}))).get("size", math.nan)
    ours, same = (cell.get(name, {}).get("wall", math.nan) for name in (AUTO, LEVEL))
    for name, run in figures(cell).items():
        encode = f"{run['encode']:9.2f}" if run.get("encode") is not None else f"{'':9}"
        print(f"  {name:24} {run['wall']:8.2f} {run['cpu']:8.2f} {encode} {run['memory'] / 1e6:8.0f} {run['temporary'] / 1e6:8.1f} "
              f"{run['size'] / 1e6:9.1f} {run['size'] / size:7.3f} {run['wall'] / ours:7.2f} {run['wall'] / same:8.2f}", flush=True)


# What was aimed at


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values)) if values else math.nan


def factors(results, ours, theirs, time="wall", cases=lambda name: True):
    """{case: how many times faster}; where the level makes no difference, there is only one run of ours."""
    found = {}
    for name, cell in results.items():
        mine = cell.get(ours) or cell.get(AUTO)
        if cases(name) and mine and theirs in cell and mine.get(time):
            found[name] = cell[theirs]["wall"] / mine[time]
    return found


def summary(results):
    plain = lambda name: name.split()[0] not in WARPS  # noqa: E731
    print(f"\n{'geometric mean, times faster than':44} {'wall':>7} {'encode':>7}")
    for ours in (AUTO, LEVEL):
        for theirs in (SYSTEM, TUNED, NEWEST, VIPS):
            means = [geometric_mean(factors(results, ours, theirs, time, plain).values()) for time in ("wall", "encode")]
            if not math.isnan(means[0]):
                print(f"  {ours:23}: {theirs:18} {means[0]:7.2f} {means[1]:7.2f}")
    print("\naims (wall time; the same by time of encoding in brackets)")
    judged = [*aims_of_time(results, plain), *aims_of_resources(results)]
    for text, reached in judged:
        print(f"  {verdict(reached):4} {text}")
    return {text: reached for text, reached in judged}


def verdict(reached):
    return "?" if reached is None else "yes" if reached else "NO"


def least(results, ours, theirs, wanted, cases):
    """Text and verdict on the worst case; `wanted` answers the least factor of a case."""
    walls, encodes = (factors(results, ours, theirs, time, cases) for time in ("wall", "encode"))
    if not walls:
        return "nothing measured", None
    worst = min(walls, key=lambda name: walls[name] / wanted(name))
    missed = [name for name in walls if walls[name] < wanted(name)]
    text = f"least {walls[worst]:.2f} of {wanted(worst)} ({worst})"
    if worst in encodes:
        text += f" [{encodes[worst]:.2f}]"
    return text + missing(missed, walls), not missed


def same_level_factor(name):
    case, codec = name.split()
    return LEAST_SAME_LEVEL.get(codec) or LEAST_SAME_LEVEL.get(case) or LEAST_SAME_LEVEL[""]


def aims_of_time(results, plain):
    warped = lambda name: not plain(name)  # noqa: E731
    for theirs, wanted in ((SYSTEM, same_level_factor), (NEWEST, lambda name: LEAST_SAME_LEVEL_NEWEST)):
        text, reached = least(results, LEVEL, theirs, wanted, plain)
        yield f"same codec and level, {theirs}: {text}", reached
    for theirs, wanted in ((SYSTEM, LEAST_AUTO), (NEWEST, LEAST_AUTO_NEWEST)):
        mean, encode = (geometric_mean(factors(results, AUTO, theirs, time, plain).values()) for time in ("wall", "encode"))
        yield f"auto, {theirs}: geometric mean {mean:.2f} of {wanted} [{encode:.2f}]", None if math.isnan(mean) else mean >= wanted
    text, reached = least(results, AUTO, SYSTEM, lambda name: LEAST_AUTO_EVER, plain)
    yield f"auto, {SYSTEM}, every case: {text}", reached
    text, reached = least(results, AUTO, VIPS, lambda name: 1.0, plain)
    yield f"auto, {VIPS}, every case: {text}", reached
    text, reached = least(results, AUTO, SYSTEM, lambda name: LEAST_WARP, warped)
    yield f"warping, gdalwarp of the system: {text}", reached


def aims_of_resources(results):
    for what, limit, ratio in (
        ("auto, size of GDAL's", LARGEST_AUTO, lambda cell: cell[AUTO]["size"] / cell[SYSTEM]["size"]),
        ("peak memory, of GDAL's default", MOST_MEMORY, lambda cell: cell[AUTO]["memory"] / cell[SYSTEM]["memory"]),
        ("peak memory, of GDAL with 64 MB", 1.0, lambda cell: cell[AUTO]["memory"] / cell[TUNED]["memory"]),
    ):
        found = {name: ratio(cell) for name, cell in results.items() if AUTO in cell and SYSTEM in cell and TUNED in cell}
        yield at_most(what, found, limit)
    disk = {name: cell[AUTO]["temporary"] / max(cell[AUTO]["overviews"], NEXT_TO_NOTHING) for name, cell in results.items() if AUTO in cell}
    yield at_most("temporary disk, of the compressed overviews", disk, 1.0)
    nothing = [cell[AUTO]["temporary"] <= NEXT_TO_NOTHING for cell in results.values() if AUTO in cell]
    yield f"temporary disk 0 in {sum(nothing)} of {len(nothing)} cases", all(nothing) if nothing else None


def at_most(what, found, limit):
    if not found:
        return f"{what}: nothing measured", None
    worst = max(found, key=found.get)
    missed = [name for name, value in found.items() if value > limit]
    return f"{what}: at most {found[worst]:.3f} of {limit} ({worst})" + missing(missed, found), not missed


def missing(missed, cases):
    if not missed:
        return ""
    return f"; missed in {len(missed)} of {len(cases)}" + (f": {', '.join(missed)}" if len(missed) < len(cases) else "")


# Growth, limit, and one that is huge


def growth(arguments, work, outputs):
    """1, 4 and 16 times the pixels, once by more rows, once by larger squares."""
    base = 4096 // SCALES[arguments.scale]
    judged, measured = {}, {}
    print(f"\n{'growth, rgb deflate':34} {'wall s':>8} {'encode s':>9} {'time ×':>7} {'cpu ×':>7} {'peak MB':>8}")
    shapes = {"more rows": [(base, base * factor) for factor in (1, 4, 16)], "squares": [(base * factor, base * factor) for factor in (1, 2, 4)]}
    for shape, sizes in shapes.items():
        runs = measured[shape] = grown(arguments, work, outputs, sizes)
        first = runs[0]
        for (width, height), run in zip(sizes, runs):
            print(f"  {shape:10} {width:>7} × {height:<12} {run['wall']:8.2f} {run['encode']:9.2f} {run['encode'] / first['encode']:7.2f} "
                  f"{run['cpu'] / first['cpu']:7.2f} {run['memory'] / 1e6:8.0f}", flush=True)
        pixels = [width * height / (base * base) for width, height in sizes]
        times = [run["encode"] / first["encode"] / factor for run, factor in zip(runs, pixels)]
        judged[f"{shape}: time per pixel within {GROWTH_TOLERANCE:.0%}"] = all(abs(ratio - 1) <= GROWTH_TOLERANCE for ratio in times)
        # By the project's rule memory may grow with the columns and with nothing else.
        allowed = [max(first["memory"] * (1 + GROWTH_TOLERANCE), most_memory(width) if shape == "squares" else 0) for width, _ in sizes]
        judged[f"{shape}: memory bounded"] = all(run["memory"] <= most for run, most in zip(runs, allowed))
    for text, reached in judged.items():
        print(f"  {verdict(reached):4} {text}")
    return {"runs": measured, "aims": judged}


def most_memory(width, bytes_per_pixel=3):
    return 3 * width * BLOCK * bytes_per_pixel + (128 << 20)


def grown(arguments, work, outputs, sizes):
    output = outputs / "run" / "output.tif"
    sources = [ready("rgb", work, width, height) for width, height in sizes]
    runs = [[] for _ in sizes]
    for _ in range(arguments.rounds):
        for source, found in zip(sources, runs):
            found.append(measure(geoworker(source, output, "deflate", GDAL_LEVEL["deflate"], False), output.parent, output, {}))
    shutil.rmtree(output.parent, ignore_errors=True)
    return [middle(found) for found in runs]


def limit(arguments, work, outputs):
    """The whole, in parts of the larger of reading alone and compressing alone."""
    print("\nshare of the physical limit: whole / larger of reading alone and compressing alone")
    judged = {}
    output = outputs / "run" / "output.tif"
    for case in [case for case in arguments.cases if case not in WARPS]:
        edge = EDGES[case] // SCALES[arguments.scale]
        source = ready(case, work, edge, edge)
        for codec in [codec for codec in arguments.codecs if possible(case, codec)]:
            runs = [measure(geoworker(source, output, codec, None, False), output.parent, output, {}) for _ in range(arguments.rounds)]
            share = limit_share(runs)
            if share is None:
                print(f"SKIPPED: the report of geoworker cog has no {' and '.join(LIMIT_FIELDS)}")
                return judged
            judged[f"{case} {codec}"] = share <= MOST_OF_LIMIT
            print(f"  {verdict(share <= MOST_OF_LIMIT):4} {case} {codec}: {share:.2f} of {MOST_OF_LIMIT}", flush=True)
    return judged


def limit_share(runs):
    """Median over runs; none where the report does not say what reading and compressing alone take."""
    shares = []
    for run in runs:
        report = run["report"]
        if any(field not in report for field in LIMIT_FIELDS):
            return None
        shares.append(report["encode_ms"] / max(1, *(report[field] for field in LIMIT_FIELDS)))
    return statistics.median(shares)


ASCII, SHORT, LONG, LONG8, DOUBLE = 2, 3, 4, 16, 12
DEFLATE = 8
DIFFERENT_TILES = 16


def make_huge(path, edge):
    """A tiled raster that refers to the same few noisy tiles again and again: gigabytes for who reads it, not on disk."""
    chance = random.Random(5)
    slopes = [bytes((x // 7 + y // 5) % 160 for x in range(BLOCK)) for y in range(BLOCK)]
    tiles = []
    for _ in range(DIFFERENT_TILES):
        grain = [bytes(byte & 15 for byte in chance.randbytes(BLOCK)) for _ in range(BLOCK)]
        tiles.append(zlib.compress(b"".join(bytes(map(int.__add__, *rows)) for rows in zip(slopes, grain)), 1))
    offsets = [16 + sum(map(len, tiles[:number])) for number in range(len(tiles))]
    across = -(-edge // BLOCK)
    chosen = [chance.randrange(len(tiles)) for _ in range(across * across)]
    write_tiff(path, b"".join(tiles), {
        256: (LONG, [edge]), 257: (LONG, [edge]), 258: (SHORT, [8]), 259: (SHORT, [DEFLATE]), 262: (SHORT, [1]), 277: (SHORT, [1]),
        322: (LONG, [BLOCK]), 323: (LONG, [BLOCK]), 324: (LONG8, [offsets[tile] for tile in chosen]),
        325: (LONG8, [len(tiles[tile]) for tile in chosen]), 33550: (DOUBLE, [10.0, 10.0, 0.0]),
        33922: (DOUBLE, [0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0]),
        34735: (SHORT, [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633]),
    })


def write_tiff(path, content, tags):
    """A BigTIFF with one directory behind its content, which begins at offset 16."""
    letters = {SHORT: "H", LONG: "I", LONG8: "Q", DOUBLE: "d"}
    directory, beyond = b"", b""
    start = 16 + len(content)
    after = start + 8 + 20 * len(tags) + 8
    for tag, (kind, values) in sorted(tags.items()):
        field = struct.pack(f"<{len(values)}{letters[kind]}", *values)
        if len(field) > 8:
            beyond, field = beyond + field, struct.pack("<Q", after + len(beyond))
        directory += struct.pack("<HHQ", tag, kind, len(values)) + field.ljust(8, b"\0")
    whole = struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) + content + struct.pack("<Q", len(tags)) + directory + struct.pack("<Q", 0) + beyond
    pathlib.Path(path).write_bytes(whole)


def huge(arguments, work, outputs):
    """A raster that is larger than the memory, beside a worker whose leases must hold."""
    edge = HUGE_EDGE // SCALES[arguments.scale]
    source, output = work / f"huge-{edge}.tif", outputs / "run" / "output.tif"
    if not source.exists():
        make_huge(source, edge)
    print(f"\n{edge} × {edge} bytes from a source of {source.stat().st_size / 1e6:.1f} MB, --memory {HUGE_MEMORY}")
    if not supports("--memory"):
        print("SKIPPED: geoworker cog has no --memory")
        return {}
    picture = ready("rgb", work, BESIDE_EDGE, BESIDE_EDGE)
    with Worker(outputs / "worker", picture) as worker:
        run = measure(geoworker(source, output, "deflate", None, False, "--memory", HUGE_MEMORY), output.parent, output, {})
    shutil.rmtree(output.parent, ignore_errors=True)
    print(f"       wall {run['wall']:.1f} s, encode {run['encode']:.1f} s, cpu {run['cpu']:.1f} s, peak {run['memory'] / 1e6:.0f} MB, "
          f"temp {run['temporary'] / 1e6:.1f} MB, {run['size'] / 1e6:.0f} MB")
    judged = {
        f"memory at most {HUGE_MEMORY}": run["memory"] <= int(HUGE_MEMORY.removesuffix("M")) << 20,
        f"a worker beside it kept its leases of {LEASE_SECONDS} s in {worker.tasks} tasks": worker.tasks > 0 and not worker.lost,
    }
    for text, reached in judged.items():
        print(f"  {verdict(reached):4} {text}")
    return judged


class Worker:
    """A server that makes COGs of a picture, one after the other, until it is told to end. A task whose lease ran out has a
    second attempt."""

    def __init__(self, folder, picture):
        self.folder, self.picture = folder, picture
        self.over = threading.Event()
        self.tasks = self.lost = 0
        self.thread = threading.Thread(target=self.submit, daemon=True)

    def run(self, *arguments):
        command = [str(BINARY), "--json", "--data-dir", str(self.folder / "data"), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment(), cwd=self.folder, capture_output=True, text=True)
        return json.loads(done.stdout or "null")

    def environment(self):
        return os.environ | {"GEOWORKER_LEASE_SECONDS": str(LEASE_SECONDS), "GEOWORKER_SWEEP_SECONDS": "1", "GEOWORKER_SLOTS": "1",
                             "GEOWORKER_PLUGINS": str(ROOT / "plugins/dist")}

    def __enter__(self):
        self.folder.mkdir(parents=True)
        self.run("blobs", "put", self.picture, "bronze/in/picture.tif")
        command = [str(BINARY), "--data-dir", str(self.folder / "data"), "serve"]
        self.log = open(self.folder / "log", "w")
        self.server = subprocess.Popen(command, env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.thread.start()
        return self

    def submit(self):
        for number in range(1_000_000):
            answer = self.run("submit", "process_raster", "--param", "container_name=in", "--param", "blob_name=picture.tif",
                              "--param", f"output_folder=out/{number}", "--wait")
            job = self.run("jobs", "show", answer["job_id"]) if answer and "job_id" in answer else {"tasks": []}
            self.tasks += len(job["tasks"])
            self.lost += sum(task["attempt"] > 1 for task in job["tasks"])
            if self.over.is_set() or not job["tasks"]:
                return

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.server.terminate()
        self.server.wait()
        self.log.close()


def supports(option):
    """Whether geoworker cog has an option."""
    said = subprocess.run([str(BINARY), "cog", "--help"], capture_output=True, text=True).stdout
    return any(word.rstrip(",") == option for word in said.split())


# Running


def first_line(command):
    if not shutil.which(command[0]):
        return "SKIPPED: not installed"
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[0]


def say_versions(arguments):
    processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown processor")
    print(f"{os.cpu_count()} cores, {processor}, load {os.getloadavg()[0]:.1f}; scale {arguments.scale}, "
          f"medians of {arguments.rounds} interleaved round(s)")
    print(f"geoworker: {first_line([str(BINARY), '--version'])}")
    print(f"{SYSTEM}: {first_line(['gdal_translate', '--version'])}")
    print(f"{VIPS}: {first_line(['vips', '--version'])}")
    if arguments.newest_python:
        said = first_line([arguments.newest_python, "-c", "import rasterio as r; print(f'{r.__gdal_version__} in rasterio {r.__version__}')"])
        print(f"{NEWEST}: {said}", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    cases = [*EDGES, *WARPS]
    parser.add_argument("--scale", choices=SCALES, default="full", help="small: a quarter of every edge")
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=CODECS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=pathlib.Path, help="folder of the rasters; they stay there (default: a temporary one)")
    parser.add_argument("--outputs", type=pathlib.Path, help="folder of outputs and all that is temporary, as /dev/shm (default: in --work)")
    parser.add_argument("--newest-python", default=None, help="a Python with the newest rasterio (default: the one that makes the rasters)")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--tight", action="store_true", help="remove every raster after its case")
    parser.add_argument("--growth", action="store_true", help="only: 1, 4 and 16 times the pixels")
    parser.add_argument("--limit", action="store_true", help="only: the share of the physical limit")
    parser.add_argument("--huge", action="store_true", help=f"only: {HUGE_EDGE} × {HUGE_EDGE} pixels in {HUGE_MEMORY} of memory")
    parser.add_argument("--make", nargs=4, metavar=("NAME", "PATH", "WIDTH", "HEIGHT"), help=argparse.SUPPRESS)
    parser.add_argument("--copy", nargs=3, metavar=("SOURCE", "TARGET", "OPTIONS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_all(arguments, work, outputs):
    special = {"growth": growth, "limit": limit, "huge": huge}
    chosen = [name for name in special if getattr(arguments, name)]
    results = {name: special[name](arguments, work, outputs) for name in chosen}
    if not chosen:
        cells = compare(arguments, work, outputs)
        results = {"cases": cells, "aims": summary(cells)}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


def main():
    arguments = parse()
    if arguments.make:
        name, path, width, height = arguments.make
        return make_raster(name, path, int(width), int(height))
    if arguments.copy:
        return copy_with_rasterio(*arguments.copy)
    if not BINARY.exists():
        sys.exit(f"{BINARY.relative_to(ROOT)} is not built")
    arguments.newest_python = arguments.newest_python or python_with_rasterio()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say_versions(arguments)
    with contextlib.ExitStack() as stack:
        work = arguments.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geoworker-bench-")))
        work.mkdir(parents=True, exist_ok=True)
        # A folder of this run's own, so that two runs do not measure each other's files.
        outputs = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outputs-", dir=arguments.outputs or work)))
        run_all(arguments, work.resolve(), outputs.resolve())


if __name__ == "__main__":
    main()
