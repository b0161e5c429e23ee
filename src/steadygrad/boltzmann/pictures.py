"""Filters and samples as PNG pictures, made with the standard library alone."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

from steadygrad.errors import UsageError

__all__ = ["are_images", "mosaic", "png"]

_GAP = 1  # pixels between tiles
_PNG = b"\x89PNG\r\n\x1a\n"


def are_images(features: int) -> bool:
    """Return whether rows of so many features are square images."""
    return math.isqrt(features) ** 2 == features


def mosaic(rows: np.ndarray, zero: float | None = None, columns: int | None = None) -> np.ndarray:
    """Return rows as square grayscale tiles side by side, bytes of shape ``(height, width)``.

    Args:
        rows: Shape ``(tiles, side * side)``.
        zero: The value that becomes middle gray, each tile at its own scale (filters); None takes the values from 0 to
            1 as they are (samples).
        columns: Tiles in a line; about square by default.

    Raises:
        UsageError: If rows are no squares.
    """
    if not are_images(rows.shape[1]):
        raise UsageError(f"mosaic: expected rows of a square number of pixels, got {rows.shape[1]}. Only images fit.")
    if zero is not None:
        peak = np.abs(rows - zero).max(1, keepdims=True)
        rows = 0.5 + (rows - zero) / (2 * np.where(peak > 0, peak, 1))
    side = math.isqrt(rows.shape[1])
    columns = columns or math.ceil(math.sqrt(len(rows)))
    lines = -(-len(rows) // columns)
    step = side + _GAP
    canvas = np.zeros((lines * step + _GAP, columns * step + _GAP), np.uint8)
    tiles = (np.clip(rows, 0, 1) * 255).round().astype(np.uint8).reshape(-1, side, side)
    for number, tile in enumerate(tiles):
        top, left = (_GAP + step * place for place in divmod(number, columns))
        canvas[top : top + side, left : left + side] = tile
    return canvas


def png(pixels: np.ndarray) -> bytes:
    """Return grayscale bytes of shape ``(height, width)`` as the content of a PNG file."""
    height, width = pixels.shape
    lines = b"".join(b"\x00" + line.tobytes() for line in pixels.astype(np.uint8))  # 0: no filter on this line
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grayscale
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return _PNG + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
