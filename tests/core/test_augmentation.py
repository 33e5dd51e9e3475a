"""Augmentation of whole batches in one pass: against NumPy and PyTorch image by image, and as a function of the place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.core.dataloader import (
    AlternatingFlip,
    Augment,
    BatchGenerator,
    Cutout,
    DataLoader,
    Normalize,
    RandomHorizontalFlip,
    RandomTranslate,
    TensorDataset,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 6), dtype=np.uint8)
NORMALIZE = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
EVERYTHING = [AlternatingFlip(), RandomTranslate(2), Cutout(3)]


def place(epoch=0, count=23, seed=1, batch=0):
    return BatchGenerator(seed, epoch, batch, np.arange(count))


class Fixed:
    """A piece that does what it is told."""

    def __init__(self, flip=False, shift=(0, 0), hole=(0, 0, 0, 0), edge="reflect"):
        self.flip, self.shift, self.hole, self.edge = flip, shift, hole, edge

    def draw(self, moves, rng):
        moves.flip[...], moves.shift[...], moves.hole[...] = self.flip, self.shift, self.hole
        moves.edge = self.edge


@settings(max_examples=100, deadline=None)
@given(
    st.booleans(),
    st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
    st.tuples(st.integers(-3, 9), st.integers(-3, 12), st.integers(-3, 7), st.integers(-3, 9)),
    st.sampled_from(["reflect", "zeros"]),
)
def test_the_pass_is_shift_flip_and_hole_one_after_the_other(flip, shift, hole, edge):
    out = Augment([Fixed(flip, shift, hole, edge)])(IMAGES, place())
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (5, 5), (5, 5)), "reflect" if edge == "reflect" else "constant")
    expected = padded[:, :, 5 + shift[0] : 13 + shift[0], 5 + shift[1] : 11 + shift[1]]
    expected = expected[..., ::-1].copy() if flip else expected.copy()
    top, bottom, left, right = np.maximum(hole, 0)
    expected[:, :, top:bottom, left:right] = 0
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalisation_is_that_of_normalize_and_a_hole_is_the_mean_colour(dtype):
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(dtype)
    expected = NORMALIZE(images, place()).copy()
    expected[:, :, 1:4, 2:5] = 0
    out = Augment([Fixed(hole=(1, 4, 2, 5))], NORMALIZE)(images, place())
    assert out.dtype == expected.dtype and out.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_zeros_that_move_in_are_black_before_the_normalisation(dtype):
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(dtype)
    padded = np.pad(images, ((0, 0), (0, 0), (0, 3), (9, 0)))[:, :, 3:, :6]
    out = Augment([Fixed(shift=(3, -9), edge="zeros")], NORMALIZE)(images, place())
    np.testing.assert_array_equal(out, NORMALIZE(padded, place()))


def test_an_unknown_edge():
    with pytest.raises(ValueError, match="edge must be one of reflect, zeros, got 'wrap'"):
        RandomTranslate(1, edge="wrap")


def test_nothing_changes_nothing_and_no_images_are_no_images():
    np.testing.assert_array_equal(Augment([])(IMAGES, place()), IMAGES)
    assert Augment(EVERYTHING, NORMALIZE)(IMAGES[:0], place(count=0)).shape == (0, 3, 8, 6)


def test_the_input_stays():
    before = IMAGES.copy()
    Augment(EVERYTHING)(IMAGES, place())
    np.testing.assert_array_equal(IMAGES, before)


# ---- flips --------------------------------------------------------------------------------------------------


def flipped(out, images):
    same, mirrored = ((out == x).all(axis=(1, 2, 3)) for x in (images, images[..., ::-1]))
    assert (same ^ mirrored).all()
    return mirrored


def test_alternating_flip_shows_both_sides_in_any_two_epochs_in_a_row():
    flips = [flipped(AlternatingFlip()(IMAGES, place(epoch)), IMAGES) for epoch in range(4)]
    assert 4 <= flips[0].sum() <= 19
    np.testing.assert_array_equal(flips[0], ~flips[1])
    np.testing.assert_array_equal(flips[0], flips[2])
    np.testing.assert_array_equal(flips[1], flips[3])


def coins(seed, count=10_000):
    images = np.zeros((count, 1, 1, 2), np.uint8)
    images[..., 1] = 1
    return AlternatingFlip()(images, place(count=count, seed=seed))[:, 0, 0, 0]


def test_its_coins_are_fair_and_independent_of_each_other():
    first, other = coins(0), coins(1)
    for bits in (first, other, first ^ other, first[1:] ^ first[:-1], first[64:] ^ first[:-64]):
        assert abs(bits.mean() - 0.5) < 0.025  # five standard deviations
    np.testing.assert_array_equal(first, coins(0))


def test_an_image_flips_by_its_number_whatever_the_batch():
    shuffled = np.random.default_rng(3).permutation(23)
    whole = AlternatingFlip()(IMAGES, place())
    part = AlternatingFlip()(IMAGES[shuffled], BatchGenerator(1, 0, 7, shuffled))
    np.testing.assert_array_equal(part, whole[shuffled])


def test_alternating_flip_needs_to_know_the_place():
    with pytest.raises(TypeError, match="AlternatingFlip needs the epoch and the items' numbers, which Generator"):
        AlternatingFlip()(IMAGES, np.random.default_rng(0))


def test_a_random_flip_is_the_same_as_a_piece_and_alone():
    flip = RandomHorizontalFlip(0.4)
    alone, piece = flip(IMAGES, place()), Augment([flip])(IMAGES, place())
    np.testing.assert_array_equal(alone, piece)
    assert 0 < flipped(piece, IMAGES).sum() < 23


# ---- shifts and holes -----------------------------------------------------------------------------------------


def test_translations_are_uniform_and_reflect():
    torch = pytest.importorskip("torch")
    count = 3000
    image = torch.arange(48.0).reshape(1, 1, 8, 6)
    images = np.repeat(image.numpy(), count, axis=0)
    out = RandomTranslate(2)(images, place(count=count))
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect").numpy()[0, 0]
    windows = {padded[i : i + 8, j : j + 6].tobytes(): (i, j) for i in range(5) for j in range(5)}
    places = [windows[np.ascontiguousarray(x[0]).tobytes()] for x in out]
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert len(counts) == 25 and counts.min() > 70 and counts.max() < 175


def test_cutout_is_a_square_around_any_pixel():
    count, size = 4000, 3
    out = Cutout(size)(np.ones((count, 2, 5, 7), np.float32), place(count=count))
    np.testing.assert_array_equal(out[:, 0], out[:, 1])
    holes = 1 - out[:, 0]
    found = {hole.tobytes() for hole in holes}
    expected = set()
    for row in range(5):
        for column in range(7):
            hole = np.zeros((5, 7), np.float32)
            hole[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 1
            expected.add(hole.tobytes())
    assert found == expected


def test_pieces_refuse():
    with pytest.raises(ValueError, match="pixels must be an integer of at least 0, got -1"):
        RandomTranslate(-1)
    with pytest.raises(
        ValueError, match="RandomTranslate by 6 pixels needs images larger than that to reflect, got 8×6"
    ):
        RandomTranslate(6)(IMAGES, place())
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        Cutout(0)
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\)"):
        Augment([])(IMAGES[0], place())
    with pytest.raises(ValueError, match="Normalize has 3 channels, the images 1"):
        Augment([], NORMALIZE)(IMAGES[:, :1], place())

    with pytest.raises(ValueError, match=r"images of 8×6 can't be shifted by \[0, 6\] rows and columns"):
        Augment([Fixed(shift=(0, -6))])(IMAGES, place())

    class Unfinished(Cutout):
        draw = Cutout.__mro__[1].draw

    with pytest.raises(NotImplementedError, match=r"Unfinished needs draw; write into moves\.flip"):
        Unfinished(1)(IMAGES, place())


# ---- from the loader ------------------------------------------------------------------------------------------


def batches(prefetch, start=0):
    data = TensorDataset(IMAGES, np.arange(23))
    loader = DataLoader(data, 4, shuffle=True, seed=5, transform=Augment(EVERYTHING, NORMALIZE), prefetch=prefetch)
    loader.set_epoch(start)
    return [batch[0].numpy() for epoch in range(2) for batch in loader]


@pytest.mark.parametrize("prefetch", [1, 3])
def test_same_seed_same_bits_also_with_prefetch_and_from_the_middle(prefetch):
    expected = batches(prefetch=0)
    for ours, theirs in zip(batches(prefetch), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(batches(prefetch, start=1)[:6], expected[6:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_loader_alternates():
    loader = DataLoader(TensorDataset(IMAGES, np.arange(23)), 4, shuffle=True, seed=5, transform=AlternatingFlip())
    flips = []
    for _ in range(2):
        seen = [(images.numpy(), numbers.numpy()) for images, numbers in loader]
        images, numbers = (np.concatenate(field) for field in zip(*seen, strict=True))
        flips.append(flipped(images, IMAGES[numbers].astype(np.float32))[np.argsort(numbers)])
    np.testing.assert_array_equal(flips[0], ~flips[1])


def test_the_generator_of_a_batch_draws_what_numpy_draws():
    assert place(epoch=2, seed=9, batch=4).random() == np.random.default_rng([9, 2, 4]).random()
