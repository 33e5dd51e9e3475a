"""Holds what other tools say of ten networks against a count of every product: ``python docs/compare_tools.py``.

Writes docs/other-tools.md. Needs PyTorch, torchvision and the tools: torchinfo fvcore ptflops thop calflops (and its
transformers) torchscan keras. ``--models-from FOLDER`` takes torchvision from a folder that holds its sources, for a
PyTorch that its compiled part does not fit (there, its ``__init__.py`` needs no more than ``__version__``);
``--ours FILE`` adds a column of figures, of the form ``{"resnet18": {"parameters": 11689512, "macs": 1814073344}}``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import math
import os
import platform
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

PAGE = Path(__file__).parent / "other-tools.md"
Shape = tuple[int, ...]

# ---- the truth ------------------------------------------------------------------------------------------------------


def convolution_macs(x, weight, bias, stride, padding, dilation, transposed, *_, out) -> int:
    """Each weight once for every place: output pixels, or input pixels if each of those is spread over the output."""
    places = x if transposed else out
    return weight.numel() * places.shape[0] * math.prod(places.shape[2:])


def matrix_macs(one, other, **_) -> int:
    return one.numel() * other.shape[-1]


def attention_macs(query, key, value, *_, **__) -> int:
    """Q·Kᵀ, then its rows times V."""
    rows = query.numel() // query.shape[-1]
    return rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


PRODUCTS: dict[str, tuple[str, Callable[..., int]]] = {
    "convolution": ("convolution", convolution_macs),
    "mm": ("matrix", matrix_macs),
    "addmm": ("matrix", lambda bias, one, other, **_: matrix_macs(one, other)),
    "bmm": ("batch", matrix_macs),
    "baddbmm": ("batch", lambda bias, one, other, **_: matrix_macs(one, other)),
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", attention_macs),
    "_scaled_dot_product_fused_attention_overrideable": ("attention", attention_macs),
}
HEAVY = re.compile(r"conv|mm(_|$)|mv(_|$)|dot|attention|rnn|lstm|gru|^linear|einsum|matmul|_trilinear$")


@dataclass(frozen=True)
class Product:
    """One convolution or matrix product, and the elements that a bias is added to in the same call."""

    kind: str
    macs: int
    bias: int


@dataclass(frozen=True)
class Call:
    """A module called once: the products made meanwhile, and of how many modules it is a child."""

    layer: Any
    input: torch.Size
    output: torch.Size
    products: list[Product]
    holders: int

    @property
    def macs(self) -> int:
        return sum(product.macs for product in self.products)


@dataclass
class Trace:
    """A forward pass: its products, the modules called, and the functions called with the size of their first input."""

    model: nn.Module
    products: list[Product] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    functions: list[tuple[Any, int]] = field(default_factory=list)

    @property
    def macs(self) -> int:
        return sum(product.macs for product in self.products)

    @property
    def parameters(self) -> int:
        return parameters(self.model)


class Products(TorchDispatchMode):
    """Counts at the level where PyTorch runs operators: layers, functions and ``@`` all end there.

    Raises
    ------
    NotImplementedError
        For an operator that multiplies matrices and has no rule here: nothing is left out in silence.
    """

    def __init__(self, found: list[Product]):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        name = operator._schema.name.removeprefix("aten::")
        if name in PRODUCTS:
            self.found.append(product(name, args, out))
        elif HEAVY.search(name):
            raise NotImplementedError(f"{name} multiplies, and no rule counts it; add one to PRODUCTS")
        return out


def product(name: str, args: tuple, out) -> Product:
    kind, macs = PRODUCTS[name]
    biased = name == "addmm" or (name == "convolution" and args[2] is not None)
    return Product(kind, macs(*args, out=out), out.numel() if biased else 0)


class Functions(TorchFunctionMode):
    """Records the calls of torch's Python functions that take a tensor first."""

    def __init__(self, found: list[tuple[Any, int]]):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor):
            self.found.append((function, args[0].numel()))
        return function(*args, **(kwargs or {}))


def trace(model: nn.Module, shape: Shape) -> Trace:
    """What a forward pass in evaluation mode does; on the model's device, so that "meta" computes nothing.

    With gradients: without them PyTorch fuses attention into one operator that shows no products.
    """
    record = Trace(model)
    holders = Counter(child for module in model.modules() for child in module.children())
    open_calls: list[int] = []

    def enter(layer, args):
        open_calls.append(len(record.products))

    def leave(layer, args, out):
        out = out[0] if isinstance(out, tuple) else out
        made = record.products[open_calls.pop() :]
        record.calls.append(Call(layer, args[0].shape, out.shape, made, holders[layer]))

    for module in model.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    x = torch.zeros(shape, device=next(model.parameters()).device)
    with Functions(record.functions), Products(record.products):
        model.eval()(x)
    return record


def parameters(model: nn.Module) -> int:
    """Elements of the different parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in set(model.parameters()))


# ---- the networks ---------------------------------------------------------------------------------------------------


def block(inputs: int, outputs: int) -> nn.Sequential:
    """What U-Nets repeat: 3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Two levels down and up again: transposed convolutions, without and with overlap, and concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = block(3, 16), block(16, 32), block(32, 64)
        self.down = nn.MaxPool2d(2)
        self.up_third = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.up_second = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.join_second, self.join_first = block(64, 32), block(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        first = self.first(x)
        second = self.second(self.down(first))
        third = self.third(self.down(second))
        x = self.join_second(torch.cat([second, self.up_third(third)], 1))
        return self.head(self.join_first(torch.cat([first, self.up_second(x)], 1)))


def grouped() -> nn.Module:
    """Grouped and depthwise convolutions, and a grouped transposed one."""
    return nn.Sequential(
        nn.Conv2d(16, 64, 1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(64, 64, 5, padding=2, groups=64, bias=False),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, groups=4, bias=False),
        nn.Conv2d(32, 10, 1, bias=False),
    )


def dilated() -> nn.Module:
    """Dilation, "same" padding of an odd and of an even kernel, oblong kernels, uneven and circular padding."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding="same", dilation=2, bias=False),
        nn.Conv2d(16, 16, 4, padding="same", bias=False),
        nn.Conv2d(16, 16, (1, 7), padding=(0, 3), bias=False),
        nn.Conv2d(16, 16, (7, 1), padding=(3, 0), bias=False),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(16, 32, 3, stride=2, bias=False),
        nn.Conv2d(32, 32, 3, padding=4, dilation=4, padding_mode="circular", bias=False),
    )


class Branch(nn.Module):
    """A layer of its own, then one that it shares with its sister."""

    def __init__(self, shared: nn.Module):
        super().__init__()
        self.own, self.shared = nn.Linear(16, 32, bias=False), shared

    def forward(self, x):
        return self.shared(self.own(x))


class Shared(nn.Module):
    """Functions in place of layers, a layer called twice, a layer in two branches, and a weight in two layers."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(16, 3, 3, 3))
        self.table = nn.Parameter(torch.zeros(16, 16))
        self.twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        shared = nn.Linear(32, 32, bias=False)
        self.left, self.right = Branch(shared), Branch(shared)
        self.tied, self.last = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.last.weight = self.tied.weight

    def forward(self, x):
        x = F.conv2d(x, self.kernel, padding=1)
        x = self.twice(self.twice(x)).flatten(2).transpose(1, 2)
        x = (x @ x.transpose(1, 2)) @ x  # linear attention, all positions with all
        x = F.linear(x.mean(1), self.table)
        return self.last(self.tied(self.left(x) + self.right(x)))


class Attention(nn.Module):
    """The start of a vision transformer: patches, fixed positions, one block of attention and MLP, a head."""

    def __init__(self, width: int = 64, patch: int = 8, tokens: int = 64):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(self.norm_mlp(x))).mean(1))


def from_torchvision(name: str) -> nn.Module:
    return getattr(importlib.import_module("torchvision.models"), name)()


PHOTO, SMALL = (1, 3, 224, 224), (1, 3, 64, 64)
TORCHVISION = ("resnet18", "resnet50", "vgg16", "alexnet", "mobilenet_v2")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    **{name: (partial(from_torchvision, name), PHOTO) for name in TORCHVISION},
    "unet": (UNet, SMALL),
    "grouped": (grouped, (1, 16, 32, 32)),
    "dilated": (dilated, SMALL),
    "shared": (Shared, (1, 3, 16, 16)),
    "attention": (Attention, SMALL),
}


def truth(name: str) -> Trace:
    """The forward pass of a network, without memory or time."""
    build, shape = NETWORKS[name]
    with torch.device("meta"):
        model = build()
    return trace(model, shape)


# ---- the tools ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a tool says of a network: only what it offers, or how it failed."""

    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    failure: str = ""


def run_torchinfo(model: nn.Module, shape: Shape) -> Found:
    found = importlib.import_module("torchinfo").summary(model, input_data=torch.zeros(shape), verbose=0)
    return Found(found.total_params, found.total_mult_adds, found.total_output_bytes)


def run_fvcore(model: nn.Module, shape: Shape) -> Found:
    tools = importlib.import_module("fvcore.nn")
    count = tools.FlopCountAnalysis(model.eval(), torch.zeros(shape)).unsupported_ops_warnings(False)
    return Found(tools.parameter_count(model)[""], count.uncalled_modules_warnings(False).total())


def run_ptflops(model: nn.Module, shape: Shape, backend: str) -> Found:
    count = importlib.import_module("ptflops").get_model_complexity_info
    macs, found = count(model, shape[1:], backend=backend, as_strings=False, print_per_layer_stat=False)
    return Found(found, macs)


def run_thop(model: nn.Module, shape: Shape) -> Found:
    macs, found = importlib.import_module("thop").profile(model, (torch.zeros(shape),), verbose=False)
    return Found(int(found), int(macs))


def run_calflops(model: nn.Module, shape: Shape) -> Found:
    count = importlib.import_module("calflops").calculate_flops
    _, macs, found = count(model, input_shape=shape, print_results=False, output_as_string=False)
    return Found(found, macs)


def run_torchscan(model: nn.Module, shape: Shape, total: str, per_mac: int = 1) -> Found:
    totals = importlib.import_module("torchscan").crawl_module(model, shape[1:])["totals"]
    found = totals[total]["value"] or totals[total]["known_value"]
    return Found(totals["parameters"]["value"], found // per_mac)


def run_keras(model: nn.Module, shape: Shape) -> Found:
    keras = importlib.import_module("keras")
    return Found(keras_total(keras.Sequential([keras.layers.TorchModuleWrapper(model)])))


def keras_total(model, which: str = "Total") -> int:
    """What ``summary`` prints."""
    lines: list[str] = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    found = re.search(rf"{which} params: ([\d,]+)", "".join(lines))
    return int(found[1].replace(",", "")) if found else 0


# ---- why a figure differs -------------------------------------------------------------------------------------------

Amount = Callable[[Trace], int]
LAYERS = (_ConvNd, nn.Linear)
NORMS = (_BatchNorm, nn.LayerNorm)
ATTENTION = nn.MultiheadAttention
POOL = F.adaptive_avg_pool2d


@dataclass(frozen=True)
class Cause:
    """One reason: how much it adds to a count. `beyond` the definition is other work; else products are wrong."""

    name: str
    beyond: bool
    amount: Amount
    why: str


def over(types, amount: Callable[[Call], int]) -> Amount:
    """Sum over the calls of these modules."""
    return lambda trace: sum(amount(call) for call in trace.calls if isinstance(call.layer, types))


def together(*amounts: Amount) -> Amount:
    return lambda trace: sum(amount(trace) for amount in amounts)


def called(function) -> Amount:
    """Elements that a function was called with, by itself or by a module."""
    return lambda trace: sum(size for one, size in trace.functions if one is function)


def places(shape: torch.Size) -> int:
    """Pixels of a batch."""
    return shape[0] * math.prod(shape[2:])


def added(call: Call) -> int:
    """Elements of the output that a bias is added to."""
    return call.output.numel() if call.layer.bias is not None else 0


def images(call: Call) -> int:
    """How often torchinfo takes a layer's parameters to be used."""
    return places(call.output) if isinstance(call.layer, _ConvNd) else call.output[0]


def inner(call: Call) -> int:
    """Of attention, the products of activations with activations."""
    return sum(product.macs for product in call.products if product.kind != "matrix")


def around_attention(call: Call) -> int:
    """Biases of the four projections, scaling of the queries, softmax, as ptflops' module backend has them."""
    rows, tokens = call.input[:-1].numel(), call.input[1]
    return 5 * rows * call.input[-1] + call.layer.num_heads * rows * tokens


def again(amount: Callable[[Call], int], power: int = 1) -> Amount:
    """A layer that is the child of several modules, counted with each."""
    return over(LAYERS, lambda call: (call.holders**power - 1) * amount(call))


def elements(factor: int) -> Callable[[Call], int]:
    return lambda call: factor * call.input.numel()


def macs(call: Call) -> int:
    return call.macs


def minus(amount: Callable[[Call], int]) -> Callable[[Call], int]:
    return lambda call: -amount(call)


no_inner = over(ATTENTION, minus(inner))


def no_batches(trace: Trace) -> int:
    """Without the products of two activations that no module makes."""
    return -sum(p.macs for p in trace.products if p.kind != "matrix" and p.kind != "convolution") - no_inner(trace)


def same_by_half(call: Call) -> int:
    """calflops pads by ⌊d·(k − 1) / 2⌋ on both sides: a pixel less than "same" where that is odd."""
    if call.layer.padding != "same":
        return 0
    odd = [d * (k - 1) % 2 for d, k in zip(call.layer.dilation, call.layer.kernel_size, strict=True)]
    smaller = math.prod(size - one for size, one in zip(call.output[2:], odd, strict=True))
    return call.macs // math.prod(call.output[2:]) * smaller - call.macs


def window(call: Call) -> int:
    """torchscan's comparisons of a maximum; a kernel given as a number is taken for its area."""
    size = call.layer.kernel_size
    return call.output.numel() * ((math.prod(size) if isinstance(size, tuple) else size) - 1)


def pooled(call: Call) -> int:
    """Input elements of an adaptive pooling's windows; all windows have one size here."""
    sizes = [one // other for one, other in zip(call.input[2:], call.output[2:], strict=True)]
    return math.prod(sizes) * call.output.numel()


def frozen(trace: Trace) -> int:
    return -sum(p.numel() for p in trace.model.parameters() if not p.requires_grad)


def tied(trace: Trace) -> int:
    """Parameters of several layers, with each layer but the first."""
    return sum(p.numel() for m in trace.model.modules() for p in m.parameters(recurse=False)) - trace.parameters


def held(trace: Trace) -> dict[nn.Module, int]:
    """Layers that are children of several modules, and of how many."""
    return {call.layer: call.holders for call in trace.calls if call.holders > 1}


def outside_layers(trace: Trace) -> int:
    """Parameters of modules that have children themselves, as are a network's own."""
    return sum(p.numel() for m in trace.model.modules() if any(m.children()) for p in m.parameters(recurse=False))


def in_attention(trace: Trace) -> int:
    return sum(parameters(m.out_proj) for m in trace.model.modules() if isinstance(m, ATTENTION))


# ---- the tools' causes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """A tool: how it is run, what its figure means by its own documentation, what it is good at, and where it errs."""

    name: str
    package: str
    run: Callable[[nn.Module, Shape], Found]
    convention: str
    right: str
    causes: tuple[Cause, ...] = ()
    of_parameters: tuple[Cause, ...] = ()


BY_OUTPUT = Cause(
    "transposed",
    False,
    over(_ConvTransposeNd, lambda call: call.layer.weight.numel() * (places(call.output) - places(call.input))),
    "a transposed convolution uses its weights once for each *input* pixel; here once for each output pixel.",
)
ATTENTION_UNSEEN = Cause(
    "attention",
    False,
    over(ATTENTION, minus(macs)),
    "`nn.MultiheadAttention` computes with functions, projections too, and calls no layer that has a hook.",
)
FUNCTIONS_UNSEEN = Cause(
    "functions",
    False,
    lambda trace: over((*LAYERS, ATTENTION), macs)(trace) - trace.macs,
    "`F.conv2d`, `F.linear` and `@` call no module, so no hook sees them.",
)
FROZEN = Cause("frozen", False, frozen, "parameters with `requires_grad=False` are left out.")
TIED = Cause("tied", False, tied, "a weight in two layers counts with each.")

TORCHINFO = Tool(
    "torchinfo",
    "torchinfo",
    run_torchinfo,
    "`total_mult_adds`, MACs.",
    "shapes, layer by layer; convolutions with groups, dilation and any padding; layers called twice.",
    (
        Cause(
            "bias",
            True,
            over(LAYERS, lambda call: images(call) * (call.layer.bias is not None and call.layer.bias.numel())),
            "parameters called `bias` count as those called `weight` do (`LayerInfo.calculate_macs`).",
        ),
        Cause(
            "normalisation",
            True,
            over(NORMS, lambda call: call.output[0] * parameters(call.layer)),
            "the same rule counts its parameters once an image, not once an element.",
        ),
        BY_OUTPUT,
        Cause(
            "tokens",
            False,
            over(nn.Linear, lambda call: call.output[0] * call.layer.weight.numel() - call.macs),
            "a Linear counts its weights once an image, also where it is applied to every token of a sequence.",
        ),
        ATTENTION_UNSEEN,
        FUNCTIONS_UNSEEN,
    ),
    (
        TIED,
        Cause(
            "held twice",
            False,
            lambda trace: sum(parameters(layer) * holders for layer, holders in held(trace).items()),
            "a layer that is a child of two modules counts by itself, and in the remainder of each of them.",
        ),
        Cause(
            "its own",
            False,
            lambda trace: -outside_layers(trace) * bool(held(trace) or tied(trace)),
            "what counts twice is taken off the network's remainder, which is then below zero and taken for zero: its "
            "own `nn.Parameter`s are lost (`ModelStatistics`). Without sharing they are counted.",
        ),
    ),
)

FVCORE = Tool(
    "fvcore",
    "fvcore",
    run_fvcore,
    "`FlopCountAnalysis.total()`, FLOPs; its documentation counts a fused multiply-add as one: MACs.",
    "functions, `@`, shared layers, groups and transposed convolutions, since it reads the traced graph. It warns of "
    "every operator without a rule, the two below among them (silenced here).",
    (
        Cause(
            "normalisation",
            True,
            together(over(_BatchNorm, elements(2)), over(nn.LayerNorm, elements(5))),
            "2 an element for batch norm in evaluation, 5 for layer norm; documented (`_DEFAULT_SUPPORTED_OPS`).",
        ),
        Cause("pooling", True, called(POOL), "adaptive average pooling, 1 an input element; documented likewise."),
        Cause(
            '"same"',
            False,
            over(_ConvNd, lambda call: -call.macs * isinstance(call.layer.padding, str)),
            "a convolution with padding given as a word is traced as `aten::_convolution_mode`, which has no rule.",
        ),
        Cause("attention", False, no_inner, "`aten::scaled_dot_product_attention` has no rule."),
    ),
)

PTFLOPS = Tool(
    "ptflops, pytorch",
    "ptflops",
    partial(run_ptflops, backend="pytorch"),
    "`get_model_complexity_info(backend='pytorch')`, MACs. It is the default of the signature; the documentation calls "
    "the other backend the default, and this one a legacy for CNNs, not for transformers.",
    "groups, transposed convolutions, and attention by a rule of its own.",
    (
        Cause("bias", True, over(LAYERS, added), "1 for each element that a bias is added to."),
        Cause(
            "normalisation",
            True,
            together(over(_BatchNorm, elements(2)), over(nn.LayerNorm, elements(1))),
            "2 an element for batch norm, 1 for layer norm (which has no attribute `affine`).",
        ),
        Cause(
            "activations",
            True,
            together(over((nn.ReLU, nn.GELU), elements(2)), over(nn.ReLU6, elements(1))),
            "1 an element by the hook of ReLU, and 1 more by the patched `F.relu` that it calls; GELU likewise.",
        ),
        Cause(
            "pooling",
            True,
            together(over(nn.MaxPool2d, elements(2)), over(nn.AdaptiveAvgPool2d, elements(1)), called(POOL)),
            "1 an input element by the hook, and 1 more by the patched function.",
        ),
        Cause(
            "around attention",
            True,
            over(ATTENTION, around_attention),
            "biases, scaling and softmax (`multihead_attention_counter_hook`).",
        ),
        replace(FUNCTIONS_UNSEEN, why=f"{FUNCTIONS_UNSEEN.why} `torch.matmul` and `torch.bmm` are."),
        Cause(
            "held twice",
            False,
            again(lambda call: call.macs + added(call)),
            "a layer that is a child of two modules adds its total with each (`accumulate_flops`).",
        ),
    ),
    (FROZEN,),
)

PTFLOPS_ATEN = Tool(
    "ptflops, aten",
    "ptflops",
    partial(run_ptflops, backend="aten"),
    "`get_model_complexity_info(backend='aten')`, MACs.",
    "functions, `@`, groups, transposed and shared layers, since it counts where PyTorch runs operators.",
    (
        Cause(
            "bias",
            True,
            lambda trace: sum(product.bias for product in trace.products),
            "1 for each element that a bias is added to (`conv_flop_count`, `addmm_flop`).",
        ),
        Cause(
            "attention",
            False,
            no_inner,
            "scaled dot-product attention is one operator on a CPU, and has no rule; `verbose=True` names it.",
        ),
    ),
    (FROZEN,),
)

THOP = Tool(
    "thop",
    "thop",
    run_thop,
    "`profile`, MACs. It imports `distutils`, which Python has from 3.12 on with setuptools only.",
    "convolutions with groups, dilation and any padding; Linear on tokens; layers called twice.",
    (
        Cause(
            "normalisation",
            True,
            over(NORMS, elements(4)),
            "2 an element, twice that with weights (`count_normalization`).",
        ),
        Cause(
            "pooling",
            True,
            over(nn.AdaptiveAvgPool2d, lambda call: pooled(call) + call.output.numel()),
            "adaptive average pooling: the window's additions, and a division for each output element.",
        ),
        BY_OUTPUT,
        ATTENTION_UNSEEN,
        FUNCTIONS_UNSEEN,
        Cause(
            "held twice",
            False,
            again(macs, power=2),
            "a layer that is a child of two modules gets two hooks, and adds its total with each: four times.",
        ),
    ),
    (
        TIED,
        Cause(
            "held twice",
            False,
            lambda trace: sum(parameters(layer) * (holders - 1) for layer, holders in held(trace).items()),
            "a layer that is a child of two modules counts with each.",
        ),
        Cause(
            "without a rule",
            False,
            lambda trace: -outside_layers(trace) - in_attention(trace),
            "parameters are counted in layers that have a rule for operations: not in attention, and not an "
            "`nn.Parameter` of the network itself.",
        ),
    ),
)

CALFLOPS = Tool(
    "calflops",
    "calflops",
    run_calflops,
    "`calculate_flops`, the second of its results, MACs (the first is FLOPs, with other work besides). It needs "
    "transformers, which it does not declare.",
    "torchvision's five networks, to the last product and without other work; functions, since it replaces those that "
    "layers call.",
    (
        Cause(
            "transposed",
            False,
            over(_ConvTransposeNd, lambda call: call.macs // call.layer.groups - call.macs),
            "of a grouped transposed convolution the weight's second axis is taken for all output channels, and is "
            "divided by the groups once more (`_conv_trans_flops_compute`).",
        ),
        Cause(
            '"same"',
            False,
            over(_ConvNd, same_by_half),
            "an even kernel is given one pixel of padding too few, and so a smaller output (`_conv_flops_compute`).",
        ),
        Cause("attention", False, no_inner, "`F.scaled_dot_product_attention` is not replaced."),
        Cause("@", False, no_batches, "`Tensor.matmul` is replaced, but the operator `@` does not go through it."),
        Cause("held twice", False, again(macs), "a layer that is a child of two modules adds its total with each."),
    ),
    (replace(FROZEN, why=f"{FROZEN.why[:-1]}; its report calls them Total Training Params."),),
)

TORCHSCAN = Tool(
    "torchscan, modules",
    "torchscan",
    partial(run_torchscan, total="macs"),
    "`totals['macs']`, MACs.",
    "convolutions with groups, dilation and any padding; layers called twice. It says `partial` where a module has no "
    "rule, as with attention; a network of functions it calls `complete`.",
    (
        Cause("normalisation", True, over(_BatchNorm, elements(2)), "2 an element for batch norm (`macs_bn`)."),
        Cause(
            "pooling",
            True,
            together(
                over(nn.MaxPool2d, window),
                over(nn.AdaptiveAvgPool2d, lambda call: pooled(call) + call.output.numel()),
            ),
            "comparisons of a maximum, and operations of a mean; a kernel given as 2 is taken for 2 pixels, not 2×2.",
        ),
        Cause(
            "padding",
            True,
            over(_ConvTransposeNd, lambda call: 4 * len(call.layer.kernel_size)),
            "4 for each axis of a transposed convolution (`macs_convtransposend`).",
        ),
        BY_OUTPUT,
        ATTENTION_UNSEEN,
        FUNCTIONS_UNSEEN,
    ),
)

TORCHSCAN_OPERATORS = Tool(
    "torchscan, operators",
    "torchscan",
    partial(run_torchscan, total="operator_flops", per_mac=2),
    "`totals['operator_flops']`, FLOPs by PyTorch's own `FlopCounterMode`, two a MAC: halved.",
    "functions, `@`, groups, transposed and shared layers, without other work. It says `partial` if any operator has "
    "no rule, be it an addition, and lists them; that of attention is on the list.",
    (
        replace(
            ATTENTION_UNSEEN,
            why="it runs without gradients, where PyTorch fuses attention, projections too, into one operator that has "
            "no rule. (With gradients, `FlopCounterMode` misses its two inner products on a CPU, as fvcore does.)",
        ),
    ),
)

KERAS = Tool(
    "Keras",
    "keras",
    run_keras,
    "`summary` of a `TorchModuleWrapper` around the network, with the PyTorch backend. It counts parameters only.",
    "the parameters of all ten.",
)

TOOLS = (TORCHINFO, FVCORE, PTFLOPS, PTFLOPS_ATEN, THOP, CALFLOPS, TORCHSCAN, TORCHSCAN_OPERATORS, KERAS)


# ---- memory and receptive field -------------------------------------------------------------------------------------


def kept_bytes(model: nn.Module, shape: Shape) -> int:
    """Bytes that autograd keeps for the backward pass of a training step; parameters and the input are not counted."""
    x = torch.zeros(shape)
    others = {tensor.untyped_storage().data_ptr() for tensor in (x, *model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.train()(x)  # noqa: F841 - holds the graph, so that no storage is used a second time
    return sum(kept.values())


def linear(model: nn.Module) -> nn.Module:
    """The network with means in place of maxima, positive weights, and no activations: nothing cancels or saturates."""
    for name, child in linear_children(model):
        setattr(model, name, child)
    for weight in (p for p in model.parameters() if p.ndim == 4):
        nn.init.constant_(weight, 1 / weight[0].numel())
    return model.double().eval()


def linear_children(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        if isinstance(child, nn.MaxPool2d):
            yield name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
        elif isinstance(child, nn.ReLU | nn.ReLU6):
            yield name, nn.Identity()
        else:
            yield name, linear(child)


def body(model: nn.Module) -> nn.Module:
    """A network of torchvision up to its last feature map."""
    return getattr(model, "features", None) or nn.Sequential(*list(model.children())[:-2])


def receptive_field(model: nn.Module, width: int = 1024) -> int:
    """Columns of the input that the middle of the output depends on, by the gradient."""
    x = torch.zeros(1, 3, 64, width, dtype=torch.float64, requires_grad=True)
    out = linear(model)(x)
    (gradient,) = torch.autograd.grad(out[..., out.shape[-1] // 2].sum(), x)
    columns = gradient.abs().sum((0, 1, 2)).nonzero()
    return int(columns.max() - columns.min()) + 1


def torchscan_fields(model: nn.Module, shape: Shape) -> list[int]:
    """Its column "Receptive field", of convolutions and poolings."""
    layers = importlib.import_module("torchscan").crawl_module(model, shape[1:])["layers"]
    windows = [layer for layer in layers if "Conv" in layer["type"] or "Pool" in layer["type"]]
    found = [layer["metrics"].get("receptive_field", {}).get("value") for layer in windows]
    return [int(value) for value in found if value is not None]


# ---- the page -------------------------------------------------------------------------------------------------------

Results = dict[str, dict[str, Found]]


def measure(tool: Tool) -> dict[str, Found]:
    """What a tool says of each network."""
    return {name: attempt(tool.run, *NETWORKS[name]) for name in NETWORKS}


def attempt(run: Callable[[nn.Module, Shape], Found], build: Callable[[], nn.Module], shape: Shape) -> Found:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return run(build(), shape)
    except Exception as error:
        return Found(failure=f"does not run: {type(error).__name__}: {str(error).splitlines()[0]}")


def row(*cells) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: tuple, rows: list[tuple[Any, ...]]) -> str:
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])


def signed(number: int) -> str:
    return f"{number:+,}".replace("-", "−")


def ratio(figure: int, true: int) -> str:
    return "exact" if figure == true else f"{figure / true:.4f}"


def account(figure: int, true: int, causes: tuple[Cause, ...], one: Trace) -> tuple[dict[str, int], dict[str, int]]:
    """What makes the difference: other work, and wrong products; what no cause explains is called unexplained."""
    amounts = [(cause, cause.amount(one)) for cause in causes]
    beyond, wrong = ({c.name: n for c, n in amounts if n and c.beyond == kind} for kind in (True, False))
    rest = figure - true - sum(beyond.values()) - sum(wrong.values())
    return beyond, {**wrong, **({"unexplained": rest} if rest else {})}


def listed(amounts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {signed(amount)}" for name, amount in amounts.items())


def difference(figure: int, true: int, causes: tuple[Cause, ...], one: Trace) -> tuple[str, str, str, str, str]:
    """Of a row: figure, truth, ratio, other work, wrong products."""
    beyond, wrong = account(figure, true, causes, one)
    return f"{figure:,}", f"{true:,}", ratio(figure, true), listed(beyond), listed(wrong)


def cell(found: Found, key: str, causes: tuple[Cause, ...], one: Trace) -> str:
    """Of the overview: the ratio, in bold where products are wrong."""
    figure, true = getattr(found, key), getattr(one, key)
    if figure is None:
        return "does not run" if found.failure else "–"
    _, wrong = account(figure, true, causes, one)
    return f"**{ratio(figure, true)}**" if wrong else ratio(figure, true)


def overview(key: str, traces: Mapping[str, Trace], results: Results, ours: Mapping[str, Found]) -> str:
    """Networks by tools; a tool that offers no such figure has no column."""
    tools = [tool for tool in TOOLS if tool.causes or key == "parameters"]
    head = ("network", "truth", *(tool.name for tool in tools), *(["tinytorch"] if ours else []))
    rows = []
    for name, one in traces.items():
        cells = [cell(results[t.name][name], key, t.causes if key == "macs" else t.of_parameters, one) for t in tools]
        cells += [cell(ours.get(name, Found()), key, (), one)] if ours else []
        rows.append((name, f"{getattr(one, key):,}", *cells))
    return table(head, rows)


def section(tool: Tool, traces: Mapping[str, Trace], found: Mapping[str, Found]) -> str:
    """A tool: its convention, what it does well, its causes, and each network."""
    rows = [
        (name, *difference(macs, one.macs, tool.causes, one))
        for name, one in traces.items()
        if (macs := found[name].macs) is not None
    ]
    head = ("network", "MACs it counts", "truth", "ratio", "other work", "products missed or miscounted")
    parts = [
        f"### {tool.name}",
        f"{tool.package} {installed(tool.package)}. Its figure: {tool.convention}\n\nIt is right about: {tool.right}",
        bullets((cause.name, cause.why) for cause in tool.causes),
        table(head, rows) if rows else "",
        bullets((name, one.failure) for name, one in found.items() if one.failure),
    ]
    return "\n\n".join(part for part in parts if part)


def parameter_differences(traces: Mapping[str, Trace], results: Results) -> str:
    rows = []
    for tool in TOOLS:
        for name, one in traces.items():
            found = results[tool.name][name].parameters
            if found not in (None, one.parameters):
                figure, true, share, _, why = difference(found, one.parameters, tool.of_parameters, one)
                rows.append((tool.name, name, figure, true, share, why))
    return table(("tool", "network", "parameters it counts", "truth", "ratio", "why"), rows)


def parameter_causes() -> str:
    return bullets((f"{tool.name}, {cause.name}", cause.why) for tool in TOOLS for cause in tool.of_parameters)


def bullets(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in items)


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


TEXT = """# Other tools, held against a count

`docs/compare_tools.py` made this page: it asks seven tools for the parameters and multiply-accumulates (MACs) of ten
networks, and counts every product itself. The tools are useful, and on the ordinary CNNs at the top of the tables none
misses a product: what they add there is other work. Where they are wrong, it is by a layer that they do not see or a
size taken from the wrong side. The reasons are exact: they add up to the whole difference.

Made with Python {python}, PyTorch {torch} and torchvision {torchvision}; batch 1.

## What is counted

A **MAC** is one multiplication whose product is added to a sum. Those of convolutions, transposed convolutions and
matrix products count, the two products of attention among them, and no other operation. A tap that lies on padding
counts. Biases, normalisation, activations, pooling and softmax do not. The truth is counted where PyTorch runs
operators, from their shapes; `tests/test_other_tools.py` holds it against products counted one by one.

**Parameters** are the elements of different parameters: one that two layers share counts once, one that is not trained
counts too.

A tool that counts other work as well does so by its own definition: that is no error, and has a column of its own.
Figures in FLOPs are converted as the tool's documentation defines them.

{networks}

## MACs

Figure over truth; in bold where products are missed or miscounted.

{macs}

## Parameters

{parameters}

{parameter_differences}

{parameter_causes}

Keras' own layers, as in `keras.applications`, also count batch norm's moving mean and variance, which PyTorch calls
buffers: its MobileNetV2 has {keras} "non-trainable".

## Each tool

The amounts in the last two columns add up to figure − truth.

{sections}

## Memory

torchinfo's "Forward/backward pass size" is twice the outputs of all layers with parameters; activations, poolings and
functions have none. Here it stands beside the bytes that autograd keeps for the backward pass of a training step
(`torch.autograd.graph.saved_tensors_hooks`; each storage once, without parameters, buffers and input). These are two
quantities, so the ratio is no error: it says how well the one stands for the other.

{memory}

## Receptive field

torchscan's column "Receptive field" is that of each module alone, as its report says (`module_call`), and not that of
the network up to there. The truth is the columns of the input that have a gradient, in the network with means in place
of maxima.

{fields}

Of a kernel that is not square it takes the height: {oblong} for the kernel (1, 7). The U-Net's transposed convolutions,
with kernels 2 and 4 and stride 2, get {spread[0]} and {spread[1]}; their outputs depend on 1 and 2 input pixels a side.
"""

SHOWS = {
    "resnet18": "Residual blocks, batch norm (torchvision)",
    "resnet50": "1×1 convolutions (torchvision)",
    "vgg16": "Biases, max pooling, large Linear layers (torchvision)",
    "alexnet": "Large kernels and strides (torchvision)",
    "mobilenet_v2": "Depthwise convolutions, pooling as a function (torchvision)",
}


def network_table() -> str:
    rows = [(name, "×".join(map(str, shape)), shows(name, build)) for name, (build, shape) in NETWORKS.items()]
    return table(("network", "input", "what it shows"), rows)


def shows(name: str, build: Callable[[], nn.Module]) -> str:
    return SHOWS.get(name) or str(build.__doc__).rstrip(".")


def memory_table(found: Mapping[str, Found]) -> str:
    rows = []
    for name, (build, shape) in NETWORKS.items():
        if (said := found[name].bytes) is not None:
            kept = kept_bytes(build(), shape)
            rows.append((name, f"{said:,} B", f"{kept:,} B", f"{said / kept:.4f}"))
    return table(("network", "torchinfo: forward/backward pass", "kept by autograd", "ratio"), rows)


def field_table() -> str:
    rows = []
    for name in TORCHVISION:
        build, shape = NETWORKS[name]
        rows.append((name, receptive_field(body(build())), torchscan_fields(body(build()), shape)[-1]))
    return table(("network", "last feature map (pixels)", "torchscan's column at its last window (pixels)"), rows)


def keras_native() -> str:
    keras = importlib.import_module("keras")
    model = keras.applications.MobileNetV2(weights=None)
    return f"{keras_total(model):,} parameters, {keras_total(model, 'Non-trainable'):,} of them"


def page(ours: Mapping[str, Found]) -> str:
    """The whole page; `ours` are the figures of one more column."""
    traces = {name: truth(name) for name in NETWORKS}
    results = {tool.name: measure(tool) for tool in TOOLS}
    return TEXT.format(
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=importlib.import_module("torchvision").__version__,
        networks=network_table(),
        macs=overview("macs", traces, results, ours),
        parameters=overview("parameters", traces, results, ours),
        parameter_differences=parameter_differences(traces, results),
        parameter_causes=parameter_causes(),
        keras=keras_native(),
        sections="\n\n".join(section(tool, traces, results[tool.name]) for tool in TOOLS),
        memory=memory_table(results[TORCHINFO.name]),
        fields=field_table(),
        oblong=torchscan_fields(dilated(), NETWORKS["dilated"][1])[2],
        spread=[signed(size) for size in torchscan_fields(UNet(), SMALL) if size < 0],
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Writes docs/other-tools.md.")
    parser.add_argument("--models-from", metavar="FOLDER", help="take torchvision from this folder")
    parser.add_argument("--ours", metavar="FILE", type=Path, help="figures of tinytorch, as JSON")
    options = parser.parse_args(arguments)
    if options.models_from:
        sys.path.insert(0, options.models_from)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    ours = json.loads(options.ours.read_text()) if options.ours else {}
    PAGE.write_text(page({name: Found(**figures) for name, figures in ours.items()}))


if __name__ == "__main__":
    main()
