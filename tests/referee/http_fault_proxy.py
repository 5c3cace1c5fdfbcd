"""A proxy on the loopback that does harm to HTTP requests as a blob service in trouble does.

The third request of one kind for one path has the same fate in every run with one seed, whatever else happens meanwhile."""

import asyncio
import collections
import dataclasses

from fault_proxy import PIECE, FaultProxy, draw


@dataclasses.dataclass
class HttpFaults:
    """Shares of requests that meet a fault; the first that matches, in this order."""

    # 503 with Retry-After, and nothing done.
    unavailable: float = 0.0
    # 500, and nothing done.
    error: float = 0.0
    # The connection is reset: of an upload in the middle of its body, else before the answer. Nothing done.
    reset: float = 0.0
    # Done, but the answer never comes: whoever asked cannot know.
    lost_answer: float = 0.0
    # Done, and the connection is reset in the middle of the answer's body.
    cut_answer: float = 0.0


class HttpFaultProxy(FaultProxy):
    """Forwards HTTP/1.1 to a port, one request after the other on each connection, with faults for some of them."""

    RETRY_AFTER_SECONDS = 1

    def __init__(self, target_port, seed=1, faults=None):
        super().__init__(target_port, seed)
        self.faults = faults or HttpFaults()
        # Seconds that each request waits for before it goes on.
        self.slowness = 0.0
        self.seen = collections.Counter()

    def fate(self, method, target):
        """Name of the fault that a request meets; none for most."""
        what = f"{method} {target.split('?')[0]} {operation(target)}"
        self.seen[what] += 1
        chance = draw(self.seed, what, self.seen[what])
        for fault in dataclasses.fields(self.faults):
            chance -= getattr(self.faults, fault.name)
            if chance < 0:
                self.counts[fault.name] += 1
                return fault.name
        return None

    async def forward(self, number, client, server):
        while (head := await read_head(client[0])) is not None:
            self.counts["request"] += 1
            method, target = head.first.split(" ")[:2]
            fate = self.fate(method, target)
            await self.wait_out_stall()
            await asyncio.sleep(self.slowness)
            if fate in ("unavailable", "error"):
                await refuse_request(head, client, 503 if fate == "unavailable" else 500, self.RETRY_AFTER_SECONDS)
                continue
            if fate == "reset":
                await send_half(head, client[0], server[1])
                raise ConnectionResetError
            if not await self._exchange(method, head, client, server, fate):
                return

    async def _exchange(self, method, head, client, server, fate):
        """One request and its answer; whether the connection goes on."""
        asked = asyncio.ensure_future(copy_message(head, client[0], server[1]))
        try:
            answer = await read_head(server[0])
            while answer is not None and answer.status() // 100 == 1:
                await write(client[1], answer.text())
                answer = await read_head(server[0])
            if answer is None or fate == "lost_answer":
                raise ConnectionResetError
            await self.wait_out_stall()
            body = answer.body(of_answer_to=method)
            if fate == "cut_answer":
                await send_half(answer, server[0], client[1])
                raise ConnectionResetError
            await copy_message(answer, server[0], client[1], body)
            if body == "close":
                return False
            await asked
        finally:
            asked.cancel()
        return "close" not in (head.header("connection"), answer.header("connection"))


class Head:
    """First line and headers of a message."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw.decode("latin-1").split("\r\n")
        self.first = lines[0]
        pairs = [line.split(":", 1) for line in lines[1:] if ":" in line]
        self.headers = {name.strip().lower(): value.strip() for name, value in pairs}

    def header(self, name):
        return self.headers.get(name, "").lower()

    def text(self):
        return self.raw

    def status(self):
        return int(self.first.split(" ")[1])

    def body(self, of_answer_to=None):
        """How the body ends: its length in bytes, "chunked", or "close"."""
        if of_answer_to is not None and (of_answer_to == "HEAD" or self.status() in (204, 304)):
            return 0
        if "chunked" in self.header("transfer-encoding"):
            return "chunked"
        if "content-length" in self.headers:
            return int(self.headers["content-length"])
        return 0 if of_answer_to is None else "close"


def operation(target):
    """What a request to a blob server is about, without what differs from upload to upload."""
    query = target.partition("?")[2].split("&")
    return "&".join(part for part in query if part.startswith(("comp=", "restype=")))


async def read_head(reader):
    """None at an orderly end."""
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


async def write(writer, data):
    writer.write(data)
    await writer.drain()


async def pieces(reader, body):
    """The bytes of a body as they are on the wire."""
    if body == "close":
        while piece := await reader.read(PIECE):
            yield piece
    elif body == "chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line
            async for piece in pieces(reader, size + 2):
                yield piece
            if size == 0:
                return
    else:
        while body > 0:
            piece = await reader.read(min(PIECE, body))
            if not piece:
                raise ConnectionResetError
            body -= len(piece)
            yield piece


async def copy_message(head, reader, writer, body=None):
    await write(writer, head.text())
    async for piece in pieces(reader, head.body() if body is None else body):
        await write(writer, piece)


async def send_half(head, reader, writer):
    """The head, and half of a body whose length is known."""
    length = head.headers.get("content-length", "0")
    await write(writer, head.text())
    async for piece in pieces(reader, int(length) // 2):
        await write(writer, piece)


async def refuse_request(head, client, status, retry_after):
    """Reads the request to its end and answers as the blob service does when it is busy or broken."""
    if "100-continue" in head.header("expect"):
        await write(client[1], b"HTTP/1.1 100 Continue\r\n\r\n")
    async for _ in pieces(client[0], head.body()):
        pass
    code, reason = {503: ("ServerBusy", "Service Unavailable"), 500: ("InternalError", "Internal Server Error")}[status]
    told = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>on request</Message></Error>'
    body = "" if head.first.startswith("HEAD ") else told
    lines = [
        f"HTTP/1.1 {status} {reason}", f"x-ms-error-code: {code}", "Content-Type: application/xml", f"Content-Length: {len(body)}",
        *([f"Retry-After: {retry_after}"] if status == 503 else []),
    ]
    await write(client[1], ("\r\n".join(lines) + "\r\n\r\n" + body).encode())
