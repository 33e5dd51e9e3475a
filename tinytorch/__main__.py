"""`python -m tinytorch`: the command line without the installed script."""

from tinytorch.cli.main import app

app()
