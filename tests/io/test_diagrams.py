"""Pictures are checked square by square, through the artists that matplotlib draws."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from tinytorch.conv.problem import Axis, ConvProblem
from tinytorch.io import diagrams


def squares(figure, kind: str) -> list[tuple[float, float]]:
    """(row, column) of the squares of a kind."""
    return [(p.get_y(), p.get_x()) for p in figure.axes[0].patches if p.get_gid() == kind]


def kinds(figure) -> Counter:
    return Counter(p.get_gid() for p in figure.axes[0].patches)


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def windows_of(axes, window: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Places under a window in the padded input, found by sliding it over the places' numbers."""
    padded = [axis.before + axis.size + axis.after for axis in axes]
    extents = [(axis.kernel - 1) * axis.dilation + 1 for axis in axes]
    numbers = np.arange(np.prod(padded)).reshape(padded)
    views = sliding_window_view(numbers, extents)[tuple(slice(None, None, axis.stride) for axis in axes)]
    taps = views[window][tuple(slice(None, None, axis.dilation) for axis in axes)]
    return set(zip(*(places.tolist() for places in np.unravel_index(taps.ravel(), padded)), strict=True))


GRIDS = [
    ((Axis(7, 3, 2, 1, 1, 2), Axis(7, 3, 2, 1, 1, 2)), [(0, 0), (2, 2)]),
    ((Axis(5, 3, 1, 0, 1), Axis(5, 3, 1, 1, 2)), [(0, 0), (3, 5)]),
    ((Axis(4, 2, 2), Axis(6, 1, 1, 0, 0, 3)), [(1, 4), (0, 0), (1, 5)]),
    ((Axis(5, 3, 1, 2, 0), Axis(4, 3, 1)), [(1, 0), (1, 1), (2, 1)]),
]


@pytest.mark.parametrize("axes, windows", GRIDS)
@pytest.mark.parametrize(
    "draw, body, ring",
    [(diagrams.gather, "input", "padding, zeros"), (diagrams.scatter, "output", "cut off by padding")],
)
def test_windows_lie_where_they_slide(axes, windows, draw, body, ring):
    rows, columns = axes
    figure = draw(axes, windows)
    image = squares(figure, "image")[0]
    origin = image[0] - rows.before, image[1] - columns.before
    for i, window in enumerate(windows):
        drawn = {(int(row - origin[0]), int(column - origin[1])) for row, column in squares(figure, f"tap {i}")}
        assert drawn == windows_of(axes, window)
    size, padded = rows.size * columns.size, np.prod([axis.before + axis.size + axis.after for axis in axes])
    assert kinds(figure)[body] == size
    assert kinds(figure)[ring] == padded - size


def test_squares_are_as_many_as_pixels():
    axes = ConvProblem.of((1, 1, 7, 7), (1, 1, 3, 3), 2, 1, 2).axes
    counted = kinds(diagrams.gather(axes))
    assert counted == {
        "input": 49, "padding, zeros": 81 - 49, "output": 9, "output 0": 1, "output 1": 1, "tap 0": 9, "tap 1": 9,
        "window 0": 1, "window 1": 1, "image": 1, "legend": 2,
    }  # fmt: skip
    assert {"input 7 × 7", "output 3 × 3", "kernel 3 × 3\nstride 2\ndilation 2"} <= set(texts(diagrams.gather(axes)))


def test_windows_that_meet_share_a_square():
    figure = diagrams.gather([Axis(5, 3)], [(0, 0), (0, 1), (0, 2)])
    widths = {p.get_x(): p.get_width() for p in figure.axes[0].patches if p.get_gid() == "tap 0"}
    assert widths == {0: 1, 1: pytest.approx(1 / 2), 2: pytest.approx(1 / 3)}
    shared = [p for p in figure.axes[0].patches if p.get_gid().startswith("tap") and 2 <= p.get_x() < 3]
    assert [p.get_x() for p in shared] == pytest.approx([2, 2 + 1 / 3, 2 + 2 / 3])


def test_output_pixels_of_windows_are_coloured_as_their_taps():
    figure = diagrams.gather([Axis(6, 2, 2), Axis(6, 2, 2)], [(1, 0), (2, 2)])
    top, left = min(squares(figure, "output"))
    places = [squares(figure, f"output {i}")[0] for i in range(2)]
    assert [(row - top, column - left) for row, column in places] == [(1, 0), (2, 2)]
    colour = {p.get_gid(): p.get_facecolor() for p in figure.axes[0].patches}
    assert colour["tap 0"] == colour["output 0"] != colour["output 1"] == colour["tap 1"]


def test_taps_on_padding_are_paler():
    figure = diagrams.gather([Axis(3, 3, 1, 1, 1)], [(0, 0)])
    brightness = {p.get_x(): sum(p.get_facecolor()) for p in figure.axes[0].patches if p.get_gid() == "tap 0"}
    assert brightness[0] > brightness[1] == brightness[2]


def test_each_padding_mode_has_its_shade():
    def shade(mode):
        figure = diagrams.gather([Axis(3, 3, 1, 1, 1)], [(0, 1)], mode)
        assert f"padding, {mode}" in texts(figure)
        return next(p.get_facecolor() for p in figure.axes[0].patches if p.get_gid() == f"padding, {mode}")

    assert len({shade(mode) for mode in ("zeros", "reflect", "replicate", "circular")}) == 4


def test_scatter_is_drawn_from_the_input():
    problem, _ = ConvProblem.transposed((1, 1, 3, 3), (1, 1, 3, 3), 2, 1, 1)
    counted = kinds(diagrams.scatter(problem.axes, [(0, 0)]))
    assert (counted["input"], counted["input 0"], counted["output"], counted["tap 0"]) == (9, 1, 36, 9)
    assert counted["cut off by padding"] == 7 * 7 - 36
    assert {"input 3 × 3", "output 6 × 6"} <= set(texts(diagrams.scatter(problem.axes)))


def test_strips():
    figure = diagrams.strips({"short": Axis(6, 3, 2), "same": Axis(6, 3, 2, 0, 1), "long": Axis(6, 3, 2)}, {"long": 3})
    counted = kinds(figure)
    assert (counted["input"], counted["padding"], counted["beyond"]) == (18, 1, 1)
    assert [counted[f"tap {i}"] for i in range(4)] == [9, 9, 6, 0]
    assert sorted({column for _, column in squares(figure, "tap 2")}) == [4, 5, 6]
    assert [text for text in texts(figure) if "output" in text] == ["2 outputs", "3 outputs", "3 outputs"]


def test_windows_of_a_strip_never_lie_on_each_other():
    figure = diagrams.strips({"line": Axis(9, 3, 1, 1, 1, 2)})
    taps = [place for i in range(7) for place in squares(figure, f"tap {i}")]
    assert len(taps) == len(set(taps)) == 7 * 3


def test_channels_are_linked_within_groups():
    figure = diagrams.channels({"two": ConvProblem.of((1, 4, 3, 3), (6, 2, 3, 3), groups=2)})
    links = {tuple(map(int, line.get_gid().split()[1:])) for line in figure.axes[0].lines}
    assert links == {(i, o) for i in range(4) for o in range(6) if i // 2 == o // 3}
    counted = kinds(figure)
    assert [counted[kind] for kind in ("input 0", "input 1", "output 0", "output 1")] == [2, 2, 3, 3]


def test_sheets_show_numbers():
    image = np.arange(12.0).reshape(3, 4) / 4
    figure = diagrams.sheets({"a": image, "b": -image}, (1, 1, 1, 0))
    assert kinds(figure) == {"pixel": 2 * 4, "padding": 2 * 8, "image": 2}
    assert texts(figure)[:13] == ["0", ".25", ".5", ".75", "1", "1.25", "1.5", "1.75", "2", "2.25", "2.5", "2.75", "a"]
    assert texts(figure)[13:16] == ["0", "−.25", "−.5"]


def test_numbers_are_short():
    figure = diagrams.sheets({"a": np.array([[10.5, 100.0, -0.5, -0.001, 0.004, -20.0, 2.346]])})
    assert texts(figure)[:7] == ["10.5", "100", "−.5", "0", "0", "−20", "2.35"]


def test_larger_numbers_are_darker():
    figure = diagrams.sheets({"a": np.array([[3, 1, 2]])})
    brightness = [sum(p.get_facecolor()) for p in figure.axes[0].patches if p.get_gid() == "pixel"]
    assert brightness[1] > brightness[2] > brightness[0]


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_sheets_do_not_overlap(columns):
    figure = diagrams.sheets(
        {"a": np.ones((2, 3)), "a long name": np.ones((4, 1)), "b": np.ones((1, 1))}, columns=columns
    )
    assert len(set(squares(figure, "pixel"))) == 6 + 4 + 1


def test_masks():
    mask = np.random.default_rng(0).random((2, 3, 4, 5)) < 0.4
    figure = diagrams.masks({"a": mask, "b": ~mask}, columns=1)
    assert kinds(figure) == {"chosen": mask.size, "input": mask.size}
    drawn = np.zeros((2 * 5, 3 * 6), bool)
    for row, column in squares(figure, "chosen"):
        if row < 10:
            drawn[int(row), int(column)] = True
    assert (drawn.reshape(2, 5, 3, 6)[:, :4, :, :5].transpose(0, 2, 1, 3) == mask).all()


def test_a_picture_holds_what_was_drawn(tmp_path):
    diagrams.save(diagrams.gather([Axis(8, 3, 2, 1, 1)]), tmp_path / "a.png")
    image = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert image.shape[1] > image.shape[0] > 50
    assert (image == (0xE6, 0x9F, 0x00)).all(axis=2).any()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_what_is_refused():
    axis = Axis(5, 3)
    with pytest.raises(ValueError, match=r"axes must be one or two, .* got 3; leave the depth out"):
        diagrams.gather([axis] * 3)
    with pytest.raises(ValueError, match=r"windows must be .* less than \(1, 3\), got \(0, 3\); they count from 0"):
        diagrams.scatter([axis], [(0, 0), (0, 3)])
    with pytest.raises(ValueError, match=r"windows must be \(row, column\) .* got \(1,\); they count from 0"):
        diagrams.gather([axis], [(1,)])
    with pytest.raises(ValueError, match=r"padding_mode must be one of \['zeros', .*\], got 'ones'"):
        diagrams.gather([axis], padding_mode="ones")
    with pytest.raises(
        ValueError, match=r"windows must be for lines that are drawn, got \['b'\]; the lines are \['a'\]"
    ):
        diagrams.strips({"a": axis}, {"b": 3})
    for name, draw in [
        ("lines", diagrams.strips),
        ("problems", diagrams.channels),
        ("images", diagrams.sheets),
        ("chosen", diagrams.masks),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"{name} must hold something to draw")):
            draw({})


def test_matplotlib_is_imported_only_when_it_draws():
    code = "import sys, tinytorch.io.diagrams; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
