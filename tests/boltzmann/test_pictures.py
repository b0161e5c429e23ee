"""PNG files, read back with the standard library."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from steadygrad.boltzmann.pictures import mosaic, png
from steadygrad.errors import UsageError


def test_a_png_holds_the_pixels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    content = png(pixels)
    assert content.startswith(b"\x89PNG")
    chunks, place = {}, 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        chunks[kind], place = body, place + 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (4, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 5)
    np.testing.assert_array_equal(lines[:, 1:], pixels)


def test_tiles_lie_side_by_side_and_zero_is_gray() -> None:
    rows = np.array([[0.0, 0, 0, 1], [-2.0, 0, 0, 2], [0.0, 0, 0, 0]])
    picture = mosaic(rows, zero=0.0, columns=2)
    assert picture.shape == (7, 7)
    assert picture[1, 1] == 128
    assert picture[2, 2] == 255
    assert picture[1, 4] == 0
    assert (mosaic(np.ones((1, 4)))[1:3, 1:3] == 255).all()
    with pytest.raises(UsageError, match="expected rows of a square number of pixels, got 5"):
        mosaic(np.zeros((1, 5)))
