"""A proxy on the loopback that does harm to TCP connections. Chances are drawn from a seed and from what is done, not from when."""

import asyncio
import collections
import contextlib
import hashlib
import socket
import struct
import threading
import time

HOST = "127.0.0.1"
PIECE = 64 << 10
# Seconds that a call into the proxy's thread may take.
CALL_SECONDS = 30
# A connection that is to be reset in its middle is after so many bytes at most.
MIDDLE_BYTES = 256 << 10
HEAD_BYTES = 64 << 10


def draw(seed, *what):
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *what))).encode()).digest()
    return int.from_bytes(digest[:8], "big") / (1 << 64)


class Doomed(Exception):
    """The connection has come as far as it may."""


class FaultProxy:
    """Forwards TCP to a port. `resets` is the share of connections that are reset in their middle.

    Methods are called from any thread; the proxy lives in one of its own."""

    def __init__(self, target_port, seed=1, resets=0.0):
        self.target_port = target_port
        self.seed = seed
        self.resets = resets
        self.port = 0
        # What was done, by name.
        self.counts = collections.Counter()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.server = None
        self.writers = set()
        self.stalled_until = 0.0

    def start(self):
        self.thread.start()
        self._call(self._listen())
        return self

    def stop(self):
        self._call(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CALL_SECONDS)
        self.loop.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # Harm on demand

    def reset_all(self):
        """Resets every connection that is open; answers how many."""
        return self._call(self._reset_all())

    def refuse(self):
        """Refuses connections, and resets those that are open, until `accept`."""
        self._call(self._refuse())

    def accept(self):
        self._call(self._listen())

    def refuse_for(self, seconds):
        """As `refuse`, and accepts again by itself."""
        self._call(self._refuse())
        self._soon(seconds, lambda: asyncio.ensure_future(self._listen(), loop=self.loop))

    def stall(self, seconds):
        """Connections stay open, and nothing goes through them."""
        self.counts["stall"] += 1
        self.stalled_until = time.monotonic() + seconds

    # Connections

    async def _listen(self):
        if self.server is None:
            self.server = await asyncio.start_server(self._serve, HOST, self.port, limit=HEAD_BYTES)
            self.port = self.server.sockets[0].getsockname()[1]

    async def _refuse(self):
        self.counts["refuse"] += 1
        if self.server:
            self.server.close()
            self.server = None
        await self._reset_all()

    async def _reset_all(self):
        open_writers = list(self.writers)
        for writer in open_writers:
            reset(writer)
        return len(open_writers)

    async def _close(self):
        if self.server:
            self.server.close()
        await self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        """One connection, until either side ends it."""
        self.counts["connection"] += 1
        number = self.counts["connection"]
        self.writers.add(writer)
        try:
            upstream = await asyncio.open_connection(HOST, self.target_port, limit=HEAD_BYTES)
        except OSError:
            self.writers.discard(writer)
            return reset(writer)
        self.writers.add(upstream[1])
        try:
            await self.forward(number, (reader, writer), upstream)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            # Cancelled is whoever is served while the proxy stops.
            reset(writer)
        finally:
            for each in (writer, upstream[1]):
                self.writers.discard(each)
                with contextlib.suppress(Exception):
                    each.close()

    async def forward(self, number, client, server):
        """Both directions at once. A doomed connection is reset after some of its bytes."""
        doomed = draw(self.seed, "connection", number) < self.resets
        left = [1 + int(draw(self.seed, "middle", number) * MIDDLE_BYTES)] if doomed else None
        ways = [asyncio.ensure_future(self._pump(*way, left)) for way in ((client[0], server[1]), (server[0], client[1]))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            for way in done:
                way.result()
        except Doomed:
            self.counts["reset"] += 1
            reset(client[1])
            reset(server[1])
        finally:
            for way in ways:
                way.cancel()

    async def _pump(self, reader, writer, left):
        while piece := await reader.read(PIECE):
            await self.wait_out_stall()
            if left is not None:
                left[0] -= len(piece)
                if left[0] <= 0:
                    raise Doomed
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def wait_out_stall(self):
        while (left := self.stalled_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    # The thread

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(CALL_SECONDS)

    def _soon(self, seconds, what):
        self.loop.call_soon_threadsafe(lambda: self.loop.call_later(seconds, what))


def reset(writer):
    """Ends a connection by RST: what was under way is lost."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
