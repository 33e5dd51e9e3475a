"""`tinytorch bench conv`: all algorithms on one convolution, as a table, as data, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytorch.io.race_plot import digits, duration

if TYPE_CHECKING:
    from rich.console import Console

    from tinytorch.analysis.race import Entry, Race
    from tinytorch.conv.problem import ConvProblem, Direction

bench = typer.Typer(
    name="bench",
    help="Measure on this computer: the algorithms of a convolution, raced.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@bench.callback()
def _group() -> None:
    """Keeps `bench conv` two words while there is one subject only."""


@bench.command("conv")
def bench_conv(
    problem: Annotated[str, typer.Argument(help="A convolution as oneDNN's benchdnn writes it: ic64oc64_ih56kh3ph1.")],
    algorithm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Who takes part: repeated, or separated by commas; or all.")
    ] = None,
    direction: Annotated[str, typer.Option(help="forward, input_grad, weight_grad, or all.")] = "forward",
    batch: Annotated[int | None, typer.Option(help="Images, instead of mb in the problem.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    threads: Annotated[int | None, typer.Option(help="Threads of the kernels; by default all.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 7,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables in Markdown.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the times as bars.")] = None,
) -> None:
    """Race the algorithms on one convolution; exit code 1 if one computes something wrong.

    All take turns, after compiling and after their results have been compared. The seven loops always take part; where
    they would take long, their time is estimated from a smaller convolution.
    """
    from tinytorch.cli import console as out
    from tinytorch.conv.problem import ConvProblem

    _check(direction, dtype, (json, csv, markdown), plot)
    parsed = ConvProblem.parse(problem)
    parsed = parsed if batch is None else replace(parsed, n=batch)
    with _threads(threads), out.console(to_stderr=True).status("racing …") as status:
        races = _race(parsed, direction, _names(algorithm), dtype, rounds, status.update)
    if plot:
        from tinytorch.io.race_plot import draw_race

        draw_race(plot, races, machine(races[0]))
    _show(races, json, csv, markdown)
    raise typer.Exit(1 if any(race.wrong for race in races) else 0)


def _check(direction: str, dtype: str, formats: Sequence[bool], plot: Path | None) -> None:
    from tinytorch.conv.problem import DIRECTIONS

    if direction not in (*DIRECTIONS, "all"):
        raise ValueError(
            f"--direction must be one of {', '.join(DIRECTIONS)} or all, got {direction}; check its spelling"
        )
    if dtype not in ("float32", "float64"):
        raise ValueError(f"--dtype must be float32 or float64, got {dtype}; convolutions compute in these")
    if sum(formats) > 1:
        raise ValueError("--json, --csv and --markdown exclude each other; ask for one of them")
    if plot and plot.suffix.lower() != ".png":
        raise ValueError(f"--plot must end in .png, got {plot}; the picture is a PNG")


def _names(given: Sequence[str] | None) -> list[str] | None:
    """Names of algorithms; None for all."""
    names = [name.strip() for text in given or ["all"] for name in text.split(",")]
    return None if "all" in names else names


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let kernels use so many threads within the block."""
    from tinytorch.kernels import jit

    before = jit.workers()
    jit.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        jit.set_num_threads(before)


def _race(
    problem: ConvProblem, direction: str, names: list[str] | None, dtype: str, rounds: int, say: Callable[[str], None]
) -> list[Race]:
    import numpy as np

    from tinytorch.analysis.race import check, race
    from tinytorch.conv.problem import DIRECTIONS

    directions: Sequence[Direction] = DIRECTIONS if direction == "all" else [direction]  # type: ignore[list-item]
    for each in directions:  # all, before any work
        check(problem, each, names or [], np.dtype(dtype), rounds)
    return [
        race(problem, each, names, dtype=dtype, rounds=rounds, say=lambda text, each=each: say(f"{each}: {text} …"))  # type: ignore[misc]
        for each in directions
    ]


def machine(race: Race) -> str:
    """Processor, vectors and threads, on one line."""
    from tinytorch.kernels.target import cpu_name, target

    plural = "s" if race.threads > 1 else ""
    return f"{cpu_name()}, {target().name}, {race.threads} thread{plural}"


# ---- as tables ----------------------------------------------------------------------------------------------------

_Columns = dict[str, Callable[["Race", "Entry"], str]]


def _named(race: Race, entry: Entry) -> str:
    return entry.algorithm + (" *" if entry.algorithm == race.chosen else "")


def _timed(race: Race, entry: Entry) -> str:
    return ("≈ " if entry.sample else "") + duration(entry.median)


_SPEED: _Columns = {
    "algorithm": _named,
    "time": _timed,
    "±": lambda race, entry: duration(entry.spread),
    "GFLOP/s": lambda race, entry: digits(race.flops(entry) / 1e9),
    "of peak": lambda race, entry: f"{digits(100 * race.flops(entry) / race.peak)} %",
    "× loops": lambda race, entry: f"{digits(race.speed_up(entry))}×",
    "error": lambda race, entry: "–" if entry.error is None else _error(entry.error),
    "integers": lambda race, entry: {None: "–", True: "exact", False: "rounded"}[entry.exact],
}
_WORK: _Columns = {
    "algorithm": _named,
    "multiplies": lambda race, entry: f"{digits(entry.cost.multiplies / 1e6)} million",
    "saved": lambda race, entry: f"{entry.saved:.2f}×",
    "moved": lambda race, entry: _bytes(entry.cost.bytes),
    "GB/s": lambda race, entry: digits(race.bandwidth(entry) / 1e9),
    "scratch": lambda race, entry: _bytes(entry.cost.scratch),
    "forms": lambda race, entry: _bytes(entry.cost.forms),
}


def _error(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _bytes(count: int) -> str:
    """Decimal units: 1 kB is 1000 B."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{digits(count / factor)} {unit}"
    return f"{count} B"


def _facts(race: Race) -> list[str]:
    """What a reader of the tables has to know."""
    macs = race.problem.macs
    facts = [
        "* the planner's choice. GFLOP/s: 2 FLOP for each of the "
        f"{macs:,} MACs of the definition, whatever is executed; the peak is {race.peak / 1e9:.0f} GFLOP/s, measured.",
        *_facts_of_loops(race),
        "error: largest difference from `direct` in double precision, over the largest result; "
        + _fact_of_reference(race),
    ]
    facts += [f"{name} left out: {reason}." for name, reason in race.refused]
    return facts + [f"WRONG: {name} does not compute what it should." for name in race.wrong]


def _facts_of_loops(race: Race) -> Iterator[str]:
    sample = race.of("loops").sample
    if sample:
        yield (
            f"≈ estimated: the loops, plain Python, were timed on {sample.macs:,} MACs with the same kernel "
            f"({sample}); all MACs are {race.problem.macs / sample.macs:,.0f} times as many."
        )


def _fact_of_reference(race: Race) -> str:
    if race.reference_error is None:
        return "not compared with the seven loops: one element would take them too long."
    return f"of that, {race.elements} elements differ from the seven loops by {_error(race.reference_error)} at most."


def _show(races: list[Race], json: bool, csv: bool, markdown: bool) -> None:
    from tinytorch.cli import console as out

    console = out.console()
    if json:
        out.print_json({"races": [_record(race) for race in races]})
    elif csv:
        _show_csv(races)
    elif markdown:
        console.print(f"{races[0].problem}, {races[0].dtype}, on {machine(races[0])}", markup=False)
        for race in races:
            _show_markdown(console, race)
    else:
        console.print(f"[bold]{races[0].problem}[/]\n{races[0].dtype} on {machine(races[0])}")
        for race in races:
            _show_tables(console, race)


def _show_tables(console: Console, race: Race) -> None:
    from rich.table import Table

    console.print(f"\n[bold]{race.direction}[/]")
    for columns in (_SPEED, _WORK):
        table = Table(box=None, header_style="dim", padding=(0, 1))
        for header in columns:
            table.add_column(header, justify="left" if header == "algorithm" else "right", no_wrap=True)
        for entry in race.entries:
            style = "red" if entry.algorithm in race.wrong else "green" if entry.algorithm == race.chosen else ""
            table.add_row(*(text(race, entry) for text in columns.values()), style=style)
        console.print(table)
        console.print()
    for fact in _facts(race):
        console.print(fact, markup=False, style="dim", soft_wrap=False)


def _show_markdown(console: Console, race: Race) -> None:
    lines = [f"\n## {race.direction}"]
    for columns in (_SPEED, _WORK):
        rows = [list(columns), ["---"] + ["---:"] * (len(columns) - 1)]
        rows += [[text(race, entry) for text in columns.values()] for entry in race.entries]
        lines += ["", *("| " + " | ".join(row) + " |" for row in rows)]
    for line in [*lines, "", *("- " + fact for fact in _facts(race))]:
        console.print(line.replace("* ", "\\* "), markup=False)


# ---- as data ------------------------------------------------------------------------------------------------------


def _record(race: Race) -> dict[str, Any]:
    """Everything as plain numbers; units are in the names."""
    return {
        "problem": str(race.problem),
        "direction": race.direction,
        "dtype": race.dtype,
        "machine": machine(race),
        "threads": race.threads,
        "macs": race.problem.macs,
        "peak_flop_per_s": race.peak,
        "chosen": race.chosen,
        "reference_elements": race.elements,
        "reference_error": race.reference_error,
        "refused": dict(race.refused),
        "wrong": list(race.wrong),
        "algorithms": [_entry_record(race, entry) for entry in race.entries],
    }


def _entry_record(race: Race, entry: Entry) -> dict[str, Any]:
    return {
        "algorithm": entry.algorithm,
        "median_s": entry.median,
        "spread_s": entry.spread,
        "rounds_s": list(entry.seconds),
        "estimated_from_macs": entry.sample.macs if entry.sample else None,
        "definition_flop_per_s": race.flops(entry),
        "speed_up_over_loops": race.speed_up(entry),
        "multiplies": entry.cost.multiplies,
        "multiplies_saved": entry.saved if math.isfinite(entry.saved) else None,
        "moved_bytes": entry.cost.bytes,
        "bytes_per_s": race.bandwidth(entry),
        "scratch_bytes": entry.cost.scratch,
        "forms_bytes": entry.cost.forms,
        "error": entry.error,
        "exact_on_integers": entry.exact,
    }


def _show_csv(races: Sequence[Race]) -> None:
    import csv
    import sys

    rows = [
        {"problem": str(race.problem), "direction": race.direction, "dtype": race.dtype, "threads": race.threads}
        | {key: value for key, value in _entry_record(race, entry).items() if key != "rounds_s"}
        for race in races
        for entry in race.entries
    ]
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
