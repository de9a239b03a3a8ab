"""Open unions: kinds are added from anywhere; what is wrong is refused with its path."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import PositiveFloat, TypeAdapter

from embtables.errors import ConfigError
from embtables.schema.base import Model
from embtables.schema.kinds import Kinds
from embtables.schema.text import json_schema, validate


class Shape(Model):
    kind: str


SHAPES: Kinds[Shape] = Kinds("shape")


@SHAPES.add
class Square(Shape):
    kind: Literal["square"] = "square"
    side: PositiveFloat


class Drawing(Model):
    shapes: tuple[Annotated[Shape, SHAPES], ...]


def test_a_kind_is_read_and_written_as_itself() -> None:
    drawing = validate(Drawing, {"shapes": [{"kind": "square", "side": 2}]})
    assert drawing.shapes == (Square(side=2.0),)
    assert Drawing.model_validate(drawing.model_dump(mode="json")) == drawing
    assert drawing.model_dump(mode="json") == {"shapes": [{"kind": "square", "side": 2.0}]}


def test_a_kind_added_later_is_known_to_models_made_before() -> None:
    class Circle(Shape):
        kind: Literal["circle"] = "circle"
        radius: PositiveFloat

    SHAPES.add(Circle)
    try:
        assert validate(Drawing, {"shapes": [{"kind": "circle", "radius": 1}]}).shapes == (Circle(radius=1.0),)
        assert '"radius"' in json_schema(Drawing)
        with pytest.raises(ConfigError, match="shape 'circle' is already Circle"):
            SHAPES.add(Circle)
    finally:
        SHAPES.remove("circle")
    with pytest.raises(ConfigError, match=r"shapes\.0: 'kind' must be one of: square"):
        validate(Drawing, {"shapes": [{"kind": "circle", "radius": 1}]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "square", "side": -1}, r"shapes\.0\.side: Input should be greater than 0 \(received -1\)"),
        ({"kind": "square", "sid": 1}, r"shapes\.0: unknown key 'sid'; did you mean 'side'\?"),
        ({"side": 1}, r"shapes\.0: 'kind' must be one of: square"),
        (3, r"shapes\.0: 'kind' must be one of: square"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Drawing, {"shapes": [given]})


def test_a_kind_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="needs a field `kind"):
        SHAPES.add(Shape)


def test_the_type_alone_validates() -> None:
    assert TypeAdapter(Annotated[Shape, SHAPES]).validate_python(Square(side=1.0)) == Square(side=1.0)
