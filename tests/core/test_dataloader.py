"""Loading: order and randomness as a function of (seed, epoch, batch), the thread, and the transforms."""

import threading
import traceback

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.core import random
from tinytorch.core.dataloader import (
    Compose,
    DataLoader,
    Dataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    TensorDataset,
    random_split,
)
from tinytorch.core.tensor import Tensor

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 6), dtype=np.uint8)
LABELS = np.arange(23, dtype=np.uint8)
AUGMENT = Compose([RandomCrop((8, 6), 2), RandomHorizontalFlip(), Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])])


class Squares(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return np.full((1, 2, 2), index, np.float32), index, index / 2


def loader(**kwargs):
    return DataLoader(TensorDataset(IMAGES, LABELS), **{"batch_size": 4, "seed": 1, **kwargs})


def arrays(batches):
    return [tuple(field.numpy() for field in batch) for batch in batches]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x, y, strict=True):
            np.testing.assert_array_equal(p, q)


def prefetch_threads():
    return [t for t in threading.enumerate() if t.name == "tinytorch-prefetch"]


# ---- data sets --------------------------------------------------------------------------------------------


def test_tensor_dataset():
    dataset = TensorDataset(Tensor(IMAGES), LABELS)
    assert len(dataset) == 23
    np.testing.assert_array_equal(dataset[3][0], IMAGES[3])
    assert dataset[3][1] == 3
    assert np.shares_memory(dataset.arrays[0], IMAGES)


def test_tensor_dataset_errors():
    for bad in ((), (IMAGES, LABELS[:-1]), (Tensor(1.0),)):
        with pytest.raises(ValueError, match="needs arrays of one length"):
            TensorDataset(*bad)


def test_generic_dataset_is_collated():
    images, labels, halves = next(iter(DataLoader(Squares(), 3)))
    assert (images.shape, labels.dtype, halves.dtype) == ((3, 1, 2, 2), np.int64, np.float32)
    np.testing.assert_array_equal(labels.numpy(), [0, 1, 2])
    np.testing.assert_array_equal(halves.numpy(), [0, 0.5, 1])


def test_items_that_are_no_tuples():
    class Single(Squares):
        def __getitem__(self, index):
            return np.full(2, index)

    assert [len(batch) for batch in DataLoader(Single(), 4)] == [1, 1]


@pytest.mark.parametrize("item", [lambda i: (np.zeros(i + 1),), lambda i: (0,) * (i + 1)])
def test_items_that_differ_are_reported(item):
    class Ragged(Squares):
        def __getitem__(self, index):
            return item(index)

    for prefetch in (0, 2):
        with pytest.raises(ValueError, match="items of a batch must agree in shape and number of fields"):
            list(DataLoader(Ragged(), 3, prefetch=prefetch))


def test_unfinished_dataset():
    with pytest.raises(NotImplementedError, match="Dataset needs __len__"):
        len(Dataset())
    with pytest.raises(NotImplementedError, match="Dataset needs __getitem__"):
        Dataset()[0]


# ---- the loader -------------------------------------------------------------------------------------------


def test_batches_and_their_types():
    batches = list(loader())
    assert [len(labels) for _, labels in batches] == [4] * 5 + [3]
    assert len(loader()) == 6 and len(loader(drop_last=True)) == len(list(loader(drop_last=True))) == 5
    images, labels = batches[0]
    assert isinstance(images, Tensor) and (images.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(images.numpy(), IMAGES[:4])
    np.testing.assert_array_equal(labels.numpy(), LABELS[:4])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(1, 7), st.booleans(), st.booleans(), st.integers(0, 3))
def test_an_epoch_visits_every_item_once(n, batch_size, shuffle, drop_last, prefetch):
    dataset = TensorDataset(np.arange(n))
    batches = DataLoader(dataset, batch_size, shuffle, drop_last, seed=0, prefetch=prefetch)
    seen = [int(i) for (batch,) in batches for i in batch.numpy()]
    assert len(set(seen)) == len(seen)
    assert len(seen) == (n // batch_size * batch_size if drop_last else n)


def test_each_epoch_has_its_own_order_which_can_be_set_again():
    data = loader(shuffle=True, transform=AUGMENT)
    first, second = arrays(data), arrays(data)
    assert not np.array_equal(first[0][1], second[0][1])
    data.set_epoch(0)
    assert_same(arrays(data), first)
    resumed = loader(shuffle=True, transform=AUGMENT)
    resumed.set_epoch(1)
    assert_same(arrays(resumed), second)


def test_order_and_batches_draw_from_different_streams():
    order = loader(shuffle=True).order(0)
    assert not np.array_equal(order, np.random.default_rng([1, 0, 0]).permutation(23))


def test_every_batch_of_every_epoch_draws_its_own_numbers():
    draws = []

    def draw(images, rng):
        draws.append(rng.random())
        return images

    data = loader(transform=draw, prefetch=0)
    for _ in range(2):
        list(data)
    assert len(set(draws)) == 12
    assert draws[7] == np.random.default_rng([1, 1, 1]).random()


@pytest.mark.parametrize("prefetch", [1, 2, 50])
def test_prefetch_changes_nothing(prefetch):
    kwargs = {"shuffle": True, "transform": AUGMENT}
    assert_same(arrays(loader(prefetch=prefetch, **kwargs)), arrays(loader(prefetch=0, **kwargs)))


def test_the_default_seed_comes_from_the_library():
    def order():
        random.manual_seed(4)
        return [DataLoader(TensorDataset(LABELS), shuffle=True).order(0) for _ in range(2)]

    (a, b), (c, d) = order(), order()
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)
    assert not np.array_equal(a, b)


def test_iterating_twice_at_once():
    data = loader(shuffle=True)
    expected = [arrays(loader(shuffle=True))]
    resumed = loader(shuffle=True)
    resumed.set_epoch(1)
    expected.append(arrays(resumed))
    pairs = list(zip(data, data, strict=True))
    assert_same(arrays(a for a, _ in pairs), expected[0])
    assert_same(arrays(b for _, b in pairs), expected[1])


def test_leaving_early_stops_the_thread():
    assert not prefetch_threads()
    batches = iter(loader(batch_size=1, prefetch=2))
    next(batches)
    assert len(prefetch_threads()) == 1
    batches.close()
    assert not prefetch_threads()
    for _ in loader(batch_size=1):
        break
    assert not prefetch_threads()


def test_the_thread_stays_within_its_bound():
    prepared, over = [], threading.Event()

    def watch(images, rng):
        prepared.append(1)
        if len(prepared) > 4:
            over.set()
        return images

    batches = iter(loader(batch_size=1, prefetch=3, transform=watch))
    next(batches)
    assert not over.wait(0.2)  # one taken and three ahead
    assert len(list(batches)) == 22 and over.is_set()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_reach_the_consumer_with_their_traceback(prefetch):
    def fails_on_third(images, rng):
        if images[0, 0, 0, 0] == IMAGES[8, 0, 0, 0]:
            raise KeyError("the third batch")
        return images

    seen = []
    with pytest.raises(KeyError, match="the third batch") as caught:
        for batch in loader(transform=fails_on_third, prefetch=prefetch):
            seen.append(batch)
    assert len(seen) == 2
    assert "fails_on_third" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not prefetch_threads()


def test_loader_errors():
    for kwargs, name in (
        ({"batch_size": 0}, "batch_size"),
        ({"prefetch": -1}, "prefetch"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
            loader(**kwargs)
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1, got 2.0"):
        loader(batch_size=2.0)
    with pytest.raises(ValueError, match="epoch must be an integer of at least 0, got -1"):
        loader().set_epoch(-1)


# ---- transforms -------------------------------------------------------------------------------------------


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalize(dtype):
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.1])
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(dtype)
    out = Normalize(mean, std)(images, rng())
    expected = (IMAGES / 255 - mean[:, None, None]) / std[:, None, None]
    assert out.dtype == (np.float32 if dtype == np.uint8 else dtype) and out.shape == IMAGES.shape
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    assert out.transpose(0, 2, 3, 1).flags.c_contiguous


def test_normalize_errors():
    with pytest.raises(ValueError, match="one entry for each channel and std must be positive"):
        Normalize([0.5, 0.5], [1.0])
    with pytest.raises(ValueError, match="std must be positive"):
        Normalize([0.5], [0.0])
    with pytest.raises(ValueError, match="Normalize has 1 channels, the images 3"):
        Normalize([0.5], [1.0])(IMAGES, rng())


def test_flip_mirrors_some_images_and_leaves_the_input():
    before = IMAGES.copy()
    out = RandomHorizontalFlip()(IMAGES, rng())
    np.testing.assert_array_equal(IMAGES, before)
    flipped = [np.array_equal(a, b[:, :, ::-1]) for a, b in zip(out, IMAGES, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, IMAGES, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True)) and 0 < sum(flipped) < 23
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(IMAGES, rng()), IMAGES[..., ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(IMAGES, rng()), IMAGES)
    with pytest.raises(ValueError, match=r"probability between 0 and 1, got 1.5"):
        RandomHorizontalFlip(1.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_crop_is_a_window_of_the_padded_image(height, width, padding, seed):
    out = RandomCrop((height, width), padding)(IMAGES[:5], np.random.default_rng(seed))
    assert out.shape == (5, 3, height, width) and out.dtype == np.uint8
    padded = np.pad(IMAGES[:5], [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2])
    for image, crop in zip(padded, out, strict=True):
        places = np.ndindex(8 + 2 * padding - height + 1, 6 + 2 * padding - width + 1)
        assert any(np.array_equal(image[:, i : i + height, j : j + width], crop) for i, j in places)


def test_crop_reaches_every_place():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    out = RandomCrop(1)(np.repeat(image, 500, axis=0), rng())
    assert set(out.ravel()) == set(range(1, 10))
    assert len({tuple(c.ravel()) for c in RandomCrop(3, 1)(np.repeat(image, 500, axis=0), rng())}) == 9


def test_crop_errors():
    with pytest.raises(ValueError, match=r"size \(9, 9\) is larger than images of 8×6 with padding 1"):
        RandomCrop(9, 1)(IMAGES, rng())
    with pytest.raises(ValueError, match="padding must be an integer of at least 0"):
        RandomCrop(2, -1)
    with pytest.raises(ValueError, match="size must be an integer of at least 1"):
        RandomCrop((0, 2))


@pytest.mark.parametrize("transform", [Normalize([0.5], [1.0]), RandomHorizontalFlip(), RandomCrop(2)])
def test_transforms_want_four_axes(transform):
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), got \(5, 8, 6\)"):
        transform(IMAGES[:5, 0], rng())


class PlainPairs:
    """A data set in PyTorch's sense that inherits from nothing."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.full(2, index, np.float32), index


@pytest.mark.parametrize("dataset", [PlainPairs(), [(np.full(2, i, np.float32), i) for i in range(3)]])
def test_any_sequence_of_items_is_a_data_set(dataset):
    (x, y), (x_last, y_last) = DataLoader(dataset, batch_size=2)
    np.testing.assert_array_equal(x.numpy(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(y.numpy(), [0, 1])
    np.testing.assert_array_equal(x_last.numpy(), [[2, 2]])
    assert y_last.dtype == np.int64


# ---- parts of data sets -----------------------------------------------------------------------------------


def numbered(count):
    return TensorDataset(np.arange(count, dtype=np.float32)[:, None], np.arange(count))


class Items:
    """A data set that is no Dataset."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return np.float32([index]), index


@pytest.mark.parametrize("dataset", [numbered(5), Items()])
def test_a_subset_has_its_items_in_its_order(dataset):
    part = Subset(dataset, [4, 0, 2])
    assert len(part) == 3 and part[1][0] == 0
    (values, labels) = next(iter(DataLoader(part, batch_size=3)))
    assert labels.numpy().tolist() == [4, 0, 2] and values.numpy().ravel().tolist() == [4, 0, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.integers(0, 9))
def test_a_random_split_shares_every_item_out_once(count, weights, seed):
    shares = [weight / sum(weights) for weight in weights]
    parts = random_split(numbered(count), shares, seed)
    assert sorted(i for part in parts for i in part.indices) == list(range(count))
    assert all(abs(len(part) - share * count) <= len(shares) for part, share in zip(parts, shares, strict=True))
    again = random_split(numbered(count), [len(part) for part in parts], seed)
    assert all((a.indices == b.indices).all() for a, b in zip(parts, again, strict=True))


def test_a_random_split_is_random_and_depends_on_the_seed():
    first, other = (random_split(numbered(1000), [0.9, 0.1], seed)[1].indices for seed in (0, 1))
    assert len(first) == 100 and 400 < first.mean() < 600 and set(first) != set(other)
    random.manual_seed(3)
    drawn = random_split(numbered(1000), [900, 100])[1].indices
    random.manual_seed(3)
    np.testing.assert_array_equal(random_split(numbered(1000), [900, 100])[1].indices, drawn)


@pytest.mark.parametrize("lengths", [[3, 3], [6, -1], [0.5, 0.6], [1.5, -0.5], []])
def test_a_split_must_add_up(lengths):
    with pytest.raises(
        ValueError, match="lengths must be shares that add up to 1, or numbers of items that add up to 5"
    ):
        random_split(numbered(5), lengths, 0)
