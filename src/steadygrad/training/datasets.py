"""The data sets of the demonstrations, benchmarks and tests, as tensors."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from steadygrad.errors import DataFileError, UsageError

__all__ = ["Dataset", "load"]

_IMAGE_SIDE = 28
_CLASSES = 10
_DIGITS_MAX = 16.0
_DIGITS_TEST_SHARE = 0.2
_DIGITS_SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """Base addresses to fetch from, tried in order, and the SHA-256 of each file."""

    mirrors: tuple[str, ...]
    hashes: Mapping[str, str]


# The hashes are those of the files whose MD5 the authors published.
_SOURCES = {
    # LeCun, Cortes, Burges, The MNIST database of handwritten digits, 1998.
    "mnist": _Source(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        {
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    # Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017. https://arxiv.org/abs/1708.07747
    "fashion-mnist": _Source(
        (
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        {
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A classification data set in memory.

    Attributes:
        name: The name it was loaded by.
        train: Inputs of shape ``(n, features)``, float32 in [0, 1], and class labels of shape ``(n,)``, int64.
        test: The held-out part, in the same form.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(name: str, data_dir: str | os.PathLike[str] | None = None, progress: bool = True) -> Dataset:
    """Return a data set by name, downloading it the first time if need be.

    ``"digits"`` is embedded in scikit-learn: 1,797 images of 64 features, split 80/20, stratified, always alike.
    ``"mnist"`` and ``"fashion-mnist"`` (60,000 and 10,000 images of 784 features) are read from ``data_dir``, else
    from the folder that the environment variable ``STEADYGRAD_DATA`` names, else from the user's cache, into which
    they are downloaded and checked. In a folder ``DIR`` the four ``*-ubyte.gz`` files lie in ``DIR/<name>`` or in
    ``DIR`` itself.

    Args:
        name: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        data_dir: Folder that holds the files; nothing is downloaded if it is given.
        progress: Whether a download shows a progress bar.

    Raises:
        UsageError: If there is no data set of that name.
        DataFileError: If a file is missing, cannot be downloaded, is corrupted, or holds something else.

    Example:
        >>> digits = load("digits")
        >>> digits.train[0].shape, digits.test[0].shape
        (torch.Size([1437, 64]), torch.Size([360, 64]))
    """
    if name == "digits":
        return _load_digits()
    if name not in _SOURCES:
        names = ["digits", *_SOURCES]
        near = get_close_matches(name.lower(), names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Load other data yourself and pass them as tensors."
        raise UsageError(f"load: expected the name of a data set, one of {', '.join(names)}, got {name!r}. {hint}")
    folder = _find_folder(name, data_dir) or _download(name, progress)
    return Dataset(name, _read_part(folder, "train"), _read_part(folder, "t10k"))


def _load_digits() -> Dataset:
    # Imported here, because it takes seconds that the other data sets need not pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images / _DIGITS_MAX, labels, test_size=_DIGITS_TEST_SHARE, random_state=_DIGITS_SPLIT_SEED, stratify=labels
    )
    x, x_test, y, y_test = (torch.from_numpy(part) for part in parts)
    return Dataset("digits", (x.float(), y.long()), (x_test.float(), y_test.long()))


def _find_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return the local folder with the files of a data set; None if they have to be downloaded."""
    place = data_dir or os.environ.get("STEADYGRAD_DATA")
    if not place:
        return None
    for folder in (Path(place) / name, Path(place)):
        if any((folder / file).exists() for file in _SOURCES[name].hashes):
            _reject_other_data(name, folder)
            return folder
    if data_dir is None:
        return None
    files = ", ".join(_SOURCES[name].hashes)
    raise DataFileError(
        f"{place}: expected {files} here or in {name}/, got none of them. Leave data_dir out to download."
    )


def _reject_other_data(name: str, folder: Path) -> None:
    """Guard against the one confusion that would go unnoticed: the files of all these data sets have the same names."""
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    digest = sha256(labels.read_bytes()).hexdigest() if labels.exists() else None
    for other, source in _SOURCES.items():
        if other != name and source.hashes[labels.name] == digest:
            raise DataFileError(f"{labels}: expected a file of {name}, got the one of {other}. Move it to {other}/.")


def _download(name: str, progress: bool) -> Path:
    """Fetch what the cache lacks; a file appears there only once its checksum is right."""
    import pooch  # here, because only those who download need it

    folder = Path(pooch.os_cache("steadygrad")) / name
    source = _SOURCES[name]
    for file, digest in source.hashes.items():
        failures = []
        for mirror in source.mirrors:
            try:
                pooch.retrieve(mirror + file, f"sha256:{digest}", file, folder, progressbar=progress)
                break
            except (OSError, ValueError) as error:  # no connection, no such file, no space; wrong checksum
                failures.append(f"{mirror}: {error}")
        else:
            raise DataFileError(
                f"{folder / file}: expected to download this file, got {'; '.join(failures)}. Check the connection, "
                f"or put the files of {name} into a folder and name it in data_dir or STEADYGRAD_DATA."
            )
    return folder


def _read_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = folder / f"{part}-images-idx3-ubyte.gz"
    labels = folder / f"{part}-labels-idx1-ubyte.gz"
    x, y = _read_idx(images, dimensions=3), _read_idx(labels, dimensions=1)
    if x.shape[1:] != (_IMAGE_SIDE, _IMAGE_SIDE):
        raise DataFileError(f"{images}: expected images of 28 x 28, got {tuple(x.shape[1:])}. {_again(images)}")
    if len(y) != len(x):
        raise DataFileError(f"{labels}: expected one label for each of {len(x)} images, got {len(y)}. {_again(labels)}")
    if y.max() >= _CLASSES:
        raise DataFileError(f"{labels}: expected labels from 0 to 9, got {int(y.max())}. {_again(labels)}")
    return x.flatten(1).float() / 255, y.long()


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a gzipped IDX file of bytes: a magic number, each dimension as a big-endian int32, then the entries."""
    try:
        with gzip.open(path) as file:
            content = bytearray(file.read())  # writable, as torch.frombuffer wants it
    except FileNotFoundError:
        raise DataFileError(f"{path}: expected this file beside the others, got none. {_again(path)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"{path}: expected a complete gzip file, got: {error}. {_again(path)}") from error
    magic, start = 0x0800 | dimensions, 4 + 4 * dimensions
    if len(content) < start or int.from_bytes(content[:4]) != magic:
        raise DataFileError(f"{path}: expected an IDX file that starts with {magic}, got other content. {_again(path)}")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    size = math.prod(shape)
    if size == 0 or size != len(content) - start:
        raise DataFileError(
            f"{path}: expected one entry or more and as many as the shape {shape} in its header says, "
            f"got {len(content) - start}. {_again(path)}"
        )
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


def _again(path: Path) -> str:
    return f"Delete {path.name} and fetch it again."
