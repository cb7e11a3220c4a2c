"""An HTTP server on this machine that can go wrong in the ways servers do, and remembers what it was asked."""
import email.utils
import http.server
import re
import threading


class File:
    """What an address leads to, and how badly. All faults are off unless given."""

    def __init__(self, data, etag='"1"', modified=1.7e9, ranges=True, head=True, length=True, fails=(), cut=0, cuts=0,
                 stall=False, slow=0, redirect=None, wrong=0, change_after=0, headers=()):
        self.data, self.etag, self.modified = data, etag, modified
        self.ranges, self.head = ranges, head    # whether ranges and HEAD are understood
        self.length = length                     # whether Content-Length is said (else the connection's end is the end)
        self.fails = list(fails)                 # statuses of the first answers
        self.cut, self.cuts = cut, cuts          # bytes after which answers are cut off, and how many answers (0: none)
        self.stall = stall                       # the answer stops after its first KiB
        self.slow = slow                         # bytes a second
        self.redirect = redirect
        self.wrong = wrong                       # bytes that Content-Length says too many
        self.change_after = change_after         # requests after which it is another (0: never)
        self.headers = list(headers)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        site = self.server.site
        with site.lock:
            site.asked.append((self.command, self.path, self.headers.get("Range"), dict(self.headers)))
            file = site.files.get(self.path)
            nth = sum(path == self.path for _, path, _, _ in site.asked)
            status = file.fails.pop(0) if file and file.fails else None
        if file is None:
            return self.refuse(404)
        if status:
            return self.refuse(status, file.headers)
        if file.redirect:
            return self.refuse(302, [("Location", file.redirect)])
        if self.command == "HEAD" and not file.head:
            return self.refuse(405)
        changed = 0 < file.change_after < nth
        etag = file.etag and (f'"{file.etag[1:-1]}-changed"' if changed else file.etag)
        if self.headers.get("If-Match") not in (None, etag):
            return self.refuse(412)
        self.send(file, etag)

    def refuse(self, status, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def part(self, file):
        """Status and span of the answer."""
        size = len(file.data)
        found = file.ranges and re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return 200, 0, size
        first, last = int(found[1]), int(found[2] or size - 1)
        return (416, 0, 0) if first >= size else (206, first, min(last + 1, size))

    def send(self, file, etag):
        status, start, end = self.part(file)
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        if file.modified:
            self.send_header("Last-Modified", email.utils.formatdate(file.modified, usegmt=True))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(file.data)}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(file.data)}")
        if file.length:
            self.send_header("Content-Length", str(end - start + file.wrong))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.send_body(file, file.data[start:end])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send_body(self, file, body):
        site = self.server.site
        with site.lock:
            cut = file.cuts > 0 and len(body) > file.cut
            file.cuts -= cut
        if cut:
            body = body[:file.cut]
        if file.stall:
            self.wfile.write(body[:1024])
            self.wfile.flush()
            site.over.wait()
        elif file.slow:
            for at in range(0, len(body), file.slow // 20):
                self.wfile.write(body[at:at + file.slow // 20])
                self.wfile.flush()
                site.over.wait(0.05)
        else:
            self.wfile.write(body)
        if cut or file.wrong or not file.length:
            self.wfile.flush()
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients go when they have enough."""


class Site:
    """files: path to File. Use as a context manager."""

    def __init__(self, files=None, handler=Handler):
        self.files = dict(files or {})
        self.asked = []  # (method, path, range, headers)
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.server = Server(("127.0.0.1", 0), handler)
        self.server.site = self
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def requests(self, path, method=None):
        with self.lock:
            return [one for one in self.asked if one[1] == path and method in (None, one[0])]

    def forget(self):
        with self.lock:
            self.asked.clear()
