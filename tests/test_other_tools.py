"""docs/other-tools.md: its truth is the products counted one by one, and its arithmetic is right."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "other-tools.md").read_text()


@pytest.fixture(scope="module")
def tools():
    """The script, which needs none of the tools until it runs them."""
    spec = importlib.util.spec_from_file_location("compare_tools", DOCS / "compare_tools.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# ---- the truth, one product at a time -------------------------------------------------------------------------------


class Number:
    """Knows nothing but how often it was multiplied."""

    products = 0

    def __mul__(self, other):
        Number.products += 1
        return self

    def __add__(self, other):
        return self

    __radd__ = __add__


def numbers(*shape) -> np.ndarray:
    return np.full(shape, Number(), object)


def multiplications(work) -> int:
    Number.products = 0
    work()
    return Number.products


def gather(x, w, out_shape, stride, dilation, padding, groups):
    """A convolution: for each output, its window times one filter."""
    x = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * (x.ndim - 2)], constant_values=Number())
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for n, co, *place in np.ndindex(out_shape):
        channels = slice(co // per_out * per_in, (co // per_out + 1) * per_in)
        window = [
            slice(p * stride, p * stride + dilation * (k - 1) + 1, dilation)
            for p, k in zip(place, w.shape[2:], strict=True)
        ]
        (x[(n, channels, *window)] * w[co]).sum()


def scatter(x, w):
    """A transposed convolution: each input times all its filters, and the products are spread over the output."""
    for n, ci, *place in np.ndindex(x.shape):
        w[ci] * x[(n, ci, *place)]


def counted(tools, function) -> int:
    """MACs by the script of what a function does with tensors."""
    found: list = []
    with tools.Products(found):
        function()
    return sum(product.macs for product in found)


CONVOLUTIONS = st.fixed_dictionaries(
    {
        "dims": st.integers(1, 3),
        "batch": st.integers(0, 2),
        "groups": st.integers(1, 3),
        "per_in": st.integers(1, 2),
        "per_out": st.integers(1, 2),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 2),
        "dilation": st.integers(1, 2),
        "padding": st.integers(0, 2),
        "bias": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(c=CONVOLUTIONS)
def test_convolutions_are_counted_window_by_window(tools, c):
    x = torch.zeros(c["batch"], c["groups"] * c["per_in"], *range(5, 5 + c["dims"]))
    w = torch.zeros(c["groups"] * c["per_out"], c["per_in"], *[c["kernel"]] * c["dims"])
    bias = torch.zeros(w.shape[0]) if c["bias"] else None
    options = {name: c[name] for name in ("stride", "dilation", "padding", "groups")}

    def run():
        return getattr(F, f"conv{c['dims']}d")(x, w, bias, **options)

    brute = multiplications(lambda: gather(numbers(*x.shape), numbers(*w.shape), run().shape, **options))
    assert counted(tools, run) == brute


@settings(max_examples=40, deadline=None)
@given(c=CONVOLUTIONS)
def test_transposed_convolutions_are_counted_pixel_by_pixel(tools, c):
    x = torch.zeros(c["batch"], c["groups"] * c["per_in"], *range(3, 3 + c["dims"]))
    w = torch.zeros(c["groups"] * c["per_in"], c["per_out"], *[c["kernel"]] * c["dims"])
    options = {name: c[name] for name in ("stride", "dilation", "groups")}
    run = getattr(F, f"conv_transpose{c['dims']}d")
    assert counted(tools, lambda: run(x, w, **options)) == multiplications(
        lambda: scatter(numbers(*x.shape), numbers(*w.shape))
    )


A, B, C = torch.zeros(2, 3), torch.zeros(3, 4), torch.zeros(4)
BATCH, OTHERS = torch.zeros(2, 5, 3), torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("one", "other", "run"),
    [
        (A, B, lambda: A @ B),
        (A, B, lambda: torch.addmm(C, A, B)),
        (A, B, lambda: F.linear(A, B.T, C)),
        (A, B, lambda: torch.einsum("ij,jk->ik", A, B)),
        (BATCH, B, lambda: F.linear(BATCH, B.T)),
        (BATCH, B, lambda: F.linear(BATCH, B.T, C)),
        (BATCH, OTHERS, lambda: BATCH @ OTHERS),
        (BATCH, OTHERS, lambda: torch.baddbmm(C, BATCH, OTHERS)),
        (BATCH, OTHERS, lambda: torch.einsum("bij,bjk->bik", BATCH, OTHERS)),
    ],
)
def test_matrix_products_are_counted_one_by_one(tools, one, other, run):
    assert counted(tools, run) == multiplications(lambda: np.matmul(numbers(*one.shape), numbers(*other.shape)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_its_two_products(tools, device):
    q, k, v = (torch.zeros(2, 3, tokens, width, device=device) for tokens, width in ((4, 5), (6, 5), (6, 5)))

    def brute():
        rows = np.matmul(numbers(2, 3, 4, 5), numbers(2, 3, 5, 6))
        np.matmul(rows, numbers(2, 3, 6, 5))

    assert counted(tools, lambda: F.scaled_dot_product_attention(q, k, v)) == multiplications(brute)


def test_a_product_without_a_rule_is_not_left_out(tools):
    with pytest.raises(NotImplementedError, match="mv multiplies, and no rule counts it; add one to PRODUCTS"):
        counted(tools, lambda: torch.mv(B, C))


def test_networks_are_the_sum_of_their_layers(tools):
    """By hand: the two networks that no layer's formula covers."""
    tokens, width = 64, 64
    attention = 4 * tokens * width * width + 2 * tokens * tokens * width
    mlp = 2 * tokens * width * 4 * width
    assert tools.truth("attention").macs == tokens * 8 * 8 * 3 * width + attention + mlp + 10 * width
    pixels = 16 * 16
    convolutions = pixels * 9 * (16 * 3 + 2 * 16 * 16)
    branches = 2 * (16 * 32 + 32 * 32)
    shared = tools.truth("shared")
    assert shared.macs == convolutions + 2 * pixels * pixels * 16 + 16 * 16 + branches + 2 * 32 * 32
    assert shared.parameters == 16 * 27 + 16 * 16 + 16 * 16 * 9 + 2 * 16 * 32 + 32 * 32 + 32 * 32


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_trace_knows_who_made_a_product(tools, device):
    """Also with attention on a CPU, where it is one operator."""
    found = tools.trace(tools.Attention().to(device), tools.SMALL)
    assert found.macs == tools.truth("attention").macs
    (call,) = [call for call in found.calls if isinstance(call.layer, nn.MultiheadAttention)]
    assert tools.inner(call) == 2 * 64 * 64 * 64
    assert call.macs == 4 * 64 * 64 * 64 + tools.inner(call)


# ---- memory and receptive field -------------------------------------------------------------------------------------


def test_receptive_field_of_a_chain(tools):
    """By the formula of a chain: 1 + Σ (kernel − 1) · stride of all before."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, dilation=2)
    )
    assert tools.receptive_field(model, 96) == 1 + 4 + 2 * 2 + 4 * 4


def test_kept_bytes_are_those_of_activations(tools):
    """Of two convolutions with ReLU between: the ReLU's output, which the second also needs, once."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    assert tools.kept_bytes(model, (1, 1, 8, 8)) == 2 * 6 * 6 * 4


# ---- the page -------------------------------------------------------------------------------------------------------

PUBLISHED = {  # by torchvision, of its weights: GFLOPS (multiply-adds) and parameters
    "resnet18": (1.814, 11_689_512),
    "resnet50": (4.089, 25_557_032),
    "vgg16": (15.47, 138_357_544),
    "alexnet": (0.714, 61_100_840),
    "mobilenet_v2": (0.301, 3_504_872),
}


def tables(text: str) -> list[list[dict[str, str]]]:
    """Tables as rows by heading."""
    found = []
    for head, body in re.findall(r"^(\|.*)\n\|[-| ]+\n((?:\|.*\n?)+)", text, re.M):
        names = [name.strip() for name in head.strip("|").split("|")]
        cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in body.splitlines()]
        found.append([dict(zip(names, row, strict=True)) for row in cells])
    return found


def number(text: str) -> int:
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))


def amounts(text: str) -> int:
    return sum(int(n.replace(",", "").replace("−", "-")) for n in re.findall(r"[+−][\d,]*\d", text))


def wrong_rows(text: str) -> list[str]:
    """Rows whose ratio is not figure / truth, or whose reasons are not the whole difference."""
    rows = [row for table in tables(text) for row in table if "ratio" in row and "truth" in row]
    return [" ".join(row.values()) for row in rows if not right(row)] if rows else ["no row"]


def right(row: dict[str, str]) -> bool:
    figure, truth = number(next(row[name] for name in row if name.endswith("it counts"))), number(row["truth"])
    share = "exact" if figure == truth else f"{figure / truth:.4f}"
    why = [row[name] for name in ("other work", "products missed or miscounted", "why") if name in row]
    return row["ratio"] == share and figure - truth == sum(amounts(text) for text in why)


def overviews() -> dict[str, list[dict[str, str]]]:
    macs, parameters = [table for table in tables(PAGE) if "thop" in table[0]]
    return {"macs": macs, "parameters": parameters}


def test_reasons_add_up_to_the_difference():
    assert wrong_rows(PAGE) == []
    assert "unexplained" not in PAGE


def test_wrong_rows_are_found():
    head = "| network | MACs it counts | truth | ratio | other work |\n| --- | --- | --- | --- | --- |\n"
    assert wrong_rows(f"{head}| a | 1,100 | 1,000 | 1.1000 | bias +200, attention −100 |\n") == []
    for row in ("1,100 | 1,000 | 1.1001 | bias +100", "1,100 | 1,000 | 1.1000 | bias +99", "9 | 9 | 1.0000 | "):
        assert len(wrong_rows(f"{head}| a | {row} |\n")) == 1
    assert wrong_rows("nothing") == ["no row"]


def test_memory_ratios():
    (rows,) = [table for table in tables(PAGE) if "kept by autograd" in table[0]]
    for row in rows:
        figure, kept, share = list(row.values())[1:]
        assert share == f"{number(figure) / number(kept):.4f}"


def test_every_tool_has_the_ten_networks(tools):
    sections = re.split(r"^### ", PAGE.partition("## Each tool")[2].partition("\n## ")[0], flags=re.M)[1:]
    assert [section.splitlines()[0] for section in sections] == [tool.name for tool in tools.TOOLS]
    for tool, section in zip(tools.TOOLS, sections, strict=True):
        assert tool.convention in section
        assert tool.right in section
        assert all(f"- {cause.name}: {cause.why}" in section for cause in tool.causes)
        for table in tables(section):
            assert [row["network"] for row in table] == list(tools.NETWORKS)


def test_overview_says_what_the_sections_say():
    """The same truth and ratios; bold exactly where products are wrong."""
    by_network = {row["network"]: row for row in overviews()["macs"]}
    for section in re.split(r"^### ", PAGE.partition("## Each tool")[2], flags=re.M)[1:-1]:
        name = section.splitlines()[0]
        for row in tables(section)[0]:
            share = f"**{row['ratio']}**" if row["products missed or miscounted"] else row["ratio"]
            assert (by_network[row["network"]][name], by_network[row["network"]]["truth"]) == (share, row["truth"])


def test_truth_is_what_torchvision_publishes():
    macs, parameters = ({row["network"]: number(row["truth"]) for row in table} for table in overviews().values())
    for name, (giga, elements) in PUBLISHED.items():
        assert (round(macs[name] / 1e9, 3), parameters[name]) == (giga, elements)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("key", ["macs", "parameters"])
def test_truth_on_the_page_is_that_of_the_script(tools, key):
    rows = {row["network"]: number(row["truth"]) for row in overviews()[key]}
    assert list(rows) == list(tools.NETWORKS)
    own = [name for name in rows if name not in PUBLISHED]
    assert {name: getattr(tools.truth(name), key) for name in own} == {name: rows[name] for name in own}


def test_causes_explain_nothing_that_is_not_there(tools):
    """A plain convolution without bias: every tool's causes are silent, so any difference is unexplained."""
    plain = tools.trace(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)), (1, 3, 8, 8))
    for tool in tools.TOOLS:
        assert tools.account(plain.macs, plain.macs, tool.causes, plain) == ({}, {}), tool.name
        assert tools.account(plain.macs + 7, plain.macs, tool.causes, plain) == ({}, {"unexplained": 7})


def test_a_tool_that_fails_is_reported(tools):
    def broken(model, shape):
        raise RuntimeError("no such operator\nand more")

    found = tools.attempt(broken, tools.grouped, (1, 16, 32, 32))
    assert found.failure == "does not run: RuntimeError: no such operator"
    assert tools.cell(found, "macs", (), tools.truth("grouped")) == "does not run"


def test_our_figures_make_a_column(tools, tmp_path, monkeypatch):
    """Without the tools: those fail, and the page says so."""
    traces = {"grouped": tools.truth("grouped")}
    results = {tool.name: {"grouped": tools.Found(failure="does not run")} for tool in tools.TOOLS}
    for key, true in (("macs", 17_104_896), ("parameters", 15_744)):
        for figure, share in ((true, "exact"), (2 * true, "**2.0000**"), (None, "–")):
            (table,) = tables(tools.overview(key, traces, results, {"grouped": tools.Found(**{key: figure})}))
            assert (table[0]["tinytorch"], table[0]["truth"]) == (share, f"{true:,}")
    ours = tmp_path / "ours.json"
    ours.write_text(json.dumps({"grouped": {"parameters": 1, "macs": 2}}))
    monkeypatch.setattr(tools, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(tools, "page", repr)
    tools.main(["--ours", str(ours)])
    assert (tmp_path / "page.md").read_text() == repr({"grouped": tools.Found(parameters=1, macs=2)})
