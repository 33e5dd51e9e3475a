"""The entry point `tinytorch`: the list of commands, and what becomes of an error.

What a user can mend (a wrong name, file or number) is one paragraph on standard error and exit code 2.
Anything else is a bug and shows its traceback; with TINYTORCH_TRACEBACK=1 in the environment all do.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from tinytorch.cli.bench import bench
from tinytorch.cli.compare import compare
from tinytorch.cli.doctor import doctor
from tinytorch.cli.evaluate import evaluate
from tinytorch.cli.explain import explain
from tinytorch.cli.find_lr import find_lr
from tinytorch.cli.predict import predict
from tinytorch.cli.receptive_field import receptive_field
from tinytorch.cli.recipes import recipes
from tinytorch.cli.runs import runs
from tinytorch.cli.summary import summary
from tinytorch.cli.train import train
from tinytorch.cli.warmup import warmup


class _Commands(TyperGroup):
    """The group of commands; the one place where expected errors end."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a bar becomes ??? where the output is not Unicode
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # `tinytorch … | head`: nobody is listening any more
        except (ValueError, OSError) as error:
            if os.environ.get("TINYTORCH_TRACEBACK"):
                raise
            typer.echo(f"Error: {_paragraph(error)}", err=True)
            raise typer.Exit(2) from error


def _paragraph(error: Exception) -> str:
    """The error's own words, on one line whatever they contain."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; check the path, its permissions and the free space"
    return " ".join(str(error).split()) or type(error).__name__


app = typer.Typer(
    cls=_Commands,
    name="tinytorch",
    help="Train, test and use small convolutional networks on this computer's CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # flows paragraphs
)
for command in (train, recipes, evaluate, predict, compare, runs, find_lr, doctor, warmup, receptive_field, summary):
    app.command()(command)
app.add_typer(explain)
app.add_typer(bench)
