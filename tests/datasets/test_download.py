"""Downloads, with a false network: hashes, mirrors, the progress bar, and what is said when there is none."""

import hashlib
import http.server
import re
import threading

import pooch
import pytest

from tinytorch.datasets import download

DATA = b"sixteen bytes 12" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
MIRRORS = ("https://first.example/", "https://second.example/")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "tinytorch"


@pytest.fixture
def server(monkeypatch):
    """A real HTTP server on this machine: yields its base URL and the paths it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = DATA if self.path.endswith("file.gz") else b"wrong"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", asked
        running.shutdown()


def test_a_file_is_downloaded_once(server, cache):
    url, asked = server
    for _ in range(2):
        download.fetch("mnist", {"file.gz": DIGEST}, [url])
    assert (cache / "mnist" / "file.gz").read_bytes() == DATA
    assert asked == ["/file.gz"]


def test_a_damaged_file_in_the_cache_is_replaced(server, cache):
    (cache / "mnist").mkdir(parents=True)
    (cache / "mnist" / "file.gz").write_bytes(b"half")
    download.fetch("mnist", {"file.gz": DIGEST}, [server[0]])
    assert (cache / "mnist" / "file.gz").read_bytes() == DATA


def test_a_wrong_hash_is_refused_and_nothing_is_kept(server, cache):
    with pytest.raises(OSError, match=r"could not download wrong for mnist \(.*hash"):
        download.fetch("mnist", {"wrong": DIGEST}, [server[0]])
    assert list((cache / "mnist").iterdir()) == []


def test_the_bar_counts_to_the_file_s_size(server, monkeypatch):
    bars = []
    make = download._Bar
    monkeypatch.setattr(download, "_Bar", lambda label: bars.append(make(label)) or bars[0])
    download.fetch("mnist", {"file.gz": DIGEST}, [server[0]])
    task = bars[0]._progress.tasks[0]
    assert (task.description, task.completed, bars[0].total) == ("file.gz", len(DATA), len(DATA))


def test_the_bar_is_closed_after_a_failure(monkeypatch):
    closed = []
    monkeypatch.setattr(download._Bar, "close", lambda bar: closed.append(bar))
    with pytest.raises(OSError, match="could not download wrong"):
        download.fetch("mnist", {"wrong": "0" * 64}, ["http://127.0.0.1:1/"])
    assert len(closed) == 1


def test_the_next_mirror_is_tried(cache, monkeypatch):
    urls = []

    def retrieve(url, known_hash, fname, path, downloader):
        urls.append(url)
        assert (known_hash, fname, path) == (f"sha256:{DIGEST}", "file.gz", cache / "mnist")
        if "first" in url:
            raise ConnectionError("no route")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    download.fetch("mnist", {"file.gz": DIGEST}, MIRRORS)
    assert urls == [f"{mirror}file.gz" for mirror in MIRRORS]


def test_offline_says_which_files_to_put_where(monkeypatch):
    def retrieve(*_, **__):
        raise ConnectionError("no route " * 100)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(OSError, match=r"could not download a\.gz for mnist") as caught:
        download.fetch("mnist", {"a.gz": DIGEST, "b.gz": DIGEST}, MIRRORS)
    message = str(caught.value)
    assert re.search("first.example/: ConnectionError, no route.*second.example/: ConnectionError, no route", message)
    assert "Without a network, put a.gz, b.gz in a folder and name it with data_dir" in message
    assert "--data-dir" in message
    assert len(message) < 600
