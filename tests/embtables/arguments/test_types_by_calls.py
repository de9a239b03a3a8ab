"""Every type of ids in every public call: what the same ids as int64 give, or a typed error. Nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from embtables import (
    CollisionlessTable,
    EmbeddingBagCollection,
    EmbeddingCollection,
    Feature,
    FeatureTransform,
    FittedTransforms,
    FixedTable,
    Label,
    Schema,
    Scorer,
    Tables,
    hash_strings,
    warm_start,
)
from embtables.arguments import as_ids
from embtables.errors import DataError, EmbtablesError, StateError
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView, RowsById, SequenceView
from embtables.schema import Hash, Identity, Normal, Sgd
from tests.embtables.arguments.values_for_tests import IDS, REFUSED, TAKEN

COMMON: dict[str, Any] = {"dim": 2, "optimizer": Sgd(learning_rate=1.0), "initializer": Normal(std=1.0)}
KEPT = torch.tensor([0, 1, 2, 3, 5, 7, -1, -7, -(2**63), 9])


def made() -> Tables:
    kept = CollisionlessTable(name="kept", **COMMON)
    fixed = FixedTable(name="fixed", num_rows=1000, **COMMON)
    features = [
        Feature(name="f", table="fixed", encoder=Hash(seed=3)),
        Feature(name="k", table="kept", encoder=Identity()),
        Feature(name="s", table="kept", encoder=Identity(), pooling="none"),
    ]
    tables = Tables([kept, fixed], features, seed=1)
    tables.set("kept", KEPT, torch.arange(20.0).view(10, 2))
    return tables


def jagged(feature: str, ids: Any, lengths: Any = None, weights: Any = None) -> JaggedIds:
    return JaggedIds((feature,), ids, torch.ones(4, dtype=torch.int64) if lengths is None else lengths, 4, weights)


def kjt(feature: str, ids: Any) -> KeyedJaggedTensor:
    return KeyedJaggedTensor([feature], ids, lengths=torch.ones(4, dtype=torch.int64))


def whole(tables: Tables) -> Tensor:
    keys = tables.keys("kept")
    assert keys is not None
    return torch.cat([keys.double()[:, None], tables.weight("kept").double()], dim=1)


def set_rows(ids: Any) -> Tensor:
    tables = made()
    tables.set("kept", ids, torch.full((4, 2), 99.0))
    return whole(tables)


def delete(ids: Any) -> Tensor:
    tables = made()
    tables.delete("kept", ids)
    return whole(tables)


def delete_fixed(ids: Any) -> Tensor:
    tables = made()
    tables.set_weight("fixed", torch.zeros(1000, 2))
    tables.delete("fixed", ids)
    return tables.weight("fixed")


def train(ids: Any) -> Tensor:
    tables = made()
    PooledView(tables, ["kept"])(jagged("k", ids)).sum().backward()
    tables.step()
    return whole(tables)


def replace(keys: Any) -> Tensor:
    tables = made()
    tables.set_weight("kept", torch.ones(4, 2), keys=keys)
    return whole(tables)


def state_dict(keys: Any) -> Tensor:
    tables = made()
    weights = {"embedding_bags.kept.weight": torch.ones(4, 2), "embedding_bags.kept.keys": keys}
    warm_start.from_state_dict(tables, weights)
    return whole(tables)


def scorer() -> Scorer:
    tables = made()
    schema = Schema(tables=tables.configs[:1], features=(Feature(name="k", table="kept"),), labels=(Label(column="y"),))
    return Scorer(schema, tables, nn.Identity(), FittedTransforms(), cast(Any, None))


READ = made()  # for what changes nothing
CALLS: dict[str, Callable[[Any], Tensor]] = {
    "Tables.get": lambda ids: READ.get("kept", ids),
    "Tables.get of a fixed table": lambda ids: READ.get("fixed", ids),
    "Tables.keys_of": lambda ids: READ.keys_of("fixed", ids, None)[1],
    "Tables.set": set_rows,
    "Tables.delete": delete,
    "Tables.delete of a fixed table": delete_fixed,
    "Tables.set_weight of keys": replace,
    "warm_start.from_state_dict of keys": state_dict,
    "PooledView, a step": train,
    "PooledView": lambda ids: PooledView(READ, ["kept"]).eval()(jagged("k", ids)).detach(),
    "SequenceView": lambda ids: SequenceView(READ).eval()(jagged("s", ids))["s"].values.detach(),
    "RowsById": lambda ids: RowsById(READ, "kept", "k")(jagged("k", ids)),
    "EmbeddingBagCollection": lambda ids: (
        EmbeddingBagCollection.over(READ, ["kept"]).eval()(kjt("k", ids)).values().detach()
    ),
    "EmbeddingCollection": lambda ids: EmbeddingCollection.over(READ).eval()(kjt("s", ids))["s"].values().detach(),
    "JaggedIds.of": lambda ids: JaggedIds.of({"k": [ids]}).values,
    "Encoder.encode": lambda ids: torch.from_numpy(READ.features[0].encoder.encode(ids)),
}
# A column of a log may be of strings or times, and may have nulls; a list of rows may be of lists.
READERS: dict[str, Callable[[Any], Tensor]] = {
    "Scorer.embed": lambda ids: scorer().embed("k", ids),
    "Scorer.score": lambda ids: scorer()._transform.batch({"k": ids}).ids.values,
    "FeatureTransform.batch": lambda ids: (
        FeatureTransform.for_scoring(scorer().schema, FittedTransforms()).batch({"k": ids}).ids.values
    ),
    "hash_strings": lambda ids: torch.from_numpy(hash_strings(ids)),
}


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*nested tensors.*|.*torch.ao.quantization.*|.*quantize_per_tensor.*"
        )
        yield


def outcome(call: Callable[[Any], Tensor], ids: Any) -> list[Any] | type[EmbtablesError]:
    """What a call gives, or its typed error; any other error is raised."""
    try:
        return cast(list[Any], call(ids).tolist())
    except EmbtablesError as error:
        assert len(str(error)) < 500
        return type(error)


@pytest.mark.parametrize("value", TAKEN)
def test_what_is_taken_means_the_same_as_int64(value: str) -> None:
    make, ids = TAKEN[value]
    found = {name: outcome(call, make()) for name, call in CALLS.items()}
    assert found == {name: outcome(call, torch.tensor(ids)) for name, call in CALLS.items()}
    assert isinstance(found["Tables.get"], list)


@pytest.mark.parametrize("value", REFUSED)
def test_what_is_refused_is_refused_everywhere(value: str) -> None:
    found = {name: outcome(call, REFUSED[value]()) for name, call in CALLS.items()}
    expected: dict[str, Any] = dict.fromkeys(CALLS, DataError)
    if value == "None":
        expected["Tables.set_weight of keys"] = StateError  # no keys are given: the table has other rows
    assert found == expected


@pytest.mark.parametrize("value", [*TAKEN, *REFUSED])
def test_what_reads_a_logs_columns_gives_what_int64_gives_or_a_typed_error(value: str) -> None:
    make, ids = TAKEN[value] if value in TAKEN else (REFUSED[value], None)
    found = {name: outcome(call, make()) for name, call in READERS.items()}
    if ids is not None:
        of_int64 = {name: outcome(call, torch.tensor(ids)) for name, call in READERS.items()}
        differs = {name for name in READERS if found[name] not in (of_int64[name], DataError)}
        assert not differs
        assert found["Scorer.embed"] == of_int64["Scorer.embed"]


def test_strings_are_hashed_where_a_call_says_so_and_the_others_say_how() -> None:
    tables = made()
    hashed = torch.from_numpy(hash_strings(["a", "b"]))
    assert torch.equal(scorer().embed("k", ["a", "b"]), tables.get("kept", hashed))
    with pytest.raises(
        DataError, match=r"table kept, argument ids: holds strings; hash them .*embtables\.hash_strings"
    ):
        tables.get("kept", np.array(["a", "b"]))


ROWS: dict[str, Any] = {
    "list": [[1, 2.5], [3, 4], [5, 6], [7, 8]],
    "numpy float16": np.arange(8, dtype=np.float16).reshape(4, 2),
    "numpy float64 transposed": np.arange(8.0).reshape(2, 4).T,
    "numpy int32": np.arange(8, dtype=np.int32).reshape(4, 2),
    "numpy big endian": np.arange(8, dtype=">f8").reshape(4, 2),
    "torch float64": torch.arange(8.0, dtype=torch.float64).view(4, 2),
    "torch bfloat16": torch.arange(8.0).view(4, 2).bfloat16(),
    "torch int8": torch.arange(8).view(4, 2).to(torch.int8),
    "torch bool": torch.tensor([[True, False]] * 4),
    "torch with gradient": torch.arange(8.0).view(4, 2).requires_grad_(),
    "torch negated": torch.complex(torch.zeros(4, 2), torch.arange(8.0).view(4, 2)).conj().imag,
}


@pytest.mark.parametrize("value", ROWS)
@pytest.mark.parametrize("call", ["set", "set_weight"])
def test_rows_of_any_real_type_are_taken(value: str, call: str) -> None:
    given = ROWS[value]
    tables = Tables(
        [FixedTable(name="t", num_rows=4, **COMMON)], [Feature(name="f", table="t", encoder=Identity())], seed=0
    )
    if call == "set":
        tables.set("t", range(4), given)  # type: ignore[arg-type]
    else:
        tables.set_weight("t", given)
    expected = (
        given.detach().float() if isinstance(given, Tensor) else torch.from_numpy(np.array(given).astype(np.float32))
    )
    assert torch.equal(tables.weight("t"), expected)


WRONG_ROWS: dict[str, Any] = {
    "float64 beyond float32": torch.full((4, 2), 1e300, dtype=torch.float64),
    "list beyond float32": [[1e39, 0.0]] * 4,
    "huge integers": [[10**400, 0]] * 4,
    "nan": np.full((4, 2), np.nan),
    "complex": torch.zeros(4, 2, dtype=torch.complex64),
    "strings": [["1", "2"]] * 4,
    "None": [[1.0, None]] * 4,
    "ragged": [[1.0], [2.0, 3.0]],
    "other shape": torch.zeros(4, 3),
    "too many": torch.zeros(5, 2),
    "flat": np.zeros(8),
    "sparse": torch.zeros(4, 2).to_sparse(),
    "nothing": None,
    "a number": 1.0,
}


@pytest.mark.parametrize("value", WRONG_ROWS)
@pytest.mark.parametrize("call", ["set", "set_weight"])
def test_other_rows_are_refused_and_change_nothing(value: str, call: str) -> None:
    tables = Tables(
        [FixedTable(name="t", num_rows=4, **COMMON)], [Feature(name="f", table="t", encoder=Identity())], seed=0
    )
    before = tables.weight("t")
    with pytest.raises(EmbtablesError):
        if call == "set":
            tables.set("t", torch.arange(4), WRONG_ROWS[value])
        else:
            tables.set_weight("t", WRONG_ROWS[value])
    assert torch.equal(tables.weight("t"), before)


@pytest.mark.parametrize("value", TAKEN)
def test_lengths_of_any_integer_type_are_taken(value: str) -> None:
    make, lengths = TAKEN[value]
    if min(lengths) < 0 or max(lengths) > 10:
        with pytest.raises(DataError, match=r"argument lengths: is -?\d+ at \d, and there are 20 ids"):
            PooledView(made(), ["kept"])(jagged("k", torch.ones(20, dtype=torch.int64), make()))
        return
    ids = torch.ones(sum(lengths), dtype=torch.int64)
    found = PooledView(made(), ["kept"])(jagged("k", ids, make()))
    assert torch.equal(found, PooledView(made(), ["kept"])(jagged("k", ids, torch.tensor(lengths))))


def test_int64_ids_are_not_copied() -> None:
    ids = torch.tensor(IDS)
    assert as_ids(ids) is ids
