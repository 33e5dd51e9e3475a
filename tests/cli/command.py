"""Commands as a person runs them."""

from typer.testing import CliRunner

from tinytorch.cli.main import app


def tinytorch(*args: object, code: int = 0):
    """Run a command; on failure the message must be one paragraph on standard error."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    if code == 2:
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result


def refused(*args: object) -> str:
    """What a command that fails says."""
    return tinytorch(*args, code=2).stderr
