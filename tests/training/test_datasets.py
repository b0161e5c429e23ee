"""Data sets are read from files, checked, and downloaded whole or not at all."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from steadygrad.errors import DataFileError, UsageError
from steadygrad.training import datasets
from steadygrad.training.datasets import Dataset, load

TRAIN, TEST = 6, 3


def idx(*shape: int, entries: bytes | None = None) -> bytes:
    """A gzipped IDX file; by default its entries count 0, 1, 2, ... modulo 10."""
    size = 1
    for length in shape:
        size *= length
    content = bytes(i % 10 for i in range(size)) if entries is None else entries
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", 0x0800 | len(shape), *shape) + content, mtime=0)


def tiny_files() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte.gz": idx(TRAIN, 28, 28),
        "train-labels-idx1-ubyte.gz": idx(TRAIN),
        "t10k-images-idx3-ubyte.gz": idx(TEST, 28, 28),
        "t10k-labels-idx1-ubyte.gz": idx(TEST),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def check_tiny(data: Dataset) -> None:
    for (x, y), count in ((data.train, TRAIN), (data.test, TEST)):
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((count, 784), torch.float32, (count,), torch.int64)
        assert torch.equal(y, torch.arange(count) % 10)
        torch.testing.assert_close(x, (torch.arange(count * 784) % 10).view(count, 784) / 255)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)


# Reading


def test_digits_are_split_alike_each_time_and_stratified() -> None:
    first, second = load("digits"), load("digits")
    for part, other in ((first.train, second.train), (first.test, second.test)):
        assert torch.equal(part[0], other[0])
        assert torch.equal(part[1], other[1])
    (x, y), (x_test, y_test) = first.train, first.test
    assert (x.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.min(), x.max()) == (0.0, 1.0)
    shares, shares_test = y.bincount() / len(y), y_test.bincount() / len(y_test)
    torch.testing.assert_close(shares, shares_test, atol=1 / 360, rtol=0.0)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_files(name: str, data_dir: Path) -> None:
    data = load(name, data_dir)
    assert (data.train[0].shape, data.test[0].shape) == ((60_000, 784), (10_000, 784))
    assert torch.equal(data.test[1].unique(), torch.arange(10))
    assert (data.train[0].min(), data.train[0].max()) == (0.0, 1.0)
    mean = {"mnist": 0.1307, "fashion-mnist": 0.2860}[name]  # the published normalization constants
    assert data.train[0].mean().item() == pytest.approx(mean, abs=5e-5)


@pytest.mark.parametrize("inside", ["mnist", "."])
def test_files_are_found_in_both_places(tmp_path: Path, inside: str) -> None:
    write(tmp_path / inside, tiny_files())
    check_tiny(load("mnist", tmp_path))


def test_files_are_found_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "fashion-mnist", tiny_files())
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path))
    check_tiny(load("fashion-mnist"))


def test_the_argument_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADYGRAD_DATA", str(write(tmp_path / "wrong", {"train-images-idx3-ubyte.gz": b""})))
    check_tiny(load("mnist", write(tmp_path / "right", tiny_files())))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("fashion_mnist", "mean 'fashion-mnist'"), ("MNIST", "mean 'mnist'"), ("x", "pass them as tensors")],
)
def test_an_unknown_name_gets_the_nearest_one(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"one of digits, mnist, fashion-mnist, got '{name}'.*{hint}"):
        load(name)


# Broken files


def test_a_folder_without_the_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataFileError, match=r"expected train-images.* or in mnist/, got none of them\. Leave data_dir out"
    ):
        load("mnist", tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = tiny_files()
    del files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(DataFileError, match=r"t10k-labels-idx1-ubyte\.gz: expected this file beside the others"):
        load("mnist", write(tmp_path, files))


def test_the_files_of_another_data_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny_files()
    serve_from(monkeypatch, "fashion-mnist", (), files)
    with pytest.raises(DataFileError, match=r"t10k-labels.*expected a file of mnist, got the one of fashion-mnist"):
        load("mnist", write(tmp_path, files))
    check_tiny(load("fashion-mnist", tmp_path))


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train-images-idx3-ubyte.gz", lambda content: content[: len(content) // 2], "expected a complete gzip file"),
        ("train-images-idx3-ubyte.gz", flip_a_byte, "expected a complete gzip file"),
        ("t10k-labels-idx1-ubyte.gz", gzip.decompress, "expected a complete gzip file"),
        ("t10k-labels-idx1-ubyte.gz", lambda _: b"", "starts with 2049, got other content"),
        ("t10k-labels-idx1-ubyte.gz", lambda _: idx(TEST, 28, 28), "starts with 2049, got other content"),
        ("train-images-idx3-ubyte.gz", lambda _: idx(TRAIN), "starts with 2051, got other content"),
        ("train-labels-idx1-ubyte.gz", lambda _: idx(TRAIN, entries=b"\1"), r"shape \(6,\) in its header says, got 1"),
        ("train-labels-idx1-ubyte.gz", lambda _: idx(0), r"expected one entry or more .* got 0"),
        ("train-labels-idx1-ubyte.gz", lambda _: idx(TRAIN + 1), "one label for each of 6 images, got 7"),
        ("t10k-labels-idx1-ubyte.gz", lambda _: idx(TEST, entries=b"\0\1\x0a"), "labels from 0 to 9, got 10"),
        ("t10k-images-idx3-ubyte.gz", lambda _: idx(TEST, 28, 27), r"images of 28 x 28, got \(28, 27\)"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, change: Callable[[bytes], bytes], words: str) -> None:
    files = tiny_files()
    files[file] = change(files[file])
    with pytest.raises(DataFileError, match=rf"{file}: .*{words}.* Delete {file} and fetch it again"):
        load("mnist", write(tmp_path, files))


# Downloading


@dataclass
class Server:
    """A web server in a thread. ``cut`` names a file whose connection breaks off half-way."""

    address: str
    files: dict[str, bytes]
    requests: list[str]
    cut: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            served.requests.append(name)
            content = served.files.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if name == served.cut else content)

        def log_message(self, *args: object) -> None:
            pass  # the default writes each request to the terminal

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Server(f"http://127.0.0.1:{http.server_port}/", tiny_files(), [])
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    http.shutdown()
    http.server_close()
    thread.join()


def serve_from(monkeypatch: pytest.MonkeyPatch, name: str, mirrors: tuple[str, ...], files: dict[str, bytes]) -> None:
    """Make the table of data sets name these mirrors and the hashes of these files."""
    hashes = {file: sha256(content).hexdigest() for file, content in files.items()}
    monkeypatch.setitem(datasets._SOURCES, name, replace(datasets._SOURCES[name], mirrors=mirrors, hashes=hashes))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    return tmp_path / "steadygrad" / "mnist"


def test_a_download_is_made_once(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    check_tiny(load("mnist", progress=False))
    check_tiny(load("mnist", progress=False))
    assert server.requests == list(server.files)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == server.files


def test_a_download_shows_a_progress_bar(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    load("mnist")
    assert "100%" in capsys.readouterr().err


def test_a_folder_in_the_environment_without_the_files_is_passed_over(
    tmp_path: Path, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path / "elsewhere"))
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    check_tiny(load("mnist", progress=False))


def test_the_next_mirror_is_tried(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "http://127.0.0.1:9/"
    serve_from(monkeypatch, "mnist", (closed, server.address), server.files)
    check_tiny(load("mnist", progress=False))


def test_a_wrong_checksum_leaves_nothing(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files | {"train-images-idx3-ubyte.gz": b"other"})
    with pytest.raises(
        DataFileError, match=r"train-images.*: expected to download this file, got .*hash.*Check the conn"
    ):
        load("mnist", progress=False)
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing_half_written(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    server.cut = "t10k-images-idx3-ubyte.gz"
    with pytest.raises(DataFileError, match=r"t10k-images.*: expected to download this file, got "):
        load("mnist", progress=False)
    assert {path.name for path in cache.iterdir()} == {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"}
    server.cut = ""
    check_tiny(load("mnist", progress=False))


def test_a_file_that_decayed_in_the_cache_is_fetched_again(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    load("mnist", progress=False)
    (cache / "train-labels-idx1-ubyte.gz").write_bytes(b"decayed")
    check_tiny(load("mnist", progress=False))


def test_a_file_that_no_mirror_has_names_the_way_out(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, "mnist", (server.address,), server.files)
    server.files = {}
    with pytest.raises(DataFileError, match=r"404.*name it in data_dir or STEADYGRAD_DATA"):
        load("mnist", progress=False)
