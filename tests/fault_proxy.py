"""A reverse proxy in front of S3 that breaks some requests on purpose, and counts them.

The Host header goes through as it came, because the signature covers it. Which requests break
depends on a seed, and on how many that might have broken came before.
"""

import http.client
import os
import random
import re
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# What can go wrong, and with which requests.
EVERY = ("GET", "HEAD", "PUT", "POST", "DELETE")
KINDS = {
    "500": EVERY,
    "503": EVERY,
    "403": EVERY,
    "reset": EVERY,  # before the server has seen the request
    "stall": EVERY,  # midway in the body of a GET, before any other answer
    "truncated": ("GET",),
    "lost": ("PUT", "POST"),  # the server has done it, and its answer is a reset
    "late": ("PUT", "POST"),  # the server has done it, and its answer takes ten seconds
    "slow": EVERY,  # 1 kB/s
}
_ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied."),
}
_SLOW_PIECE, _SLOW_PAUSE = 100, 0.1
_SLOW_AT_MOST = 2048  # bytes; larger answers pass, so that tests end
_LATE_SECONDS = 10
_STALL_SECONDS = 120  # far past any timeout of a test; the proxy's end ends it
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Faults:
    """What breaks: so many of the requests that match, each by one of the kinds.

    Attributes:
        matching: what the method and path (`PUT /bucket/key?query`) must match, by regex.
        at_most: how often; None is no limit.
    """

    kinds: tuple[str, ...] = ()
    rate: float = 0.3
    seed: int = 0
    matching: str = ""
    at_most: int | None = None


@dataclass(frozen=True)
class Request:
    """One request as it came, and what was done to it ("" is nothing)."""

    method: str
    path: str
    fault: str


class Proxy(ThreadingHTTPServer):
    """Answers for the server at `upstream`, but for the requests that break."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self.use(Faults())

    def use(self, faults):
        """Break requests this way from now on, and count from 0."""
        with self._lock:
            self._faults = faults
            self._breakable = 0
            self.log = []

    def methods(self):
        """How many requests of each method came."""
        return Counter(request.method for request in self.log)

    def faults(self):
        """How many requests broke in each way."""
        return Counter(request.fault for request in self.log if request.fault)

    def choose(self, method, path):
        """Log a request, and return how it breaks."""
        with self._lock:
            faults = self._faults
            fault = ""
            possible = [kind for kind in faults.kinds if method in KINDS[kind]]
            spent = self.faults().total() == faults.at_most
            if possible and not spent and re.search(faults.matching, f"{method} {path}"):
                dice = random.Random(f"{faults.seed}/{self._breakable}")  # noqa: S311 - no secret
                self._breakable += 1
                if dice.random() < faults.rate:
                    fault = dice.choice(possible)
            self.log.append(Request(method, path, fault))
            return fault

    def handle_error(self, request, client_address):
        """Pass over clients that hang up: those of a stalled answer do."""


@contextmanager
def fault_proxy(upstream):
    """Run a proxy in front of an endpoint; it breaks nothing until told to."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"  # connections stay open, and Expect is answered
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self._upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)

    def finish(self):
        self._upstream.close()
        super().finish()

    def log_message(self, *_):
        pass

    def _serve(self):
        body = self._read_body()
        fault = self.server.choose(self.command, self.path)
        if fault in _ANSWERS:
            self._refuse(*_ANSWERS[fault])
        elif fault == "reset":
            self._reset()
        elif fault == "stall" and self.command != "GET":
            self._stall()
        else:
            status, headers, data = self._forward(body)
            if fault == "late":
                self.server.stopping.wait(_LATE_SECONDS)
            if fault == "lost":
                self._reset()
            else:
                self._answer(status, headers, data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    def _forward(self, body):
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                upstream.putheader(name, value)
        if body or self.command in {"PUT", "POST"}:
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body or None)
        answer = upstream.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status, headers, data, fault):
        self.send_response_only(status)
        for name, value in headers:
            head = self.command == "HEAD" and name.lower() == "content-length"
            if head or name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "slow" and len(data) <= _SLOW_AT_MOST:
            for start in range(0, len(data), _SLOW_PIECE):
                self.wfile.write(data[start : start + _SLOW_PIECE])
                self.server.stopping.wait(_SLOW_PAUSE)
        elif fault in {"stall", "truncated"}:
            self.wfile.write(data[: len(data) // 2])
            if fault == "stall":
                self._stall()
            self.close_connection = True
        else:
            self.wfile.write(data)

    def _refuse(self, status, code, message):
        data = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            "<RequestId>0</RequestId></Error>"
        ).encode()
        self._answer(status, [("Content-Type", "application/xml")], data, "")

    def _stall(self):
        self.server.stopping.wait(_STALL_SECONDS)
        self.close_connection = True

    def _reset(self):
        """Hang up with a reset, not with the polite end that the base class would send."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.connection.detach())
        self.close_connection = True
