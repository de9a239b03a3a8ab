"""What `import embtables` offers: light to import, complete, documented, and its examples run."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import embtables
from tests.docs.quick_start import make_log_and_configuration

HOW_TO_ADD = Path(__file__).parents[1] / "docs" / "how-to-add.md"
EXPORTS = [name for name in embtables.__all__ if name not in ("__version__", *embtables._MODULES)]
# Small records of configuration, errors, and what calls return: their fields say all.
WITHOUT_EXAMPLE = {
    *("Adagrad", "Adam", "RowwiseAdagrad", "Sgd", "Constant", "Normal", "Uniform", "Zeros"),
    *("Hash", "Identity", "MultiHash", "MinCount", "Probability", "DenseColumn", "EventTime", "Label"),
    *(
        "Batch",
        "FittedTransforms",
        "Followed",
        "Schema",
        "LogConfig",
        "Manifest",
        "RunConfig",
        "Scores",
        "TableChanges",
        "TableStats",
    ),
}
# What is used together with others, or changes what the process knows: a page has the example, which runs.
SHOWN_BY_HOW_TO_ADD = {
    *("Encoder", "EncoderConfig", "EncoderSpec", "register_encoder"),
    *("Metric", "MetricSpec", "register_metric"),
    *("ModelInputs", "ModelOptions", "ModelSpec", "register_model"),
    *("OptimizerConfig", "OptimizerSpec", "StateColumn", "register_optimizer"),
}
SHOWN_BY = {**dict.fromkeys(SHOWN_BY_HOW_TO_ADD, HOW_TO_ADD), "read_version": HOW_TO_ADD.with_name("format.md")}


def example_of(name: str) -> doctest.DocTest | None:
    found = doctest.DocTestFinder(recurse=False, exclude_empty=True).find(getattr(embtables, name), name)
    return next((test for test in found if test.examples), None)


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "torchrec", "numpy", "pyarrow", "pandas", "pydantic", "ray")
    code = f"import embtables, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse(Path(embtables.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        each.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for each in node.names
    }
    assert imported == embtables._HOMES | dict.fromkeys(embtables._MODULES, "embtables")
    assert sorted(EXPORTS) == sorted(embtables._HOMES)
    assert set(embtables.__all__) <= set(dir(embtables))


@pytest.mark.parametrize("module", embtables._MODULES)
def test_a_public_module_needs_no_import_of_its_own_and_lists_its_names(module: str) -> None:
    code = f"import embtables; m = embtables.{module}; assert set(m.__all__) <= set(dir(m)); print(m.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"embtables.{module}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tabels'"):
        _ = embtables.Tabels


@pytest.mark.parametrize("name", EXPORTS)
def test_a_public_name_is_documented_and_its_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that has the log and the configuration of the quick start."""
    found = getattr(embtables, name)
    own = found.__doc__ if inspect.isclass(found) else inspect.getdoc(found)
    assert own, f"embtables.{name} has no docstring"
    assert not own.startswith(f"{name}("), f"the docstring of embtables.{name} is a dataclass's signature"
    test = example_of(name)
    if test is None:
        shown = name in SHOWN_BY and f"embtables.{name}" in SHOWN_BY[name].read_text(encoding="utf-8")
        small = name in WITHOUT_EXAMPLE or (inspect.isclass(found) and issubclass(found, Exception))
        assert shown or small, f"the docstring of embtables.{name} has no example that runs"
        return
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    test.globs = {"embtables": embtables, name: found}
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed == 0, "".join(said)
