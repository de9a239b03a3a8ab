"""A function or class as a model: its parameters are its views and options; it trains, goes on and loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import embtables
from embtables.errors import ConfigError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.models.registry import MODELS, ModelInputs, code_of, forget_model, spec_of
from embtables.pipelines.call.own_model import model_section
from embtables.pipelines.config import RunConfig
from embtables.pipelines.plan.probes import dense
from embtables.pipelines.training.train import train
from embtables.schema import parse_yaml, to_yaml
from tests.models.test_register_model import LastTag
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]
Make = Callable[..., RunConfig]


class Tower(nn.Module):
    """One hidden layer over pooled embeddings and dense columns."""

    def __init__(
        self, pooled: Any, num_dense: int, num_labels: int, width: int = 8, *, sizes: tuple[int, ...] = (4,)
    ) -> None:
        super().__init__()
        self.pooled = pooled
        first = nn.Linear(sum(pooled.embedding_dims) + num_dense, width)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Linear(width, sizes[0]), nn.Linear(sizes[0], num_labels))

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat([self.pooled(ids), dense], dim=1))
        return logits


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    own = set(MODELS)
    yield
    for kind in set(MODELS) - own:
        forget_model(kind)


def registered(factory: Any, name: str | None = None) -> str:
    embtables.register_model(factory, name=name)
    return name or str(factory.__name__)


def error_of(factory: Any, name: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        embtables.register_model(factory, name=name)
    return caught.value.message


def test_a_class_trains_goes_on_is_saved_and_loads(make_config: Make, tmp_path: Path) -> None:
    registered(Tower)
    report = embtables.train(make_config(**{"model": {"kind": "Tower", "width": 16}}), shown=False).report()
    assert report["auc"] > 0.7
    folder = Path(report["run_dir"])
    assert parse_yaml((folder / "config.yaml").read_text())["model"] == {"kind": "Tower", "width": 16, "sizes": [4]}
    whole = embtables.train(
        make_config(**{"model": {"kind": "Tower", "width": 16}, "train.epochs": 3}), shown=False
    ).report()
    on = embtables.resume(folder, overrides=["train.epochs=3"], shown=False).report()
    assert (on["steps"], on["auc"], on["log_loss"]) == (whole["steps"], whole["auc"], whole["log_loss"])
    assert embtables.evaluate(folder)["auc"] == on["auc"]
    assert embtables.load(folder).scorer.model.layers[0].out_features == 16  # type: ignore[union-attr, index]


def test_a_function_may_take_any_view_and_none_of_it_where_no_feature_is_pooled_so(make_config: Make) -> None:
    def last_tag(pooled_first_order: Any, sequence: Any, num_dense: int, num_labels: int, width: int = 8) -> nn.Module:
        class Options:
            pass

        Options.width = width  # type: ignore[attr-defined]
        views = ModelInputs(None, sequence, None, num_dense, num_labels, pooled_first_order)
        return LastTag(Options(), views)  # type: ignore[arg-type]

    registered(last_tag)
    sequences = make_config(**{"model": {"kind": "last_tag"}, "features.2.pooling": "none"})
    assert spec_of(sequences.model).takes == {"pooled", "sequence", "first_order"}
    assert embtables.train(sequences, shown=False).report()["auc"] > 0.65
    assert dense(sequences, [64], lambda: None)[1] > 0, "the plan's probe builds it too"
    with pytest.raises(ConfigError, match="needs sequences; set pooling: none"):
        embtables.train(make_config(**{"model": {"kind": "last_tag"}}), shown=False).report()

    def either(pooled: Any, num_dense: int, num_labels: int, sequence: Any = None) -> nn.Module:
        assert sequence is None
        return Tower(pooled, num_dense, num_labels)

    registered(either)
    assert (
        embtables.train(make_config(**{"model": {"kind": "either"}, "train.epochs": 1}), shown=False).report()["steps"]
        > 0
    )


def test_options_are_the_parameters_and_are_checked(make_config: Make) -> None:
    registered(Tower)
    for section, reason in (
        ({"width": "wide"}, r"model\.width: Input should be a valid integer"),
        ({"widht": 3}, r"model: unknown key 'widht'; did you mean 'width'"),
        ({"sizes": 3}, r"model\.sizes: Input should be a valid tuple"),
    ):
        with pytest.raises(ConfigError, match=reason):
            make_config(**{"model": {"kind": "Tower", **section}})

    def needs(pooled: Any, width: int) -> nn.Module:
        raise AssertionError

    registered(needs)
    with pytest.raises(ConfigError, match=r"model\.width: Field required"):
        make_config(**{"model": {"kind": "needs"}})


def test_what_cannot_be_a_model_is_refused_in_one_sentence() -> None:
    assert "received 3" in error_of(3)
    assert "has no name of its own" in error_of(lambda pooled: None)
    assert "a name has letters" in error_of(lambda pooled: None, "a b")
    assert "takes no view" in error_of(nn.Linear)
    assert "takes no view" in error_of(lambda num_dense: None, "none")
    assert "'pooled_first_order' alone" in error_of(lambda pooled, first_order: None, "both")
    assert "'*args' has no name" in error_of(lambda pooled, *args: None, "args")
    assert "cannot be named 'kind'" in error_of(lambda pooled, kind="a": None, "kind")
    assert "needs a type: x: int" in error_of(lambda pooled, x=None: None, "untyped")

    def unknown_type(pooled: Any, x: Unknown = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def wrong_default(pooled: Any, x: int = "a") -> None: ...  # type: ignore[assignment]
    def not_finite(pooled: Any, x: float = float("nan")) -> None: ...
    def a_module(pooled: Any, x: nn.Module | None = None) -> None: ...

    assert "type of option 'x' cannot be read: name 'Unknown'" in error_of(unknown_type)
    assert "default of an option is wrong: x: Input should be a valid integer" in error_of(wrong_default)
    assert "default of an option is wrong: x: Input should be a finite number" in error_of(not_finite)
    assert "cannot be written to a configuration" in error_of(a_module)
    assert "is already embtables.models.kinds.lr.LrConfig" in error_of(lambda pooled: None, "lr")
    assert list(MODELS) == ["lr", "fm", "deepfm", "dcnv2"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda pooled, num_labels: 3, "must make a torch module, received int"),
        (lambda pooled, num_labels: nn.Linear(3, num_labels), "must hold the view 'pooled'"),
        (lambda pooled, num_labels: Flat(pooled), r"logits of shape \(rows, labels\) = \(100, 1\), received \(100,\)"),
        (lambda pooled, num_labels: Lazy(pooled), "'layer.weight' has no shape yet"),
    ],
)
def test_a_module_that_would_learn_something_else_is_refused(make_config: Make, make: Any, reason: str) -> None:
    registered(make, "wrong")
    with pytest.raises(ConfigError, match=reason):
        train(make_config(**{"model": {"kind": "wrong"}}), shown=False)


class Flat(nn.Module):
    def __init__(self, pooled: Any) -> None:
        super().__init__()
        self.pooled = pooled

    def forward(self, ids: JaggedIds, dense: Tensor) -> Tensor:
        flat: Tensor = self.pooled(ids).sum(dim=1)
        return flat


class Lazy(Flat):
    def __init__(self, pooled: Any) -> None:
        super().__init__(pooled)
        self.layer = nn.LazyLinear(1)


def test_without_its_code_a_run_is_refused_and_with_it_it_loads(make_config: Make) -> None:
    registered(Tower)
    report = embtables.train(make_config(**{"model": {"kind": "Tower"}, "train.epochs": 1}), shown=False).report()
    folder = report["run_dir"]
    forget_model("Tower")
    rows = {"user": [7], "item": ["item-3"], "tags": [[1]], "price": [1.0]}
    calls: list[Callable[..., Any]] = [embtables.load, embtables.resume, embtables.evaluate]
    for call in (*calls, lambda folder: embtables.predict(folder, rows)):
        with pytest.raises(ConfigError, match=r"config.yaml: model: 'kind' must be one of: lr, .* is not part of") as e:
            call(folder)
        assert "embtables.load(path, model=...) makes a run that evaluates and predicts" in str(e.value)
    with pytest.raises(
        StateError,
        match=r"resume-\d+: this build .* content: content.schema.model: 'kind' must be one of: .*'embtables.models'",
    ):
        embtables.Scorer.from_version(folder)
    with pytest.raises(ConfigError, match="the run's model is 'Tower', received the code of 'Flat'"):
        embtables.load(folder, model=Flat)
    run = embtables.load(folder, model=Tower)
    assert run.step == report["steps"]
    assert run.evaluate(shown=False)["auc"] == embtables.evaluate(run)["auc"] == report["auc"]
    scored = embtables.predict(run, rows, shown=False)
    assert scored.column("score").to_pylist() == pytest.approx(run.scorer.score(rows)[:, 0].tolist(), abs=1e-6)
    assert embtables.evaluate(folder)["auc"] == report["auc"]  # the code is known now
    forget_model("Tower")
    assert embtables.resume(folder, model=Tower, overrides=["train.epochs=2"], shown=False).report()["epochs"] == 2


def test_other_code_of_the_same_name_is_found_by_its_tensors(make_config: Make) -> None:
    registered(Tower)
    report = embtables.train(make_config(**{"model": {"kind": "Tower"}, "train.epochs": 1}), shown=False).report()
    forget_model("Tower")
    registered(lambda pooled, width=8, sizes=0: Flat(pooled), "Tower")
    with pytest.raises((ConfigError, StateError)):
        embtables.load(report["run_dir"])


def test_a_section_from_what_a_python_call_is_given() -> None:
    assert model_section("dcnv2") == {"kind": "dcnv2"}
    assert model_section({"kind": "lr"}) == {"kind": "lr"}
    assert model_section(MODELS["dcnv2"](kind="dcnv2", dropout=0.1))["dropout"] == 0.1  # type: ignore[call-arg]
    assert model_section(Tower) == {"kind": "Tower"} == model_section(Tower)
    assert code_of("Tower") is Tower
    assert code_of("lr") is None


PACKAGE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, pooled, num_labels, width: int = 4):
        super().__init__()
        self.pooled = pooled
        first = nn.Linear(sum(pooled.embedding_dims), width)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Linear(width, num_labels))

    def forward(self, ids, dense):
        return self.layers(self.pooled(ids))
"""


def install(folder: Path, module: str, code: str, points: str, package: str = "their-models") -> None:
    """What pip leaves of a package in a folder of the path."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{package.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[embtables.models]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_the_model_of_an_installed_package_is_found_by_the_command(
    make_config: Make, tmp_path: Path, site: Path
) -> None:
    """In another process, which knows it by the entry point alone."""
    install(site, "their_models", PACKAGE, "their_net = their_models:Net")
    config = tmp_path / "config.yaml"
    text = to_yaml(make_config(**{"train.epochs": 1}))
    content = {**parse_yaml(text), "model": {"kind": "their_net", "width": 5}}
    config.write_text(yaml.safe_dump(content))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    argv = [sys.executable, "-m", "embtables"]
    done = subprocess.run([*argv, "train", str(config)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    done = subprocess.run([*argv, "evaluate", str(run)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*argv, "evaluate", str(run)], env=alone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the code of a model of your own is not part of" in done.stderr


@pytest.mark.parametrize(
    ("code", "points", "reason"),
    [
        ("import nothing_of_that_name", "net = broken_a:Net", "ModuleNotFoundError: No module named 'nothing_of"),
        ("raise SystemExit('no')", "net = broken_b:Net", "which cannot be imported: SystemExit: no"),
        ("Net = 3", "net = broken_c:Net", "received 3"),
        ("", "net = broken_d:Net", "AttributeError: module 'broken_d' has no attribute 'Net'"),
        ("def Net(width: int): ...", "net = broken_e:Net", "model 'net' takes no view"),
        (
            "from embtables.models.kinds.lr import LR as Net",
            "net = broken_f:Net",
            "which is model 'lr': the entry point must have that name",
        ),
    ],
)
def test_a_broken_package_is_named(make_config: Make, site: Path, code: str, points: str, reason: str) -> None:
    install(site, points.split(" = ")[1].split(":", maxsplit=1)[0], code, points)
    with pytest.raises(ConfigError) as caught:
        make_config(**{"model": {"kind": "net"}})
    assert "package their-models 1.2 offers model 'net'" in str(caught.value)
    assert reason in str(caught.value)


def test_only_the_package_that_is_named_is_imported(make_config: Make, site: Path) -> None:
    install(site, "other_model", "raise AssertionError", "other = other_model:Net\nlr = other_model:Net")
    assert make_config(**{"model": {"kind": "lr"}}).model.kind == "lr"
    with pytest.raises(ConfigError, match="must be one of"):
        make_config(**{"model": {"kind": "other_model:Net"}})
    assert "other_model" not in sys.modules


def test_two_packages_with_one_name_are_refused(make_config: Make, site: Path) -> None:
    install(site, "model_a", PACKAGE, "net = model_a:Net", "package-a")
    install(site, "model_b", PACKAGE, "net = model_b:Net", "package-b")
    with pytest.raises(ConfigError, match=r"offered by several packages: package-a 1\.2, package-b 1\.2; keep one"):
        make_config(**{"model": {"kind": "net"}})


def test_a_module_that_registers_as_it_is_imported_may_be_an_entry_point(make_config: Make, site: Path) -> None:
    code = PACKAGE + "\nimport embtables\nembtables.register_model(Net, name='net')\n"
    install(site, "registers", code, "net = registers:Net")
    assert make_config(**{"model": {"kind": "net", "width": 3}}).model.kind == "net"
