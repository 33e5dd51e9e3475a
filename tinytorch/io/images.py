"""From any picture file to the kind of image that a data set has.

Photographs and scans differ from data sets: a digit on paper is dark on light, MNIST's are light on dark; it
may be anywhere on the page, MNIST's fill the middle. `load_image` undoes both, by these rules:

- The camera's orientation mark (EXIF) is applied; of an animation the first frame counts; what is transparent
  is white.
- Colour data sets: the middle square is cut out and scaled.
- Grey data sets: a picture whose border is lighter than mid-grey is inverted. One of the data set's size is
  used as it is; from any other the drawing (all nearer to its brightest spot than to its border) is cut out,
  its contrast stretched, put in the middle of a square with the data set's margin, and scaled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MID_GREY = 127.5
_OPENING = Lock()  # pictures are decoded on several threads, and the warnings' filters belong to the process


def load_image(path: Path | str, shape: tuple[int, int, int], margin: float = 0.0) -> np.ndarray:
    """Read a picture as one image of a data set.

    Parameters
    ----------
    path : path
        Any format that Pillow reads: PNG, JPEG, GIF, BMP, TIFF, WebP, …
    shape : (channels, height, width)
        Of the data set; 1 channel is grey, 3 are red, green, blue.
    margin : float
        Blank border of the data set's grey images on each side, as a share of the side.

    Returns
    -------
    ndarray of uint8, shape (1, channels, height, width)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no picture, is damaged or is too large, or the data set has neither 1 nor 3 channels.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(f"shape must have 1 or 3 channels to be fed from a picture, got {shape}")
    picture = _open(Path(path))
    if channels == 3:
        fitted = ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
        return np.asarray(fitted).transpose(2, 0, 1)[None]
    grey = np.asarray(picture.convert("L"))
    if np.median(_border(grey)) > _MID_GREY:
        grey = 255 - grey
    if grey.shape != (height, width):
        grey = _fit_drawing(grey, (height, width), margin)
    return grey[None, None]


def _open(path: Path) -> Image.Image:
    """Decode a picture, upright and without transparency; mode RGB or L."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of a picture")
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            upright = ImageOps.exif_transpose(image)
            return _without_alpha(_eight_bit(upright))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} is larger than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down before predicting"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture that can be read; use PNG, JPEG, GIF, BMP, TIFF or WebP") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:  # what Pillow's decoders raise on damaged files
        raise ValueError(f"{path} is a damaged picture ({error}); save it again") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit and floating pictures, which Pillow would clip, to 0 … 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, np.float64))
    top = 65535 if image.mode.startswith("I") else max(values.max(), 1e-12)
    return Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))


def _without_alpha(image: Image.Image) -> Image.Image:
    """Lay a picture on white paper."""
    if not image.has_transparency_data:
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    with_alpha = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, with_alpha).convert("RGB")


def _border(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _fit_drawing(grey: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """Cut out what is drawn, stretch its contrast, centre it on a black square with a margin, and scale."""
    background, top = int(np.median(_border(grey))), int(grey.max())
    if top <= background:  # nothing is drawn
        return np.zeros(size, np.uint8)
    ink = np.clip((grey.astype(np.float32) - background) * (255 / (top - background)), 0, 255).astype(np.uint8)
    rows, columns = (np.flatnonzero((ink > _MID_GREY).any(axis=axis)) for axis in (1, 0))
    drawing = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = round(max(drawing.shape) / (1 - 2 * margin))
    square = np.zeros((side, side), np.uint8)
    row, column = ((side - length) // 2 for length in drawing.shape)
    square[row : row + drawing.shape[0], column : column + drawing.shape[1]] = drawing
    return np.asarray(Image.fromarray(square).resize(size[::-1], Image.Resampling.LANCZOS))
