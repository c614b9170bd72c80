"""The library's remedies in the words of the shell: what to type next."""

import re
import shlex
from ast import literal_eval
from typing import Any

_PAIRS = {"columns": "--map", "constants": "--constant", "scale": "--scale"}
"""Options that are given a name and a value, each pair for itself."""
_CALLS = {
    "import_csv": "scaling import csv",
    "import_jsonl": "scaling import jsonl",
    "import_wandb": "scaling import wandb",
    "import_tensorboard": "scaling import tensorboard",
    "fit_parametric": "--method parametric-additive",
    "fit_isoflop": "--method isoflop-vertex",
    "fit_intrinsic": "--method intrinsic",
}
"""Functions by what is typed in their place, without their arguments."""
_PHRASES = {
    ", runs.assign(mean_return=runs.mean_return - floor)": ": subtract it there",
    "load_runs([one, two])": "scaling check ONE TWO",
}
_OPTIONS = {
    "cost_constant": "--cost-constant",
    "protocol": "--protocol",
    "where": "--where",
    "agent": "--agent",
    "task": "--task",
    "unit": "--unit",
    "expert_return": "--expert-return",
    "scheme": "--scheme",
    "target": "--target",
}
_TEXT = r"\"[^\"]*\"|'[^']*'|-?\d[\d.e+]*\d|\d"


def in_shell_words(message: str) -> str:
    """A message that names arguments of Python functions, with the options of the commands.

    Examples
    --------
    >>> in_shell_words("If the names are right, say columns={'params': 'n', 'loss': 'val loss'}.")
    "If the names are right, say --map params=n --map 'loss=val loss'."
    >>> in_shell_words("say cost_constant=6 (C = 6 N D)")
    'say --cost-constant 6 (C = 6 N D)'
    >>> in_shell_words("name it: constants={'protocol': 'v1'}; or see import_csv('my runs')")
    "name it: --constant protocol=v1; or see scaling import csv 'my runs' -o runs.csv"
    >>> in_shell_words("or fit the whole surface: fit_parametric(runs)")
    'or fit the whole surface: --method parametric-additive'
    """
    for python, shell in _PHRASES.items():
        message = message.replace(python, shell)
    message = re.sub(rf"({'|'.join(_PAIRS)})=(\{{'[^{{}}]*\}})", _pairs, message)
    message = re.sub(rf"(?<![\w.])({'|'.join(_CALLS)})\(([^()]*)\)", _call, message)
    names = "|".join(_OPTIONS)
    return re.sub(rf"(?<![\w.-])({names})=({_TEXT})", _option, message)


def _pairs(found: re.Match[str]) -> str:
    option, given = _PAIRS[found[1]], _literal(found[2])
    if not isinstance(given, dict):
        return found[0]
    return " ".join(f"{option} {shlex.quote(f'{name}={_short(v)}')}" for name, v in given.items())


def _short(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _call(found: re.Match[str]) -> str:
    command = _CALLS[found[1]]
    if command.startswith("--"):
        return command
    given = _literal(found[2])
    return found[0] if given is None else f"{command} {shlex.quote(str(given))} -o runs.csv"


def _literal(text: str) -> Any:
    """What a text of Python stands for; None where it is no literal, as in somebody's own words."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return None


def _option(found: re.Match[str]) -> str:
    return f"{_OPTIONS[found[1]]} {shlex.quote(str(literal_eval(found[2])))}"
