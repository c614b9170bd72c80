"""The program: its entry point, its errors and exit codes."""

import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from scaling_analysis import ScalingError

PROGRAM = "scaling-train"
STOPPED = 130
"""Exit code of a program that was stopped by Ctrl-C."""
_ORDER = ("collect", "study", "run", "evaluate", "play")


class _Stopped(BaseException):
    """Ctrl-C in a command: Typer would end the program without a word."""


class Commands(TyperGroup):
    """The commands in the order in which they are used."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Stopped from error

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options_of_the_program(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where a mistake was found; may stand anywhere.")
    ] = False,
) -> None:
    """Train the agents that a forecast names, and write the run log it is judged by.

    All of it, small: scaling-train study my-study --preset quick

    Every command can be stopped at any moment; the same command goes on.
    """


def main() -> None:
    """Entry point. Exit codes: 0; 1 for what a user can mend, in one message; 2 for a usage error.

    `--debug` shows the traceback.
    """
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning
    try:
        app([a for a in sys.argv[1:] if a != "--debug"], prog_name=PROGRAM)
    except (ScalingError, OSError) as error:
        if debug:
            raise
        _fail(str(error))
    except (_Stopped, KeyboardInterrupt):
        if debug:
            raise
        _fail("stopped; the same command goes on from here", STOPPED)
    except ModuleNotFoundError as error:
        if debug or error.name not in ("torch", "nle", "safetensors"):
            raise
        _fail(
            f"the package {error.name} is not installed. Training needs the extra `train`: "
            "pip install 'scaling-analysis[train]', or pip install -e '.[train]' in a checkout"
        )


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise SystemExit(code) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)
