"""Which sizes of images a network takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def checked(shape: tuple[int, int, int], at_least: int) -> tuple[int, int, int]:
    """Return `shape` if it describes an image that is large enough.

    Raises
    ------
    ValueError
        If it does not.
    """
    if len(shape) != 3 or min(shape[1:]) < at_least or shape[0] < 1:
        raise ValueError(
            f"input_shape must be (channels, height, width), at least {at_least} pixels a side, got {shape}"
        )
    return shape


def check_multiples(size: Sequence[int], sides: Sequence[int], reason: str) -> None:
    """Raise unless height and width are whole multiples of `sides`.

    Parameters
    ----------
    size, sides : (height, width)
    reason : str
        Why they have to be, for the message.

    Raises
    ------
    ValueError
        If they are not.
    """
    pairs = list(zip(size, sides, strict=False))
    if any(pixels % side for pixels, side in pairs):
        whole = by(-(-pixels // side) * side for pixels, side in pairs)
        raise ValueError(
            f"height and width must be multiples of {' and '.join(map(str, sides))}, for {reason}, "
            f"got {by(size)}; pad or resize the images to {whole}"
        )


def by(size: Iterable[int]) -> str:
    """The usual notation of a size: 224×224."""
    return "×".join(map(str, size))
