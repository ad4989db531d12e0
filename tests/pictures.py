"""Pictures for tests."""

import io

import numpy as np


def png(seed: int, size: tuple[int, int] = (32, 24)) -> bytes:
    """A PNG file of noise; size: height and width in pixels."""
    # Not at the top, so that tests are collected without it.
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
