"""The program: its entry point, its errors and exit codes, and how its command lines are read."""

import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from scaling_analysis.cli.wording import in_shell_words
from scaling_analysis.errors import ScalingError
from scaling_analysis.processes import call_processes, processes, usable_cores

PROGRAM = "scaling"
JOINT = "\x1f"
"""Between a run and the reason for its exclusion, in one word of the command line."""
STOPPED = 130
"""Exit code of a program that was stopped by Ctrl-C."""
_ORDER = (
    "demo",
    "check",
    "import",
    "fit",
    "influence",
    "hindcast",
    "forecast",
    "reach",
    "plan",
    "next",
    "verify",
    "compare",
    "report",
)
_OF_NUMBERS = ("--flops", "--spread", "--loss", "--mean-return")


class Command(TyperCommand):
    """A command some of whose options take several values: `--flops 1e19 1e20`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


class LongCommand(Command):
    """A command that fits by several methods: its processes start while the log is being read."""

    def invoke(self, ctx: Any) -> Any:
        call_processes()
        return super().invoke(ctx)


class Stopped(BaseException):
    """Ctrl-C in a command: Typer would end the program without a word."""


class Commands(TyperGroup):
    """The commands in the order in which they are used."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped from error

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from scaling_analysis import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options_of_the_program(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where a mistake was found; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Scaling laws of loss and return against compute, and forecasts of larger runs.

    Start with: scaling check runs.csv

    All of it at once: scaling report runs.csv -o report

    Every command has an example: scaling forecast --help
    """


def main() -> None:
    """Entry point. Exit codes: 0; 1 for what a user can mend, in one message; 2 for a usage error.

    `--debug` shows the traceback.
    """
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning
    try:
        with processes(usable_cores()):
            app([a for a in sys.argv[1:] if a != "--debug"], prog_name=PROGRAM)
    except (ScalingError, OSError) as error:
        if debug:
            raise
        typer.secho(f"error: {in_shell_words(_said(error))}", fg="red", err=True)
        raise SystemExit(1) from None
    except (Stopped, KeyboardInterrupt):
        if debug:
            raise
        typer.secho("stopped", fg="red", err=True)
        raise SystemExit(STOPPED) from None


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ScalingError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. Check the path, the permissions and the disk."
    return str(error)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    typer.secho(f"warning: {in_shell_words(str(message))}", fg="yellow", err=True)


def spread(arguments: list[str]) -> list[str]:
    """Several values of an option as the option several times; a run and its reason as one word.

    Examples
    --------
    >>> spread(["runs.csv", "--flops", "1e19", "1e20"])
    ['runs.csv', '--flops', '1e19', '--flops', '1e20']
    """
    out: list[str] = []
    option, given = "", 0
    words = iter(arguments)
    for word in words:
        if word in _OF_NUMBERS:
            option, given = word, 0
            out.append(word)
        elif option and _is_number(word):
            out += [option, word] if given else [word]
            given += 1
        else:
            option = ""
            out.append(word)
            if word == "--exclude":
                out += _joined(words)
    return out


def _joined(words: Any) -> list[str]:
    pair = [word for word in (next(words, None), next(words, None)) if word is not None]
    if len(pair) == 2 and not pair[1].startswith("-"):
        return [JOINT.join(pair)]
    return pair


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
