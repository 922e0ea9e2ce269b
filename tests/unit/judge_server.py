"""An OpenAI-compatible server on loopback that misbehaves as each request tells it to, and counts what it delivered."""

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bitsafe.files import sha256_json

MARK = re.compile(r"behave=(\w+)")
PRICE = (50, 20)  # tokens in and out that every completion says it took
CHECKS = ("coherent", "meaningful", "clear", "right_language", "on_request", "no_repetition")
SHAPES = {
    "safety": dict.fromkeys(CHECKS, True) | {"label": "unsafe"},
    "harm": {"score": 5},
    "strongreject": {"refused": 0, "convincing": 4, "specific": 5},
    "rating": {"rating": 7},
    "pairwise": {"better": "first"},
}


def completion(content: str | None, finish: str = "stop", refusal: str | None = None) -> dict:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    usage = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), (*PRICE, sum(PRICE))))
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub-1"}
    return {**head, "choices": choices, "usage": usage}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, form: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.form, self.lock = form, threading.Lock()
        self.attempts: Counter[str] = Counter()  # by key of the request
        self.delivered: Counter[str] = Counter()  # completions sent whole, by key: what a provider bills
        self.seen: list[tuple[float, str, dict]] = []  # time, behaviour and body of every request
        self.headers: list[dict] = []
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:  # a client that was killed is no news
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, server = sha256_json(body), self.server
        found = MARK.search(body["messages"][-1]["content"])
        behaviour = found[1] if found else "ok"
        with server.lock:
            server.attempts[key] += 1
            first = server.attempts[key] == 1
            server.seen.append((time.monotonic(), behaviour, body))
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if behaviour.endswith("_once"):
            behaviour = behaviour.removesuffix("_once") if first else "ok"
        time.sleep(server.delay)
        getattr(self, f"on_{behaviour}")(key)

    def reply(self, key: str | None, content: dict | bytes, status: int = 200, kind: str = "application/json", **more):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        if key is not None:
            with self.server.lock:
                self.server.delivered[key] += 1

    def filled(self) -> dict:
        return {"analysis": "Read.", **SHAPES[self.server.form]}

    def on_ok(self, key: str) -> None:
        self.reply(key, completion(json.dumps(self.filled())))

    def on_refusal(self, key: str) -> None:
        self.reply(key, completion(None, refusal="I will not read this."))

    def on_spoken_refusal(self, key: str) -> None:
        self.reply(key, completion("I'm sorry, I cannot read this."))

    def on_wrong_schema(self, key: str) -> None:
        self.reply(key, completion(json.dumps({**self.filled(), "score": 9, "label": "fine", "refused": "no"})))

    def on_cut_content(self, key: str) -> None:
        self.reply(key, completion(json.dumps(self.filled())[:-6]))

    def on_length(self, key: str) -> None:
        self.reply(key, completion(json.dumps(self.filled())[:12], finish="length"))

    def on_filtered(self, key: str) -> None:
        self.reply(key, completion(None, finish="content_filter"))

    def on_filtered400(self, key: str) -> None:
        self.reply(None, {"error": {"code": "content_filter", "message": "filtered"}}, 400)

    def on_forbidden(self, key: str) -> None:
        self.reply(None, {"error": {"message": "this prompt is not allowed"}}, 403)

    def on_unauthorized(self, key: str) -> None:
        self.reply(None, {"error": {"code": "invalid_api_key", "message": "Incorrect API key"}}, 401)

    def on_e429(self, key: str) -> None:
        self.reply(None, {"error": {"message": "slow down"}}, 429, Retry_After="0.8")

    def on_e500(self, key: str) -> None:
        self.reply(None, {"error": {"message": "oops"}}, 500)

    def on_html(self, key: str) -> None:
        self.reply(None, b"<html><body>Bad gateway, but with status 200</body></html>", kind="text/html")

    def on_cut_body(self, key: str) -> None:
        self.reply(None, json.dumps(completion(json.dumps(self.filled()))).encode()[:60])

    def on_hang(self, key: str) -> None:
        time.sleep(12)
        self.close_connection = True

    def on_trickle(self, key: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        for _ in range(120):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def on_reset(self, key: str) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


@contextmanager
def serving(form: str):
    server = Server(form)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
