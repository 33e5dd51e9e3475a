"""The figures of the course pages, a test for each: what commands print, against arithmetic that is done here."""

import numpy as np
import pytest
from typer.testing import CliRunner

from tinytorch import Tensor, nn
from tinytorch.analysis import explain
from tinytorch.cli.main import app
from tinytorch.core.spatial import BatchNorm2d, Conv2d
from tinytorch.nn import functional as F


def printed(words: str, *more: str) -> str:
    """What `tinytorch explain …` prints, in one line."""
    result = CliRunner().invoke(app, ["explain", *words.split(), *more])
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


EXAMPLE = "conv --input 32,3,224,224 --out 64 --kernel 3 --padding 1"


# ---- the five questions -------------------------------------------------------------------------------------


def test_question_1_the_shape_of_a_5_by_5_convolution_with_stride_2():
    text = printed("conv --input 32,3,128,128 --out 64 --kernel 5 --stride 2 --padding 2")
    assert "⌊(128 + 2·2 − 5) / 2⌋ + 1 = ⌊127 / 2⌋ + 1 = ⌊63.5⌋ + 1 = 63 + 1 = 64" in text
    assert "→ (32, 64, 64, 64)" in text


def test_question_2_parameters_and_the_dense_layer():
    text = printed(EXAMPLE)
    assert "64 · 3 · 3 · 3 + 64 = 1,728 + 64 = 1,792 → 1,792 parameters" in text
    assert "3 · 224 · 224 · 64 = 150,528 · 64 = 9,633,792" in text


def test_question_3_is_3_699_376_128():
    assert 16 * 128 * 56 * 56 * 64 * 3 * 3 == 3_699_376_128
    text = printed("conv --input 16,64,56,56 --out 128 --kernel 3 --padding 1")
    assert "= 16 · 128 · 3,136 · 576 = 3,699,376,128 → 3,699,376,128 MACs ≈ 3.7 billion" in text


def test_question_4_is_822_083_584_bytes():
    assert 64 * 256 * 112 * 112 * 4 == 822_083_584 == 784 * 2**20
    text = printed("conv --input 64,3,224,224 --out 256 --kernel 7 --stride 2 --padding 3")
    assert "64 · 256 · 112 · 112 · 4 = 822,083,584 → 822,083,584 B = 822 MB = 784 MiB" in text


def test_question_5_is_a_field_of_12():
    text = printed("stack", "conv3 pool2 conv3 conv3")
    assert "r = 1 + (3 − 1)·1·1 = 3 r = 3 + (2 − 1)·1·1 = 4 r = 4 + (3 − 1)·1·2 = 8 r = 8 + (3 − 1)·1·2 = 12" in text
    assert "→ 12 pixels" in text


# ---- the table of misprints, row by row ---------------------------------------------------------------------


def test_the_example_takes_2_774_532_096_macs():
    assert 32 * 64 * 224 * 224 * 3 * 3 * 3 == 2_774_532_096
    assert "→ 2,774,532,096 MACs" in printed(EXAMPLE)


def test_values_that_were_not_rendered():
    assert "= 32 · 64 · 50,176 · 27 = 2,774,532,096 → 2,774,532,096 MACs ≈ 2.8 billion" in printed(EXAMPLE)
    seven = printed("conv --input 32,3,224,224 --out 64 --kernel 7 --padding 3")
    assert "7 · 7 / 3² = 49 / 9 ≈ 5.4 → 5.4×" in seven


def test_64_images_of_224_by_224_by_64_take_822_083_584_bytes():
    text = printed("conv --input 64,3,224,224 --out 64 --kernel 3 --padding 1")
    assert "64 · 64 · 224 · 224 · 4 = 822,083,584 → 822,083,584 B = 822 MB" in text


def test_5_376_times_fewer_parameters_than_a_dense_layer():
    assert 9_633_792 == 5_376 * 1_792
    assert "9,633,792 / 1,792 = 5,376 → 5,376×" in printed(EXAMPLE)


def test_a_map_of_224_by_224_by_64_and_its_pooling():
    assert 224 * 224 * 64 * 4 == 12_845_056 == 4 * 3_211_264
    text = printed("pool --input 1,64,224,224 --kernel 2")
    assert "→ 12,845,056 B = 12.8 MB = 12.25 MiB" in text and "→ 3,211,264 B = 3.21 MB" in text
    assert "→ 4× 9,633,792 B = 9.63 MB" in text


def test_411_mb_are_392_mib():
    assert 32 * 64 * 224 * 224 * 4 == 411_041_792 == 392 * 2**20
    assert "→ 411,041,792 B = 411 MB = 392 MiB" in printed(EXAMPLE)


def test_the_cost_is_linear_in_pixels_and_quadratic_in_the_side():
    text = printed(EXAMPLE)
    assert (
        "346,816,512 / 86,704,128 = 4 → 4×" in text
        and "linear in the number of pixels, so quadratic in the side" in text
    )
    one, wide, large = (
        explain.conv((1, 3, h, w), 64, 3, padding=1)["macs"].number for h, w in ((224, 224), (224, 448), (448, 448))
    )
    assert (wide, large) == (2 * one, 4 * one)


def test_the_floor_is_the_point():
    text = printed("conv --input 1,3,224,224 --out 64 --kernel 3 --stride 2 --padding 1")
    assert "⌊(224 + 2·1 − 3) / 2⌋ + 1 = ⌊223 / 2⌋ + 1 = ⌊111.5⌋ + 1 = 111 + 1 = 112" in text
    assert "The floor is the point" in text


def test_the_example_of_the_error_gives_111_and_another_55():
    text = printed("conv --input 1,3,224,224 --out 64 --kernel 3 --stride 2")
    assert "⌊221 / 2⌋ + 1 = ⌊110.5⌋ + 1 = 110 + 1 = 111" in text
    assert "→ (32, 128, 55, 55)" in printed("conv --input 32,64,112,112 --out 128 --kernel 3 --stride 2")


def test_padding_does_not_give_edge_pixels_as_many_windows():
    assert "→ corner 4, edge 6, inner 9 windows" in printed("conv --input 1,1,5,5 --out 1 --kernel 3 --padding 1")
    x = Tensor(np.zeros((1, 1, 5, 5)), requires_grad=True)
    F.conv2d(x, Tensor(np.ones((1, 1, 3, 3))), padding=1).sum().backward()
    windows = x.grad[0, 0]
    assert explain.conv((1, 1, 5, 5), 1, 3, padding=1)["windows"].number == (
        windows[0, 0],
        windows[0, 2],
        windows[2, 2],
    )


def test_a_missing_batch_dimension_raises():
    with pytest.raises(ValueError, match=r"Expected 4D input \(batch, channels, height, width\), got \(3, 224, 224\)"):
        Conv2d(3, 64, 3)(Tensor(np.zeros((3, 224, 224), np.float32)))
    text = printed("conv --input 3,224,224 --out 64 --kernel 3")
    assert "Conv1d(224, 64, kernel_size=3)" in text and "that is 1,3,224,224" in text


def test_winograd_saves_2_25_and_4_and_2_78_times():
    three, five = printed(EXAMPLE), printed("conv --input 1,64,56,56 --out 64 --kernel 5 --padding 2")
    assert (
        "F(2×2, 3×3): how many times fewer multiplications? m²·k² / (m + k − 1)² 2²·3² / (2 + 3 − 1)² = 36 / 16 = 2.25 → 2.25×"
        in three
    )
    assert "4²·3² / (4 + 3 − 1)² = 144 / 36 = 4 → 4×" in three
    assert "2²·5² / (2 + 5 − 1)² = 100 / 36 ≈ 2.78 → 2.78×" in five


def test_the_example_takes_plain_python_many_minutes():
    assert 5 * 60 < explain.conv((32, 3, 224, 224), 64, 3, padding=1)["plain_loops"].number < 3600
    assert "→ about 17.8 minutes" in printed(EXAMPLE)


def test_parameters_of_32_to_64_channels_with_and_without_bias():
    command = "conv --input 1,32,14,14 --out 64 --kernel 3"
    assert "64 · 32 · 3 · 3 = 18,432 → 18,432 parameters" in printed(f"{command} --no-bias")
    assert "= 18,432 + 64 = 18,496 → 18,496 parameters" in printed(command)


def test_simple_cnn_has_25_578_parameters_120_times_fewer_than_dense():
    drawn, shape = "conv3p1c16 relu pool2 conv3p1c32 relu pool2", ("--input", "1,3,32,32", "--dense", "1000")
    assert "448 + 4,640 = 5,088 → 5,088 parameters" in printed("stack", drawn, *shape)
    whole = printed("stack", f"{drawn} linear10", *shape)
    assert "448 + 4,640 + 20,490 = 25,578 → 25,578 parameters" in whole
    assert "3,072,000 / 25,578 ≈ 120 → 120×" in whole


def test_batch_norm_of_one_image_destroys_the_signal_only_where_it_has_one_pixel():
    assert "1 · 1 · 1 = 1 → 1 value" in printed("batchnorm --input 1,64,1,1")
    assert "1 · 8 · 8 = 64 → 64 values" in printed("batchnorm --input 1,64,8,8")
    with pytest.raises(ValueError, match="needs more than one value per channel"):
        BatchNorm2d(2)(Tensor(np.ones((1, 2, 1, 1), np.float32)))
    image = np.random.default_rng(0).normal(5, 3, (1, 2, 8, 8)).astype(np.float32)
    y = BatchNorm2d(2)(Tensor(image)).data
    expected = (image - image.mean((2, 3), keepdims=True)) / np.sqrt(image.var((2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "numbers"), [("8,64,28,28", 401_408), ("1,3,2,2", 12)])
def test_floating_point_operations_of_batch_norm(shape, numbers):
    text = printed(f"batchnorm --input {shape}")
    assert f"→ {2 * numbers:,} FLOPs" in text and f"→ {6 * numbers:,} FLOPs" in text


def test_a_flatten_by_data_cuts_the_graph_and_the_differentiable_one_does_not():
    conv = nn.Conv2d(1, 2, 3)
    x = Tensor(np.ones((1, 1, 5, 5), np.float32))
    features = conv(x)
    assert not Tensor(features.data.reshape(1, -1)).requires_grad
    features.flatten(1).sum().backward()
    assert conv.weight.grad is not None and np.abs(conv.weight.grad).max() > 0


# ---- right as printed ---------------------------------------------------------------------------------------


def test_five_3_by_3_convolutions_see_11_pixels():
    assert "= 11 → 11 pixels" in printed("stack", " ".join(["conv3"] * 5))


def test_a_dense_first_layer_has_154_million_parameters():
    assert 224 * 224 * 3 == 150_528
    assert "150,528 · 1,024 = 154,140,672" in printed("linear --input 1,150528 --out 1024 --no-bias")


def test_the_worked_window_is_15():
    image, kernel = "1 2 3 4 5, 2 3 4 5 6, 3 4 5 6 7, 4 5 6 7 8, 5 6 7 8 9", "1 0 1, 0 1 0, 1 0 1"
    text = printed("window", image, kernel)
    assert "y = 1·1 + 2·0 + 3·1 + 2·0 + 3·1 + 4·0 + 3·1 + 4·0 + 5·1 = 15 → 15" in text
    rows, taps = ([[int(n) for n in row.split()] for row in rows.split(",")] for rows in (image, kernel))
    y = F.conv2d(Tensor([[rows]]).float(), Tensor([[taps]]).float())
    assert explain.window(rows, taps)["outputs"].number == tuple(y.data.ravel().astype(int))


def test_196_patches_of_768():
    text = printed("conv --input 1,3,224,224 --out 768 --kernel 16 --stride 16")
    assert "→ (1, 768, 14, 14)" in text and "1 · 768 · 196 · 768" in text


def test_448_parameters_of_3_to_16_channels():
    assert "= 432 + 16 = 448 → 448 parameters" in printed("conv --input 1,3,32,32 --out 16 --kernel 3 --padding 1")
