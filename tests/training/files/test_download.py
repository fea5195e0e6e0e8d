"""Data at an address of the web."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.data.load import load_dataset
from lorasweep.training.errors import DataError
from lorasweep.training.files import download
from lorasweep.training.files.tables import open_table
from lorasweep.training.files.whole_tables import read_table
from lorasweep.training.settings import DataSettings

CSV = b"text,label\n" + b"".join(b"text %d,%s\n" % (n, b"ab"[n % 2 : n % 2 + 1]) for n in range(60))


@dataclass
class Web:
    """A server of files, which counts how often each is asked for."""

    address: str = ""
    files: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, path: str, content: bytes = CSV, **headers: str) -> str:
        self.files[path.partition("?")[0]] = (content, headers)
        return self.address + path

    def handler(web) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                web.asked.append(path)
                if path not in web.files:
                    self.send_error(404)
                    return
                content, headers = web.files[path]
                self.send_response(302 if "Location" in headers else 200)
                for name, value in ({"Content_Length": str(len(content))} | headers).items():
                    if value:
                        self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def refusal(address: str) -> str:
    with pytest.raises(DataError) as error:
        read_table(address)
    assert "\n" not in str(error.value)
    assert not [path for path in download.cache_folder().rglob("*") if path.suffix not in ("", ".lock")]
    return str(error.value)


def test_a_file_is_downloaded_once(web: Web) -> None:
    address = web.serve("/news/rows.csv")
    first = read_table(address)
    assert (len(first.frame), first.name, first.notes) == (60, address, ())
    # The command line has made paths of them, with one slash.
    for again in (read_table(Path(address)), open_table(address).heading()):
        assert again.name == address
    assert web.asked == ["/news/rows.csv"]
    (note,) = read_table(address).notes
    assert note.startswith(f"{address} was downloaded on 20")
    kept = Path(note.partition("delete ")[2].removesuffix(" to download it again"))
    kept.unlink()
    read_table(address)
    assert len(web.asked) == 2


def test_a_sweep_needs_it_no_more(web: Web, tmp_path: Path) -> None:
    address = web.serve("/rows.csv?key=secret", CSV)
    dataset = load_dataset(DataSettings(path=address), 0)
    assert (dataset.source, dataset.rows_read) == ("rows.csv", 60)
    dataset.save(tmp_path / "data")
    web.files.clear()
    assert Dataset.load(tmp_path / "data").fingerprint == dataset.fingerprint
    assert "secret" not in str(dataset.notes)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/export", {"Content_Type": "text/csv; charset=utf-8"}),
        ("/get", {"Content_Disposition": 'attachment; filename="../../rows.csv"'}),
        ("/a%20b.csv?download=true", {"Content_Type": "application/octet-stream"}),
        ("/", {"Content_Type": "text/csv"}),
    ],
)
def test_the_format_is_told_by_address_or_server(web: Web, path: str, headers: dict[str, str]) -> None:
    assert len(read_table(web.serve(path, **headers)).frame) == 60


def test_redirects_and_packed_files(web: Web) -> None:
    web.serve("/new.csv.gz", gzip.compress(CSV), Content_Encoding="gzip")
    assert len(read_table(web.serve("/old.csv.gz", b"", Location="/new.csv.gz")).frame) == 60
    # Packed for the way only: the name has no .gz.
    assert len(read_table(web.serve("/plain.csv", gzip.compress(CSV), Content_Encoding="gzip")).frame) == 60


def test_what_the_server_does_not_have(web: Web) -> None:
    assert refusal(f"{web.address}/gone.csv?key=secret") == (
        f"{web.address}/gone.csv: the server answers 404 Not Found; check the address, or download it yourself"
    )
    page = web.serve("/rows.csv", b"<html>", Content_Type="text/html; charset=utf-8")
    assert "is a web page, not a file" in refusal(page)
    assert "'none' is not one of .csv" in refusal_of_content(web.serve("/rows"))
    assert "holds no rows" in refusal_of_content(web.serve("/none.csv", b"text,label\n"))


def refusal_of_content(address: str) -> str:
    with pytest.raises(DataError) as error:
        read_table(address)
    return str(error.value)


def test_a_download_that_breaks_off_leaves_nothing(web: Web) -> None:
    assert "cannot be downloaded" in refusal(web.serve("/rows.csv", Content_Length=str(len(CSV) + 9)))


@pytest.mark.parametrize("stated", [True, False])
def test_a_download_has_limits(web: Web, monkeypatch: pytest.MonkeyPatch, stated: bool) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", len(CSV) - 1)
    address = web.serve("/rows.csv", **({} if stated else {"Content_Length": ""}))
    assert "has more than" in refusal(address)
    monkeypatch.setattr(download, "MOST_BYTES", len(CSV))
    monkeypatch.setattr(download, "MOST_SECONDS", 0.0)
    assert "takes longer than 0 minutes; download it yourself" in refusal(address)


def test_a_server_that_is_not_there(web: Web) -> None:
    assert "no connection to the server; check the address" in refusal("http://127.0.0.1:1/rows.csv")
    assert "not an address (Invalid IPv6 URL)" in refusal("http://[::1/rows.csv")


def test_no_password_is_recorded(web: Web) -> None:
    message = refusal("https://me:secret@example.org/rows.csv")
    assert "the address holds a password" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "path", ["rows.csv", "http.csv", "https:/", "ftp://example.org/a.csv", "s3://b/a.csv"]
)
def test_a_path_is_no_address(path: str) -> None:
    assert download.as_address(path) == ""
