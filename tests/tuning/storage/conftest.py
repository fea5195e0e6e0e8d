"""An S3 server for all tests of a folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A server with an empty bucket."""
    with s3_server() as server:
        yield server
