"""The arrows between the packages, the price of an import, and the public names."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import scaling_analysis

ANALYSIS = Path(scaling_analysis.__file__).parent
TRAINING = ANALYSIS.parent / "training_backend"

# Each layer may import what stands to its right, and its own modules.
LAYERS = ("cli", "report", "forecasting", "estimators", "uncertainty", "laws")
# Whom anyone may import, and what they may import in turn.
FOUNDATIONS = {
    "errors": set(),
    "encoding": {"errors"},
    "progress": set(),
    "processes": {"progress"},
    "runlog": {"errors", "encoding", "progress", "results"},
    "results": {"errors", "runlog"},
}


def imported_modules(path: Path, root: Path) -> set[str]:
    """Absolute names of all that a file of the package at `root` imports, inside functions too."""
    parents = [root.name, *path.relative_to(root).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*start, node.module] if node.module else start)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    """The layer or foundation of scaling_analysis that a module name belongs to."""
    pieces = module.split(".")
    if pieces[0] != "scaling_analysis" or len(pieces) < 2:
        return None
    return pieces[1]


def allowed(part: str) -> set[str]:
    if part in FOUNDATIONS:
        return {part} | FOUNDATIONS[part]
    return {*LAYERS[LAYERS.index(part) :], *FOUNDATIONS, "__version__"}


def analysis_files() -> list[Path]:
    return sorted(path for path in ANALYSIS.rglob("*.py") if path != ANALYSIS / "__init__.py")


def test_every_module_belongs_to_a_layer():
    parts = {path.relative_to(ANALYSIS).parts[0].removesuffix(".py") for path in analysis_files()}
    assert parts <= {*LAYERS, *FOUNDATIONS}, "say in LAYERS where a new package stands"
    assert {"laws", "runlog", "errors"} <= parts


@pytest.mark.parametrize("path", analysis_files(), ids=lambda path: str(path.relative_to(ANALYSIS)))
def test_arrows_point_one_way(path):
    part = path.relative_to(ANALYSIS).parts[0].removesuffix(".py")
    used = {part_of(module) for module in imported_modules(path, ANALYSIS)} - {None}
    assert used <= allowed(part), f"{part} must not import {sorted(used - allowed(part))}"


def test_laws_know_neither_tables_nor_files():
    for path in (ANALYSIS / "laws").glob("*.py"):
        modules = {name.split(".")[0] for name in imported_modules(path, ANALYSIS)}
        assert not modules & {"pandas", "polars", "pyarrow", "pathlib", "json", "csv"}, path


def test_analysis_never_imports_the_training_stack():
    for path in ANALYSIS.rglob("*.py"):
        modules = {name.split(".")[0] for name in imported_modules(path, ANALYSIS)}
        assert not modules & {"torch", "nle", "gymnasium", "ray", "training_backend"}, path


def test_training_uses_public_names_only():
    public = {"scaling_analysis", "scaling_analysis.errors"}
    public |= {f"scaling_analysis.{name}" for name in scaling_analysis.__all__}
    for path in TRAINING.rglob("*.py"):
        used = {
            name
            for name in imported_modules(path, TRAINING)
            if part_of(name) not in (None, "errors")
        }
        assert used <= public, f"{path.name} reaches inside: {sorted(used - public)}"


def test_the_arrow_test_sees_an_upward_import(tmp_path):
    wrong = tmp_path / "scaling_analysis" / "laws" / "wrong.py"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("def f():\n    from ..estimators import isoflop\n")
    used = {part_of(name) for name in imported_modules(wrong, wrong.parents[1])}
    assert "estimators" in used - allowed("laws")


def test_import_is_light():
    heavy = ("torch", "nle", "matplotlib", "statsmodels", "scipy.stats", "scipy.optimize", "typst")
    code = (
        "import sys, scaling_analysis\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_log_is_light(tmp_path):
    log = tmp_path / "runs.csv"
    log.write_text("params,samples,flops,loss\n1e5,1e6,6e11,2.5\n2e5,1e6,12e11,2.4\n")
    heavy = ("torch", "nle", "matplotlib", "statsmodels", "scipy.stats", "typst")
    code = (
        "import sys, scaling_analysis as sa\n"
        f"assert len(sa.load_runs({str(log)!r})) == 2\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", scaling_analysis.__all__)
def test_every_public_name_resolves(name):
    assert getattr(scaling_analysis, name) is not None


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'fit_everything'"):
        _ = scaling_analysis.fit_everything


def test_no_package_hides_a_module_behind_a_function():
    """`package.module` is the module: an `__init__` must not rebind the name to something else."""
    for found in pkgutil.walk_packages([str(ANALYSIS)], "scaling_analysis."):
        parent, _, leaf = found.name.rpartition(".")
        if parent == "scaling_analysis" or leaf == "__main__":
            continue
        module = importlib.import_module(found.name)
        assert getattr(importlib.import_module(parent), leaf) is module, found.name
