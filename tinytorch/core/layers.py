"""Modules: objects that hold parameters and know how to compute. Linear, Flatten, Sequential."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.conv.pack import lanes_last, lanes_last_zeros
from tinytorch.conv.problem import check_count
from tinytorch.core import functional as F
from tinytorch.core import random
from tinytorch.core.tensor import Tensor, as_array
from tinytorch.kernels.watch import call, rehearsing, watcher


class Parameter(Tensor):
    """A tensor that a module learns: it requires grad and is found by `Module.parameters()`.

    Parameters
    ----------
    data : array_like or Tensor
        Initial values, floating point.
    requires_grad : bool
        False freezes it.
    """

    def __init__(self, data: Any, requires_grad: bool = True, dtype: DTypeLike | None = None) -> None:
        super().__init__(data, requires_grad, dtype)


class Module:
    """Base class of everything with parameters.

    A subclass assigns parameters and submodules to attributes and writes `forward`. They are found by looking
    at the attributes, in the order in which they were assigned; so a subclass that needs no set-up may leave
    out `super().__init__()`.

    Attributes
    ----------
    training : bool
        Whether layers such as Dropout and BatchNorm2d behave as in training; see `train` and `eval`.
    """

    training: bool = True
    _buffer_names: tuple[str, ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Every subclass writes its own.

        Raises
        ------
        NotImplementedError
            If it did not.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward; define `def forward(self, x)` in the class")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if watcher.get() is None:
            return self.forward(*args, **kwargs)
        return call(self, (*args, *kwargs.values()), lambda: self.forward(*args, **kwargs))

    # ---- registration -----------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        current = vars(self).get(name)
        if isinstance(current, Parameter) and not isinstance(value, Parameter | None):
            raise TypeError(
                f"{type(self).__name__}.{name} is a Parameter and can't become a {type(value).__name__}, "
                f"which no optimizer would see; assign Parameter(...), or change the values in {name}.data"
            )
        if name in self._buffer_names and not isinstance(value, Tensor | None):
            raise TypeError(
                f"{type(self).__name__}.{name} is a buffer and can't become a {type(value).__name__}; "
                f"assign a Tensor, or change the values in {name}.data"
            )
        super().__setattr__(name, value)

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Add a tensor that is saved with the model but not learned, such as a running mean."""
        self._check_name(name)
        if not isinstance(tensor, Tensor | None):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, got {type(tensor).__name__}")
        setattr(self, name, tensor)
        self._buffer_names = (*(n for n in self._buffer_names if n != name), name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter under a name made at run time; None says that this layer has none."""
        self._check_name(name)
        if not isinstance(parameter, Parameter | None):
            raise TypeError(f"parameter {name!r} must be a Parameter or None, got {type(parameter).__name__}")
        setattr(self, name, parameter)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name made at run time."""
        self._check_name(name)
        if not isinstance(module, Module | None):
            raise TypeError(f"module {name!r} must be a Module instance, got {type(module).__name__}")
        setattr(self, name, module)

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str) or not name or "." in name or hasattr(type(self), name):
            raise ValueError(
                f"name must be a non-empty string without dots that {type(self).__name__} does not use, got "
                f"{name!r}; dots separate the levels of nested modules"
            )

    # ---- walking ----------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names, each once."""
        seen = set()
        for name, value in vars(self).items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """Direct submodules, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", _seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """This module (named `prefix`) and all below it with dotted names, each once, parents first."""
        seen = set() if _seen is None else _seen
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child.named_modules(_join(prefix, name), seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names; one shared by several modules comes once."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(prefix, name), value

    def parameters(self) -> list[Parameter]:
        """All parameters, each once, as a list."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        for prefix, module in self.named_modules():
            for name in module._buffer_names:
                if getattr(module, name) is not None:
                    yield _join(prefix, name), getattr(module, name)

    def buffers(self) -> list[Tensor]:
        """All buffers as a list."""
        return [buffer for _, buffer in self.named_buffers()]

    # ---- saving and loading -----------------------------------------------------------------------------

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers under every name that leads to them, shared ones several times."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value._named_state(_join(prefix, name))
            elif isinstance(value, Parameter) or (name in self._buffer_names and value is not None):
                yield _join(prefix, name), value

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a snapshot: every parameter and buffer by dotted name, as C-ordered copies."""
        return {name: np.array(tensor.data, order="C") for name, tensor in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy values into the parameters and buffers, all of them or, on an error, none.

        Parameters
        ----------
        state : mapping of str to array_like
            As `state_dict` returns it; values are converted to the dtypes of this model.
        strict : bool
            Whether missing and unexpected names are errors. A wrong shape always is.

        Returns
        -------
        missing, unexpected : list of str
            Names that `state` lacks and names that the model lacks.

        Raises
        ------
        ValueError
            If names or shapes do not fit; the message lists every one.
        """
        own = dict(self._named_state())
        arrays = {name: as_array(state[name]) for name in own if name in state}
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = [
            f"{name} has shape {array.shape}, the model needs {own[name].shape}"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        if strict:
            problems += [f"{name} is missing" for name in missing]
            problems += [f"{name} is unexpected" for name in unexpected]
        if problems:
            raise ValueError(
                f"state does not fit {type(self).__name__}, nothing was loaded: {'; '.join(problems)}. "
                "Build the model as it was when saved, or pass strict=False to ignore names that differ"
            )
        for name, array in arrays.items():
            own[name].data[...] = array
        return missing, unexpected

    # ---- switches ---------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all below it to training behaviour; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to inference behaviour: no dropout, running statistics; returns self."""
        return self.train(False)

    def requires_grad_(self, flag: bool = True) -> Module:
        """Freeze (False) or unfreeze all parameters; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad = flag
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call `function` on every module, children first; returns self."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def to(self, dtype: DTypeLike) -> Module:
        """Convert floating parameters and buffers in place, dropping gradients; returns self.

        Make the optimizer afterwards: its moments have the dtype the parameters had.

        Raises
        ------
        TypeError
            If `dtype` is not float32 or float64.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.dtype.kind == "f" and tensor.dtype != dtype:
                tensor.data = tensor.data.astype(dtype)
                tensor.grad = None
        return self

    def float(self) -> Module:
        """Convert to float32 in place; returns self."""
        return self.to(np.float32)

    def double(self) -> Module:
        """Convert to float64 in place; returns self."""
        return self.to(np.float64)

    # ---- printing ---------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Text between the brackets of the repr: the layer's own settings."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.extra_repr()}"
        lines = [f"({name}): {value!r}" for name, value in vars(self).items() if isinstance(value, Module)]
        if not lines:
            return head + ")"
        return "\n".join([head, *(f"  {line}".replace("\n", "\n  ") for line in lines), ")"])


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class Identity(Module):
    """Return the input."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` itself."""
        return input


class Linear(Module):
    """Affine map y = x Wᵀ + b over the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last axis before and after.
    bias : bool
        Whether to add b.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
    bias : Parameter, shape (out_features,), or None
        Both uniform in ±1/√in_features, as in PyTorch.

    Raises
    ------
    ValueError
        If a length is not a positive integer.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features = check_count("in_features", in_features, "numbers")
        self.out_features = check_count("out_features", out_features, "numbers")
        bound = 1 / np.sqrt(in_features)
        self.weight = _uniform(bound, (out_features, in_features))
        self.bias = _uniform(bound, (out_features,)) if bias else None

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, and whether there is a bias."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


def _uniform(bound: float, shape: tuple[int, ...]) -> Parameter:
    """Numbers in ±bound; in a rehearsal none are drawn."""
    if rehearsing():
        return Parameter(lanes_last_zeros(shape) if len(shape) > 1 else np.zeros(shape, np.float32))
    values = random.generator().uniform(-bound, bound, shape).astype(np.float32)
    return Parameter(lanes_last(values) if values.ndim > 1 else values)


class Flatten(Module):
    """Merge axes into one; by default (N, C, H, W) becomes (N, C·H·W), and gradients flow through.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to merge.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Flatten `input`."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Sequential(Module):
    """Apply modules one after the other.

    Parameters
    ----------
    *modules : Module, or one OrderedDict of name to Module
        Without names they are called "0", "1", …

    Raises
    ------
    TypeError
        If something else is passed.
    """

    _runs: list[Callable[[Tensor], Tensor]] | None = None

    def __init__(self, *modules: Any) -> None:
        self._runs = None  # present from the start: another thread may be walking over vars(self) when it is set
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], dict) else dict(enumerate(modules))
        for name, module in named.items():
            self.add_module(str(name), module)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        vars(self)["_runs"] = None

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._runs = None

    def _layers(self) -> dict[str, Module]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Module)}

    def forward(self, input: Tensor) -> Tensor:
        """Pass `input` through all modules."""
        for run in self._runs or self._cut():
            input = run(input)
        return input

    def _cut(self) -> list[Callable[[Tensor], Tensor]]:
        """The modules, cut into what is computed at once; kept until a module comes or goes."""
        from tinytorch.core import fusion  # which imports this file

        vars(self)["_runs"] = runs = fusion.runs(self)
        return runs

    def append(self, module: Module) -> Sequential:
        """Add a module at the end; returns self."""
        numbers = [int(name) for name in self._layers() if name.isdigit()]  # a slice may start at "1"
        self.add_module(str(max(numbers, default=-1) + 1), module)
        return self

    def __len__(self) -> int:
        return len(self._layers())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers().values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self._layers().items())[index]))
        return list(self)[index]
