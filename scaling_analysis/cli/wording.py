"""The library's remedies in the words of the shell: what to type next."""

import re
import shlex
from ast import literal_eval

_OPTIONS = {
    "cost_constant": "--cost-constant",
    "protocol": "--protocol",
    "where": "--where",
    "agent": "--agent",
    "task": "--task",
    "unit": "--unit",
    "expert_return": "--expert-return",
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
    """
    message = re.sub(r"columns=(\{'[^{}]*\})", _maps, message)
    names = "|".join(_OPTIONS)
    return re.sub(rf"(?<![\w.-])({names})=({_TEXT})", _option, message)


def _maps(found: re.Match[str]) -> str:
    columns = literal_eval(found[1])
    return " ".join(f"--map {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in columns.items())


def _option(found: re.Match[str]) -> str:
    return f"{_OPTIONS[found[1]]} {shlex.quote(str(literal_eval(found[2])))}"
