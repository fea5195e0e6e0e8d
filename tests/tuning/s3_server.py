"""An S3 server on the loopback address (moto's), which keeps a list of the requests that it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "bucket"
REGION = "us-east-1"


class S3Server:
    """A server with one bucket.

    Attributes:
        requests: (method, path, query) of each.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log_request(self, *arguments: Any) -> None:
                """Nothing."""

        application = DomainDispatcherApplication(create_backend_app)

        def counted(environment: Any, start: Any) -> Any:
            self.requests.append(
                tuple(
                    str(environment.get(name, "")) for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")
                )
            )
            return application(environment, start)

        self.requests: list[tuple[str, ...]] = []
        self.server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """With which AWS's libraries find it."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_port}",
        }

    def uri(self, path: str, bucket: str = BUCKET) -> str:
        """The URI of a folder, which also says where the server is."""
        where = f"scheme=http&region={REGION}&endpoint_override=127.0.0.1:{self.server.server_port}"
        return f"s3://{bucket}/{path}?{where}"

    def taken(self) -> list[tuple[str, ...]]:
        """The requests since this was called last."""
        taken, self.requests[:] = list(self.requests), []
        return taken


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server for the block, and the environment in which it is found."""
    pytest.importorskip("moto.server")
    from pyarrow.fs import FileSystem

    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        filesystem, _ = FileSystem.from_uri(server.uri("") + "&allow_bucket_creation=true")
        filesystem.create_dir(BUCKET)
        server.taken()
        yield server
    server.server.shutdown()
