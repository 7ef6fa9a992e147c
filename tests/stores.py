"""A local object store that speaks S3's protocol, and that fails, throttles or hangs when a test says so."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any

import pytest
from werkzeug.serving import make_server

BUCKET = "bucket"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
Answer = Callable[..., Any]


class Weather:
    """What the store does to the next requests.

    Attributes:
        throttle: so many puts are answered by 503 SlowDown.
        fail: so many puts are answered by 500.
        hang: so many puts are answered only after `seconds`.
        down: every request is answered by 500.
        puts: how many objects were put.
        after_head: called after each answer to a question for an object's size and date.
    """

    def __init__(self) -> None:
        self.throttle = self.fail = self.hang = self.puts = 0
        self.seconds, self.down = 0.0, False
        self.after_head: Callable[[], object] = lambda: None
        self.lock = Lock()

    def over(self, application: Answer) -> Answer:
        """The application behind this weather."""

        def answer(environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
            put = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1
            with self.lock:
                self.puts += put
                bad = self._next() if put else ""
            if self.down or bad in ("500", "503"):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # the client's next request follows
                status, code = (
                    ("503 Slow Down", "SlowDown") if bad == "503" else ("500 Internal Server Error", "Internal")
                )
                start(status, [("Content-Type", "application/xml")])
                text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test says</Message></Error>"
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]
            if bad == "hang":
                time.sleep(self.seconds)
            found: Iterable[bytes] = application(environ, start)
            if environ["REQUEST_METHOD"] == "HEAD":
                self.after_head()
            return found

        return answer

    def _next(self) -> str:
        for name, code in (("throttle", "503"), ("fail", "500"), ("hang", "hang")):
            if getattr(self, name):
                setattr(self, name, getattr(self, name) - 1)
                return code
        return ""


@contextmanager
def store() -> Iterator[Weather]:
    """A store with an empty bucket, which `s3://bucket` names in this process and those that it starts."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from s3fs import S3FileSystem

    weather = Weather()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, weather.over(application), threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        address = f"http://127.0.0.1:{server.server_port}"
        for name, value in (SETTINGS | {"AWS_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        import fsspec

        quick = {"connect_timeout": 2, "read_timeout": 2, "retries": {"max_attempts": 2}}
        patch.setitem(fsspec.config.conf, "s3", {"config_kwargs": quick})
        S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield weather
        finally:
            S3FileSystem.clear_instance_cache()
            server.shutdown()
