"""What a type checker sees of the public names: all of them, fully known."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scaling_analysis as sa

PACKAGE = Path(sa.__file__).parent


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE.parent / "training_backend" / "py.typed").is_file()


def test_type_checkers_see_every_public_name():
    """The names are resolved when they are used: a checker needs them written out."""
    tree = ast.parse(Path(sa.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: (node.module or "").removeprefix("scaling_analysis.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    missing = [
        f"from scaling_analysis.{module} import {name} as {name}"
        for name, module in sa._MODULE_OF.items()
        if seen.get(name) != module
    ]
    assert missing == [], "add these below `if TYPE_CHECKING:` in scaling_analysis/__init__.py"
    assert set(seen) == set(sa._MODULE_OF)


def test_the_types_of_the_public_names_are_complete(tmp_path):
    """`pyright --verifytypes` on the package: every type known, none left to inference."""
    pytest.importorskip("pyright")
    (tmp_path / "scaling_analysis").symlink_to(PACKAGE, target_is_directory=True)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    command += ["--verifytypes", "scaling_analysis", "--ignoreexternal", "--outputjson"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    if done.returncode not in (0, 1):  # found all types, or did not
        pytest.skip(f"pyright does not start: {done.stderr.strip()[-200:]}")
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    public = {f"scaling_analysis.{name}" for name in sa.__all__}
    found = {symbol["name"]: symbol for symbol in symbols if symbol["name"] in public}
    assert len(found) > 50
    unsure = {
        name.removeprefix("scaling_analysis."): [each["message"] for each in symbol["diagnostics"]]
        for name, symbol in found.items()
        if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]
    }
    assert unsure == {}
