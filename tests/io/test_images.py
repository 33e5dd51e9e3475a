"""Pictures of every kind, and files that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinytorch.io.images import load_image

GREY = (1, 28, 28)
COLOUR = (3, 32, 32)


def save(array: np.ndarray, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def seven(size: int = 28, ink: int = 255, paper: int = 0) -> np.ndarray:
    """A seven of two strokes, off centre."""
    picture = np.full((size, size), paper, np.uint8)
    unit = size // 14
    picture[2 * unit : 3 * unit, 3 * unit : 9 * unit] = ink
    picture[3 * unit : 12 * unit, 8 * unit : 9 * unit] = ink
    return picture


def test_a_picture_of_the_data_set_s_size_is_used_as_it_is(tmp_path):
    picture = seven()
    image = load_image(save(picture, tmp_path / "a.png"), GREY)
    assert image.shape == (1, 1, 28, 28) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[0, 0], picture)


def test_dark_on_light_is_inverted(tmp_path):
    image = load_image(save(255 - seven(), tmp_path / "a.png"), GREY)
    np.testing.assert_array_equal(image[0, 0], seven())


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (90, 230), (140, 20)])
def test_a_drawing_is_cut_out_stretched_and_centred(tmp_path, ink, paper):
    image = load_image(save(seven(280, ink, paper), tmp_path / "a.png"), GREY, margin=1 / 7)[0, 0]
    rows, columns = np.flatnonzero(image.max(axis=1) > 127), np.flatnonzero(image.max(axis=0) > 127)
    assert (rows[0], rows[-1]) == (4, 23)
    assert abs(columns[0] + columns[-1] - 27) <= 1
    assert image.max() >= 250 and np.median(image) == 0


def test_an_empty_page_is_black(tmp_path):
    assert not load_image(save(np.full((50, 60), 200, np.uint8), tmp_path / "a.png"), GREY).any()


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tiff", "webp", "jpg", "ppm"])
def test_formats(tmp_path, suffix):
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[..., 0] = 200
    image = load_image(save(colours, tmp_path / f"a.{suffix}"), COLOUR)
    assert image.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(image[0].mean(axis=(1, 2)), [200, 0, 0], atol=4)


def test_a_colour_picture_of_the_right_size_is_unchanged(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = load_image(save(colours, tmp_path / "a.png"), COLOUR)
    np.testing.assert_array_equal(image[0], colours.transpose(2, 0, 1))


def test_of_a_wide_colour_picture_the_middle_counts(tmp_path):
    colours = np.zeros((32, 96, 3), np.uint8)
    colours[:, 32:64] = 255
    assert load_image(save(colours, tmp_path / "a.png"), COLOUR).min() == 255


def test_transparency_is_white_paper(tmp_path):
    layers = np.zeros((28, 28, 4), np.uint8)  # black ink, everywhere, but seen only where alpha is
    layers[..., 3] = seven()
    image = load_image(save(layers, tmp_path / "a.png"), GREY)
    np.testing.assert_array_equal(image[0, 0], seven())


def test_a_transparent_palette(tmp_path):
    palette = Image.fromarray(seven() // 255)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "a.gif", transparency=0)
    np.testing.assert_array_equal(load_image(tmp_path / "a.gif", GREY)[0, 0], seven())


def test_the_camera_s_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270° to see it upright
    lying = np.rot90(seven())
    image = load_image(save(lying, tmp_path / "a.png", exif=exif), GREY)
    np.testing.assert_array_equal(image[0, 0], np.rot90(lying, -1))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    image = load_image(save(np.uint16(257) * np.tril(np.full((28, 28), 100, np.uint16)), tmp_path / "a.png"), GREY)
    assert set(np.unique(image)) == {0, 100}


def test_floating_pictures(tmp_path):
    image = load_image(save(np.float32(seven()) / 255, tmp_path / "a.tiff"), GREY)
    np.testing.assert_array_equal(image[0, 0], seven())


def test_one_bit_and_cmyk(tmp_path):
    Image.fromarray(seven()).convert("1").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", GREY)[0, 0], seven())
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = load_image(tmp_path / "a.jpg", COLOUR)[0].mean(axis=(1, 2))
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.png is (no|a damaged) picture"):
        load_image(tmp_path / "a.png", GREY)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "gif", "tiff", "bmp", "webp"]))
def test_a_cut_or_garbled_picture_is_read_or_refused_by_name(data, suffix, tmp_path_factory):
    path = save(seven(56), tmp_path_factory.getbasetemp() / f"cut.{suffix}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = load_image(path, GREY)
    except ValueError as error:
        assert path.name in str(error)
    else:
        assert image.shape == (1, 1, 28, 28)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileNotFoundError, match="is no file; give the path of a picture"):
            load_image(path, GREY)


def test_a_huge_picture_is_refused_unread(tmp_path):
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"bomb\.png is larger than"):
        load_image(tmp_path / "bomb.png", GREY)


def test_two_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shape must have 1 or 3 channels"):
        load_image(tmp_path / "a.png", (2, 8, 8))
