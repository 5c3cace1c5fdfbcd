"""Files and names that somebody made on purpose: each is refused with a code, or done within its limits. Nothing is
published, no other file is read, no connection is opened, the server lives on."""

import contextlib
import json
import pathlib
import struct
import subprocess
import time
import uuid
import zlib

import numpy
import pytest
import rasterio

from helpers import (
    ASCII, FAST, GEOREFERENCE, LONG, LONG8, SHORT, Listener, alive, bigtiff, native_children, nothing_left, serving, shown, submit,
    submit_raster, task_of, until, wait_for, write_noise,
)
from judges import check_cog
from rasters import NORTH_UP, write

# What a crafted raster may end with. A crash or a lost answer is no refusal.
REFUSALS = {
    "FILE_UNREADABLE", "RASTER_BAND_INVALID", "RASTER_EMPTY", "RASTER_UNSUPPORTED", "RASTER_INVALID", "BOUNDS_SUSPICIOUS",
    "CRS_MISSING", "GDAL_ERROR", "MEMORY", "DISK_FULL", "FILE_TOO_LARGE",
}
SMALL_MEMORY = "256"
# A value that the honest pixels do not have.
CANARY_PIXEL = 213
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 277, 278, 279, 284, 322, 323, 324, 325
GDAL_METADATA = 42112
DEFLATE = 8


def most_attempts(code):
    """What is refused is not tried again; what lacked memory is, once, by a leaner plan."""
    return 2 if code == "MEMORY" else 1


class Trap:
    """A running server, and things outside its zones that must stay untouched."""

    def __init__(self, geoworker):
        self.geoworker = geoworker
        self.secret = f"canary{uuid.uuid4().hex}"
        self.listener = Listener()
        self.folder = geoworker.folder / "outside"
        self.folder.mkdir()
        self.text = self.folder / "canary.txt"
        self.text.write_text(f"{self.secret}\n" * 2000)
        self.raster = self._canary_raster()
        self.said = []

    def _canary_raster(self):
        """Half the size of the honest raster, so that it would pass for its overview."""
        path = write(self.folder / "canary.tif", height=300, width=350)
        with rasterio.open(path, "r+") as dataset:
            dataset.write(numpy.full((300, 350), CANARY_PIXEL, "uint8"), 1)
            dataset.update_tags(SECRET=self.secret)
            dataset.set_band_description(1, self.secret)
        return path

    def targets(self):
        """Every way to name something that is not the file itself."""
        url = self.listener.url
        # An ending may be all that a reader of URLs looks at.
        return [str(self.text), str(self.raster), "/etc/passwd", url(), f"/vsicurl/{url()}", f"/vsicurl/{url('x.none')}",
                f"/vsicurl_streaming/{url()}", f"/vsizip//vsicurl/{url('x.zip')}/canary.tif"]

    def put(self, content, name="crafted.tif"):
        """Lays a file, or bytes, into the bronze zone and answers the blob's name; the command would do the same slower."""
        folder = self.geoworker.zone("bronze") / "in"
        folder.mkdir(parents=True, exist_ok=True)
        blob = f"{uuid.uuid4().hex[:8]}-{name}"
        content = content.encode() if isinstance(content, str) else content
        (folder / blob).write_bytes(content if isinstance(content, bytes) else pathlib.Path(content).read_bytes())
        return blob

    def run(self, content, name="crafted.tif", **parameters):
        """Processes one raster and answers the job that is over."""
        return self.run_all({name: (content, parameters)})[name]

    def run_all(self, files, seconds=120):
        """Processes {name: (content or path, parameters)} beside each other and answers {name: job}."""
        jobs = {name: submit_raster(self.geoworker, self.put(content, name), **parameters) for name, (content, parameters) in files.items()}
        found = {}
        for name, job in jobs.items():
            wait_for(self.geoworker, job, seconds)
            found[name] = shown(self.geoworker, job, events=True)
        self.said += map(json.dumps, found.values())
        return found

    def refused(self, content, *codes, name="crafted.tif", **parameters):
        return self.all_refused({name: (content, parameters)}, *codes)[name]

    def all_refused(self, files, *codes):
        """Each ends without being tried in vain, with a code and one sentence; all that are wrong are named."""
        before = self.geoworker.published()
        found = self.run_all(files)
        wrong = {name: self._not_refused(job, codes or REFUSALS) for name, job in found.items()}
        assert not any(wrong.values()), json.dumps({name: why for name, why in wrong.items() if why}, indent=1)
        assert self.geoworker.published() == before
        return found

    @staticmethod
    def _not_refused(job, codes):
        if job["state"] != "failed":
            return f"it was accepted: {job['result']}"
        if job["error"]["code"] not in codes:
            return f"{job['error']}"
        if not job["error"]["message"] or "\n" in job["error"]["message"]:
            return f"not one sentence: {job['error']}"
        attempts = [task["attempt"] for task in job["tasks"]]
        return "" if max(attempts) <= most_attempts(job["error"]["code"]) else f"tried {attempts} times: {job['error']}"

    def check(self):
        """Nobody looked where nobody may look, and honest work is done as ever."""
        done = self.run(write(self.geoworker.folder / "honest.tif", height=64, width=64))
        assert done["state"] == "completed", done["error"]
        self.listener.close()
        assert self.listener.visitors == [], "a connection was opened"
        texts = {"the answers": "".join(self.said).encode()}
        texts |= {str(path): path.read_bytes() for path in self._everything_written()}
        passwords = pathlib.Path("/etc/passwd").read_bytes().splitlines()[0]
        for where, text in texts.items():
            assert self.secret.encode() not in text, f"the canary sings in {where}"
            assert passwords not in text, f"/etc/passwd is in {where}"
        assert nothing_left(self.geoworker, running=True)

    def _everything_written(self):
        folders = (self.geoworker.zone("silver"), self.geoworker.data / "scratch")
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        database = list(self.geoworker.data.glob("geoworker.db*"))
        return [*files, *database, self.geoworker.folder / "server.log"]


@pytest.fixture
def trap(make_geoworker):
    with trapped(make_geoworker(GEOWORKER_NATIVE_MEMORY_MB=SMALL_MEMORY, **FAST)) as trap:
        yield trap
        trap.check()


@contextlib.contextmanager
def trapped(geoworker):
    with serving(geoworker) as server:
        trap = Trap(geoworker)
        trap.server = server
        yield trap


# Files that name other files


def vrt(source):
    """Its pixels would be the bytes of whatever it names."""
    return f"""<VRTDataset rasterXSize="60" rasterYSize="60"><SRS>EPSG:32633</SRS>
<GeoTransform>500000,10,0,4600000,0,-10</GeoTransform>
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{source}</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>1</LineOffset></VRTRasterBand></VRTDataset>"""


def vrt_of_raster(source):
    return f"""<VRTDataset rasterXSize="60" rasterYSize="60"><SRS>EPSG:32633</SRS>
<GeoTransform>500000,10,0,4600000,0,-10</GeoTransform>
<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename>
<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def web_map(source):
    return f"""<GDAL_WMS><Service name="TMS"><ServerUrl>{source}</ServerUrl></Service><DataWindow><UpperLeftX>0</UpperLeftX>
<UpperLeftY>9</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>0</LowerRightY><SizeX>60</SizeX><SizeY>60</SizeY></DataWindow>
<Projection>EPSG:32633</Projection><BandsCount>1</BandsCount></GDAL_WMS>"""


def entity(source):
    return f"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "{source}">]><VRTDataset rasterXSize="1" rasterYSize="1">
<Metadata><MDI key="x">&x;</MDI></Metadata></VRTDataset>"""


@pytest.mark.parametrize("make", [vrt, vrt_of_raster, web_map, entity])
def test_descriptions_in_a_rasters_clothes(trap, make):
    contents = [make(target) for target in trap.targets()]
    files = {f"{number}.tif": (content, {}) for number, content in enumerate(contents)}
    trap.all_refused(files | {"honest_name.vrt": (contents[0], {})}, "FILE_UNREADABLE")


# Ways in which a TIFF's own metadata can name other files: domain, key and a form of the value.
REFERENCES = {
    "overview": ("OVERVIEWS", "OVERVIEW_FILE", "{}"),
    "overview_of_base": ("OVERVIEWS", "OVERVIEW_FILE", ":::BASE:::{}"),
    "mask": ("", "INTERNAL_MASK_FLAGS_1", "{}"),
    "geolocation": ("GEOLOCATION", "X_DATASET", "{}"),
    "subdataset": ("SUBDATASETS", "SUBDATASET_1_NAME", "{}"),
    "description": ("", "PROCESSED_FROM", "{}"),
    "vrt": ("xml:VRT", "", "<VRTDataset><SourceFilename>{}</SourceFilename></VRTDataset>"),
    "rpc": ("RPC", "RPC_DEM", "{}"),
}
# Those that a warp would look at.
PLACES = ["geolocation", "rpc"]
GEOLOCATION = {
    "Y_DATASET": "{}", "X_BAND": "1", "Y_BAND": "1", "PIXEL_OFFSET": "0", "LINE_OFFSET": "0", "PIXEL_STEP": "1", "LINE_STEP": "1",
    "SRS": "EPSG:4326",
}


def item(domain, key, value):
    attributes = f' name="{key}"' if key else ""
    attributes += f' domain="{domain}"' if domain else ""
    return f"<Item{attributes}>{value}</Item>"


def metadata(reference, target):
    domain, key, form = REFERENCES[reference]
    items = item(domain, key, form.format(target))
    if reference == "geolocation":
        items += "".join(item(domain, other, value.format(target)) for other, value in GEOLOCATION.items())
    return f"<GDALMetadata>{items}</GDALMetadata>\0".encode()


def referring(path, reference, target, georeferenced=True):
    """An honest raster of 700 by 600 zeros to 99, whose metadata name something else."""
    pixels = (numpy.add.outer(numpy.arange(600), numpy.arange(700)) % 100).astype("uint8").tobytes()
    tags = {
        WIDTH: (LONG, (700,)), HEIGHT: (LONG, (600,)), BITS: (SHORT, (8,)), COMPRESSION: (SHORT, (1,)), PHOTOMETRIC: (SHORT, (1,)),
        STRIP_OFFSETS: (LONG8, (16,)), SAMPLES: (SHORT, (1,)), ROWS_PER_STRIP: (LONG, (600,)), STRIP_BYTES: (LONG8, (len(pixels),)),
        GDAL_METADATA: (ASCII, metadata(reference, target)),
    }
    return bigtiff(path, tags | (GEOREFERENCE if georeferenced else {}), pixels)


@pytest.mark.parametrize("reference", REFERENCES)
def test_metadata_that_name_other_files(trap, reference):
    """Done or refused, but from the file's own pixels."""
    files = {}
    for number, target in enumerate(trap.targets()):
        path = referring(trap.geoworker.folder / f"{reference}{number}.tif", reference, target)
        files[f"{number}.tif"] = (path, {"output_folder": f"out/{number}"})
        if reference in PLACES:
            files[f"{number}_warped.tif"] = (path, {"output_folder": f"warped/{number}", "target_crs": "EPSG:4326"})
    for name, job in trap.run_all(files).items():
        if job["state"] != "completed":
            assert job["error"]["code"] in REFUSALS, f"{name}: {job['error']}"
            continue
        published = trap.geoworker.silver(job["result"]["cog"]["target"])
        check_cog(published)
        assert_honest_pixels(published)
        inspected = task_of(job, "validate_raster")["result"]["info"]
        assert inspected["overview_count"] == 0, f"{name}: another file passed for an overview"


def assert_honest_pixels(path):
    with rasterio.open(path) as cog:
        factors = [None, *cog.overviews(1)]
    for level in range(len(factors)):
        options = {} if level == 0 else {"overview_level": level - 1}
        with rasterio.open(path, **options) as cog:
            assert cog.read(1).max() < CANARY_PIXEL, f"pixels of another file are in level {level}"


@pytest.mark.parametrize("reference", PLACES)
def test_a_place_on_the_map_from_another_file(trap, reference):
    files = {}
    for number, target in enumerate(trap.targets()):
        path = referring(trap.geoworker.folder / f"place{number}.tif", reference, target, georeferenced=False)
        files[f"{number}.tif"] = (path, {"input_crs": "EPSG:32633", "target_crs": "EPSG:4326"})
    trap.all_refused(files)


def test_files_beside_a_raster_are_not_read(trap):
    """Sidecars are blobs of their own: somebody else may have put them there."""
    geoworker = trap.geoworker
    honest = referring(geoworker.folder / "beside.tif", "description", "nothing")
    folder = geoworker.zone("bronze") / "in"
    folder.mkdir(parents=True)
    (folder / "beside.tif").write_bytes(honest.read_bytes())
    overview = f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{trap.raster}</MDI></Metadata>' \
               f'<Metadata><MDI key="FROM_SIDECAR">{trap.secret}</MDI></Metadata></PAMDataset>'
    (folder / "beside.tif.aux.xml").write_text(overview)
    for suffix in ("tif.ovr", "tif.msk", "aux"):
        (folder / f"beside.{suffix}").write_bytes(pathlib.Path(trap.raster).read_bytes())
    (folder / "beside.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    job = wait_for(geoworker, submit_raster(geoworker, "beside.tif"))
    assert job["state"] == "completed", job["error"]
    trap.said.append(json.dumps(job))
    published = geoworker.silver(job["result"]["cog"]["target"])
    assert_honest_pixels(published)
    with rasterio.open(published) as cog:
        assert cog.transform.almost_equals(NORTH_UP), "the world file counted"
        assert cog.count == 1


# Sizes that are not


def claim(path, width, height, bands=1, tile=None, rows=None, compression=DEFLATE, blocks=1, block=None, bits=8):
    """A TIFF whose header claims what it likes; every block is the same few bytes."""
    content = zlib.compress(b"\0" * 4096) if block is None else block
    tags = {
        WIDTH: (LONG, (width,)), HEIGHT: (LONG, (height,)), BITS: (SHORT, (bits,) * min(bands, 60_000)), COMPRESSION: (SHORT, (compression,)),
        PHOTOMETRIC: (SHORT, (1,)), SAMPLES: (SHORT, (bands,)), PLANAR: (SHORT, (1,)),
    }
    if tile:
        tags |= {TILE_WIDTH: (LONG, (tile,)), TILE_HEIGHT: (LONG, (tile,)), TILE_OFFSETS: (LONG8, (16,) * blocks),
                 TILE_BYTES: (LONG8, (len(content),) * blocks)}
    else:
        tags |= {ROWS_PER_STRIP: (LONG, (rows or height,)), STRIP_OFFSETS: (LONG8, (16,) * blocks),
                 STRIP_BYTES: (LONG8, (len(content),) * blocks)}
    return bigtiff(path, tags | GEOREFERENCE, content)


HUGE = 2**31 - 1
ABSURD = {
    "tiles_of_512": dict(width=HUGE, height=HUGE, tile=512),
    "tiles_of_64k": dict(width=HUGE, height=HUGE, tile=65_536),
    "one_tile": dict(width=HUGE, height=HUGE, tile=2**31 - 16),
    "one_strip": dict(width=HUGE, height=HUGE),
    "strips_of_one_row": dict(width=HUGE, height=HUGE, rows=1),
    "beyond_signed": dict(width=2**32 - 1, height=2**32 - 1, tile=512),
    "one_long_row": dict(width=HUGE, height=1),
    "one_long_column": dict(width=1, height=HUGE, rows=1),
    "many_bands": dict(width=1000, height=1000, bands=65_535, tile=512),
    "no_width": dict(width=0, height=10),
    "no_bits": dict(width=100, height=100, bits=0),
    "many_bits": dict(width=100, height=100, bits=65_535),
    "uncompressed": dict(width=HUGE, height=HUGE, tile=65_536, compression=1),
}


def test_absurd_sizes(trap):
    files = {f"{name}.tif": (claim(trap.geoworker.folder / f"{name}.tif", **claims), {}) for name, claims in ABSURD.items()}
    started = time.monotonic()
    trap.all_refused(files)
    assert time.monotonic() - started < 90


def test_a_directory_that_is_its_own_successor(trap):
    path = claim(trap.geoworker.folder / "loop.tif", width=100, height=100)
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<Q", content, 8)[0]
    count = struct.unpack_from("<Q", content, start)[0]
    struct.pack_into("<Q", content, start + 8 + 20 * count, start)
    job = trap.run(bytes(content))
    assert job["state"] == "completed" or job["error"]["code"] in REFUSALS, job["error"]


# Bombs: small files, huge rasters


def zeros(edge):
    """A deflated block of zeros, one byte a pixel."""
    packer = zlib.compressobj(9)
    row = b"\0" * edge
    return b"".join(packer.compress(row) for _ in range(edge)) + packer.flush()


def bomb(path, edge, tile):
    """Every tile is the same block: a few hundred KB that expand to `edge` × `edge` bytes."""
    across = -(-edge // tile)
    return claim(path, edge, edge, tile=tile, blocks=across * across, block=zeros(tile))


def test_a_bomb_of_huge_blocks_ends_at_the_memory_limit(trap):
    """One block is already larger than the memory that the operation has."""
    path = bomb(trap.geoworker.folder / "bomb.tif", 200_000, 16_384)
    assert path.stat().st_size < 1 << 20
    trap.refused(path, "MEMORY")


def test_a_bomb_of_many_small_blocks_is_refused_or_bounded(trap):
    for tile in (4096, 512):
        refused_or_bounded(trap, bomb(trap.geoworker.folder / f"bomb{tile}.tif", 200_000, tile))


def test_a_bomb_of_holes_is_refused_or_bounded(trap):
    path = trap.geoworker.folder / "holes.tif"
    profile = dict(driver="GTiff", dtype="uint8", count=1, width=400_000, height=400_000, tiled=True, blockxsize=4096, blockysize=4096)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=NORTH_UP, compress="deflate", SPARSE_OK=True, bigtiff="yes", **profile):
        pass
    assert path.stat().st_size < 1 << 20
    refused_or_bounded(trap, path)


def refused_or_bounded(trap, path, seconds=15):
    """It is refused, or it is worked on within its memory, beside other work, until somebody ends it."""
    geoworker = trap.geoworker
    job = submit_raster(geoworker, trap.put(path))
    peak = watch(geoworker, trap.server, job, seconds)
    other = wait_for(geoworker, submit(geoworker, "hello_world", n=3))
    assert other["state"] == "completed"
    job_now = shown(geoworker, job)
    if not job_now["ended_at"]:
        geoworker.json("jobs", "cancel", job)
        job_now = wait_for(geoworker, job, 20)
    trap.said.append(json.dumps(shown(geoworker, job, events=True)))
    assert job_now["state"] in ("cancelled", "failed"), job_now["state"]
    assert job_now["state"] == "cancelled" or job_now["error"]["code"] in REFUSALS, job_now["error"]
    assert all(task["attempt"] <= most_attempts("MEMORY") for task in job_now["tasks"])
    until(lambda: not native_children(trap.server.pid), 10, "the end of the operation")
    assert geoworker.published() == []
    # Data memory is what is limited; code and file pages come on top.
    assert peak < (int(SMALL_MEMORY) + 100) << 20, f"the operation used {peak >> 20} MiB"


def watch(geoworker, server, job, seconds):
    """Largest resident size of the operations, until the job or the time is over."""
    peak = 0
    end = time.monotonic() + seconds
    over = False
    while not over and time.monotonic() < end:
        for child in native_children(server.pid):
            if alive(child):
                peak = max(peak, resident(child))
        over = bool(shown(geoworker, job)["ended_at"])
    return peak


def resident(pid):
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
    return 0


def png(width, height, content):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"


def jp2_header(width, height):
    size = struct.pack(">HHIIIIIIIIH", 41, 0, width, height, 0, 0, width, height, 0, 0, 1) + b"\x07\x01\x01"
    return CODESTREAM + size + b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x00" + b"\xff\x5c\x00\x13\x40" + b"\x40" * 16 + b"\xff\xd9"


def jpeg_header(width, height):
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


NOISE = numpy.random.default_rng(7).bytes(20_000)
WRONG = {
    "noise.jp2": JP2 + NOISE,
    "stream.jp2": CODESTREAM + NOISE,
    "claim.jp2": jp2_header(2**32 - 1, 2**32 - 1),
    "claim_less.jp2": jp2_header(200_000, 200_000),
    "cut.jp2": JP2,
    "noise.png": b"\x89PNG\r\n\x1a\n" + NOISE,
    "claim.png": png(HUGE, HUGE, zlib.compress(b"\0" * 100)),
    "nothing.png": png(0, 0, zlib.compress(b"")),
    "noise_inside.png": png(600, 600, NOISE),
    "bomb.png": png(1_000_000, 1_000_000, zlib.compress(b"\0" * (1 << 24))),
    "noise.jpg": b"\xff\xd8\xff" + NOISE,
    "claim.jpg": jpeg_header(65_500, 65_500),
    "cut.jpg": b"\xff\xd8\xff\xe0",
    "noise.tif": b"II*\0" + NOISE,
    "noise_big.tif": b"II+\0\x08\0\0\0" + NOISE,
    "noise_motorola.tif": b"MM\0*" + NOISE,
}


@pytest.mark.parametrize("told", ["EPSG:32633", None])
def test_the_right_beginning_and_the_wrong_rest(trap, told):
    trap.all_refused({name: (content, {"input_crs": told} if told else {}) for name, content in WRONG.items()})


def test_a_wrong_name_is_no_matter(trap):
    """The content says what it is; a PNG without a place on the map is refused for just that."""
    honest = write(trap.geoworker.folder / "honest_too.tif", height=64, width=64)
    assert trap.run(pathlib.Path(honest).read_bytes(), name="picture.png")["state"] == "completed"
    picture = png(8, 8, zlib.compress((b"\0" + bytes(range(8))) * 8))
    trap.refused(picture, "CRS_MISSING", "BOUNDS_SUSPICIOUS", name="picture.tif")


# Names


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("noise") / "noise.tif", edge=64, bands=1)


BAD_NAMES = [
    "..", "../../geoworker.db", "a/../../../outside/canary.tif", "/etc/passwd", "//etc/passwd", "a//b", "a/./b", "./a.tif", ".hidden", "",
    "/vsicurl/http://127.0.0.1:{port}/x.tif", "vsicurl/../../x", "/vsizip/a.zip/x.tif", "/vsimem/x.tif", "/vsistdin/", "/vsigzip//etc/passwd",
    "http://127.0.0.1:{port}/x.tif", "a\0b.tif", "a.tif\0", "a\nb.tif", "a\rb.tif", "a\x1b[31mb.tif", "a\\..\\b.tif", "C:\\x.tif", "a" * 1025,
    "a/", "\u202etif.exe/../x",
]


@pytest.mark.parametrize("key", ["blob_name", "container_name", "output_folder"])
def test_names_in_a_file_of_parameters(trap, noise, key):
    """As JSON, where a name can hold what no command line can."""
    geoworker = trap.geoworker
    honest = {"container_name": "in", "blob_name": trap.put(noise)}
    file = geoworker.folder / "parameters.json"
    for name in BAD_NAMES:
        file.write_text(json.dumps(honest | {key: name.format(port=trap.listener.port) if "{port}" in name else name}))
        if key == "output_folder" and is_plain_folder(name):
            continue
        error = geoworker.json("submit", "process_raster", "--params", file, code=2)["error"]
        trap.said.append(json.dumps(error))
        assert error["code"] in ("BLOB_NAME_INVALID", "PARAM_INVALID"), f"{name!r}: {error}"
        assert not any(character in error["message"] for character in "\0\n\r\x1b"), f"{name!r}: {error}"
        assert len(error["message"]) < 4000
    assert geoworker.published() == [] and geoworker.json("jobs") == []


def is_plain_folder(name):
    """An output folder may begin or end with a slash: those are taken off."""
    parts = name.strip("/").split("/")
    return all(part and not part.startswith(".") for part in parts) and name.isprintable() and len(name) < 512 \
        and not any(sign in name for sign in ":\\")


def test_names_in_other_places(trap, noise):
    """Ids that are parts of documents, not of paths: kept as text, or refused."""
    geoworker = trap.geoworker
    blob = trap.put(noise)
    file = geoworker.folder / "parameters.json"
    for number, text in enumerate(["../../../outside/canary", "/etc/passwd", "a\nb", '"},{"', f"http://127.0.0.1:{trap.listener.port}/x"]):
        for key in ("item_id", "collection_id"):
            file.write_text(json.dumps({"container_name": "in", "blob_name": blob, "output_folder": f"o/{number}/{key}", key: text}))
            answer = trap_submit(geoworker, file)
            if isinstance(answer, str):
                assert answer in ("PARAM_INVALID", "BLOB_NAME_INVALID"), answer
                continue
            job = wait_for(geoworker, answer["job_id"])
            assert job["state"] == "completed", job["error"]
            published = geoworker.silver(job["result"]["item"])
            document = json.loads(published.read_text())
            assert text == (document["id"] if key == "item_id" else document["collection"])
            assert published.resolve().is_relative_to(geoworker.zone("silver").resolve())
    assert sorted(path.name for path in trap.folder.iterdir()) == ["canary.tif", "canary.txt"]


def trap_submit(geoworker, file):
    """The accepted job, or the code of the refusal."""
    done = subprocess.run(
        geoworker.command("--json", "submit", "process_raster", "--params", file), env=geoworker.environment, cwd=geoworker.folder,
        capture_output=True, text=True, timeout=60,
    )
    answer = json.loads(done.stdout)
    return answer["error"]["code"] if done.returncode else answer


def test_a_link_out_of_the_zone_is_not_followed(trap):
    """Whoever can write into the zone's folder cannot lend the server's eyes."""
    geoworker = trap.geoworker
    folder = geoworker.zone("bronze") / "in"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link.tif").symlink_to(trap.raster)
    (folder / "folder").symlink_to(trap.folder)
    file = geoworker.folder / "parameters.json"
    for name in ("link.tif", "folder/canary.tif"):
        file.write_text(json.dumps({"container_name": "in", "blob_name": name}))
        answer = trap_submit(geoworker, file)
        if not isinstance(answer, str):
            job = wait_for(geoworker, answer["job_id"])
            trap.said.append(json.dumps(job))
            assert job["state"] == "failed", f"{name} was followed"
    assert geoworker.published() == []
