"""The proxies do the harm they are told to, and no other."""

import contextlib
import http.client
import http.server
import socket
import threading
import time

import pytest

from fault_proxy import FaultProxy, draw
from helpers import until
from http_fault_proxy import HttpFaultProxy, HttpFaults

HOST = "127.0.0.1"
LARGE = bytes(range(256)) * 8192


class Echo:
    """A TCP server that sends back what it gets."""

    def __init__(self):
        self.socket = socket.create_server((HOST, 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # Closing alone would leave it to who waits in accept.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection):
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                connection.sendall(data)


class Store(http.server.ThreadingHTTPServer):
    """Keeps what is put, and counts how often."""

    def __init__(self):
        super().__init__((HOST, 0), StoreHandler)
        self.daemon_threads = True
        self.port = self.server_address[1]
        self.kept = {}
        self.puts = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class StoreHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return
        self.server.kept[self.path] = body
        self.server.puts.append(self.path)
        self.answer(201, b"")

    def do_GET(self):
        body = self.server.kept.get(self.path.split("?")[0])
        if body is None:
            return self.answer(404, b"missing")
        if "chunked" not in self.path:
            return self.answer(200, body)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), 100_000):
            piece = body[start:start + 100_000]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def echo():
    server = Echo()
    yield server
    with contextlib.suppress(OSError):
        server.close()


@pytest.fixture
def store():
    server = Store()
    yield server
    server.shutdown()
    server.server_close()


def round_trip(port, data, seconds=10):
    with socket.create_connection((HOST, port), seconds) as connection:
        threading.Thread(target=suppressed, args=(connection.sendall, data), daemon=True).start()
        got = b""
        while len(got) < len(data):
            piece = connection.recv(65536)
            if not piece:
                break
            got += piece
        return got


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_without_faults_everything_goes_through(echo):
    with FaultProxy(echo.port) as proxy:
        assert round_trip(proxy.port, LARGE) == LARGE
        assert set(proxy.counts) == {"connection"}


def test_the_seed_alone_decides():
    assert draw(1, "a", 2) == draw(1, "a", 2)
    assert len({draw(seed, "a", 2) for seed in range(20)}) == 20
    draws = [draw(3, "connection", number) for number in range(2000)]
    assert 0.45 < sum(draws) / len(draws) < 0.55 and 0 <= min(draws) and max(draws) < 1


def fates(port, count):
    found = []
    for _ in range(count):
        try:
            found.append(len(round_trip(port, LARGE)) == len(LARGE))
        except ConnectionError:
            found.append(False)
    return found


def test_connections_are_reset_in_their_middle_and_the_same_ones_each_time(echo):
    runs = []
    for _ in range(2):
        with FaultProxy(echo.port, seed=5, resets=0.5) as proxy:
            runs.append(fates(proxy.port, 12))
            assert proxy.counts["reset"] == runs[-1].count(False)
    assert runs[0] == runs[1] and set(runs[0]) == {True, False}


def test_open_connections_can_be_reset(echo):
    with FaultProxy(echo.port) as proxy, socket.create_connection((HOST, proxy.port), 10) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        assert proxy.reset_all() == 2
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_refused_connections_are_accepted_again(echo):
    with FaultProxy(echo.port) as proxy:
        assert round_trip(proxy.port, b"before") == b"before"
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            round_trip(port, b"x")
        proxy.accept()
        assert round_trip(port, b"after") == b"after"
        proxy.refuse_for(0.3)
        with pytest.raises(ConnectionRefusedError):
            round_trip(port, b"x")
        assert until(lambda: suppressed(round_trip, port, b"by itself"), 5) == b"by itself"


def suppressed(what, *arguments):
    with contextlib.suppress(OSError):
        return what(*arguments)


def test_a_stall_delays_and_loses_nothing(echo):
    with FaultProxy(echo.port) as proxy:
        proxy.stall(0.5)
        started = time.monotonic()
        assert round_trip(proxy.port, LARGE) == LARGE
        assert time.monotonic() - started >= 0.5


def test_a_target_that_is_gone_looks_like_a_reset(echo):
    echo.close()
    with FaultProxy(echo.port) as proxy, pytest.raises(ConnectionError):
        with socket.create_connection((HOST, proxy.port), 10) as connection:
            connection.sendall(b"x")
            if not connection.recv(1):
                raise ConnectionResetError


def test_http_without_faults_goes_through_unchanged(store):
    with HttpFaultProxy(store.port) as proxy:
        connection = http.client.HTTPConnection(HOST, proxy.port, timeout=10)
        for method, path, body in [("PUT", "/a", LARGE), ("GET", "/a", None), ("HEAD", "/a", None), ("GET", "/a?chunked", None), ("GET", "/none", None)]:
            connection.request(method, path, body)
            answer = connection.getresponse()
            got = answer.read()
            assert (method, answer.status, got) in [
                ("PUT", 201, b""), ("GET", 200, LARGE), ("HEAD", 200, b""), ("GET", 404, b"missing")
            ]
        connection.close()
        assert proxy.counts == {"connection": 1, "request": 5}, "one connection did for all"


@pytest.mark.parametrize("fault, status, code", [("unavailable", 503, "ServerBusy"), ("error", 500, "InternalError")])
def test_a_refused_request_is_not_done(store, fault, status, code):
    with HttpFaultProxy(store.port, faults=HttpFaults(**{fault: 1.0})) as proxy:
        connection = http.client.HTTPConnection(HOST, proxy.port, timeout=10)
        for _ in range(2):
            connection.request("PUT", "/a", LARGE)
            answer = connection.getresponse()
            assert answer.status == status and answer.headers["x-ms-error-code"] == code and code.encode() in answer.read()
            assert answer.headers["Retry-After"] == ("1" if status == 503 else None)
        connection.request("HEAD", "/a")
        assert connection.getresponse().read() == b""
        connection.close()
    assert store.puts == []
    assert proxy.counts[fault] == 3 and proxy.counts["connection"] == 1


def test_an_upload_is_reset_in_its_middle_and_not_done(store):
    with HttpFaultProxy(store.port, faults=HttpFaults(reset=1.0)) as proxy:
        with pytest.raises(ConnectionError):
            ask(proxy.port, "PUT", "/a", LARGE)
    assert store.puts == []


def test_a_lost_answer_is_of_a_request_that_was_done(store):
    with HttpFaultProxy(store.port, faults=HttpFaults(lost_answer=1.0)) as proxy:
        with pytest.raises(ConnectionError):
            ask(proxy.port, "PUT", "/a", LARGE)
    assert store.puts == ["/a"] and store.kept["/a"] == LARGE


def test_an_answer_is_cut_in_its_middle(store):
    store.kept["/a"] = LARGE
    with HttpFaultProxy(store.port, faults=HttpFaults(cut_answer=1.0)) as proxy:
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            ask(proxy.port, "GET", "/a")


def test_a_slow_server_answers_in_the_end(store):
    with HttpFaultProxy(store.port) as proxy:
        proxy.slowness = 0.3
        started = time.monotonic()
        assert ask(proxy.port, "PUT", "/a", LARGE)[0] == 201
        assert time.monotonic() - started >= 0.3


def test_fates_of_requests_do_not_depend_on_others():
    faults = HttpFaults(unavailable=0.2, error=0.1, reset=0.1, lost_answer=0.1, cut_answer=0.1)
    one, other = HttpFaultProxy(1, seed=9, faults=faults), HttpFaultProxy(1, seed=9, faults=faults)
    targets = [f"/bronze/in/{number}.tif?comp=block&blockid={number}" for number in range(30)]
    first = {target: [one.fate("PUT", target) for _ in range(4)] for target in targets}
    for target in reversed(targets):
        other.fate("GET", target)
        found = [other.fate("PUT", target.replace("blockid=", "blockid=x")) for _ in range(4)]
        assert found == first[target]
    drawn = {fate for fates in first.values() for fate in fates}
    assert drawn == {None, "unavailable", "error", "reset", "lost_answer", "cut_answer"}
