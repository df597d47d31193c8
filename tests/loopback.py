"""A web server on loopback that can be set to behave badly."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Files by path, the requests ((path, Range header) in order), and misbehavior by path.

    A misbehavior is a function of the request's handler; it returns whether it has answered.
    """

    def __init__(self):
        self.files, self.requests, self.misbehave, self.etag = {}, [], {}, None
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.requests.append((self.path, self.headers.get("Range")))
                if not site.misbehave.get(self.path, lambda handler: False)(self):
                    site.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda request, address: None  # clients may hang up, some are killed
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, ranges=True, cut=None):
        """Send a file, or the requested part of it; only its first `cut` bytes, if given."""
        data = self.files.get(handler.path)
        if data is None:
            return send(handler, 404, b"")
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range", self.etag) == self.etag
        headers = {"ETag": self.etag} if self.etag else {}
        if not (wanted and ranges and same):
            return send(handler, 200, data, headers, cut)
        start = int(wanted[1])
        if start >= len(data):
            return send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return send(handler, 206, data[start:], headers, cut)


def send(handler, status, body, headers=None, cut=None):
    """Send an answer; with `cut`, announce all of the body and break off after so many bytes."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body[:cut])
    handler.close_connection = cut is not None
    return True
