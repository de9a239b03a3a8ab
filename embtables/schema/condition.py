"""Conditions on columns, as `where` lists and evaluation slices have them.

The values of conditions are literals: text that is read by the type of the column when it is known, never by its looks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, model_validator

from embtables.schema.base import Model

_OPERATORS = "==, !=, <, <=, >, >=, in, not in, is null, is not null"


def literal_text(value: Any) -> Any:
    """A value as the text of a literal; what is no plain value stays as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    return value.isoformat() if isinstance(value, datetime | date) else value


LiteralText = Annotated[str, BeforeValidator(literal_text)]


class Condition(Model):
    """One condition of `where`, written as text: `rating != 3`, `country in [UK, NO]`, `customer_id is not null`.

    A column whose name holds spaces or operators is written as a mapping: `{column: user id, op: "!=", value: 3}`.

    Example:
        >>> import embtables
        >>> embtables.Condition.model_validate("version == 1.10").value
        '1.10'
    """

    column: str
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null"]
    value: LiteralText | tuple[LiteralText, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"\s*(\S+?)\s*(==|!=|<=|>=|<|>|\snot in\s|\sin\s)\s*(.+?)\s*", value)
        if found:
            column, op, text = found.groups()
            return {"column": column, "op": op.strip(), "value": _literals(text)}
        found = re.fullmatch(r"\s*(\S+)\s+(is null|is not null)\s*", value)
        if found:
            return {"column": found[1], "op": found[2]}
        raise ValueError(
            f"write '<column> <op> <value>' with op {_OPERATORS}; a column whose name holds spaces is written as a "
            'mapping, {column: user id, op: "!=", value: 3}'
        )

    @model_validator(mode="after")
    def _check(self) -> Condition:
        is_list = isinstance(self.value, tuple)
        if self.op in ("in", "not in") and not is_list:
            raise ValueError(f"'{self.op}' needs a list: {self.column} {self.op} [a, b]")
        if self.op not in ("in", "not in") and is_list:
            raise ValueError(f"'{self.op}' compares with one value, not with a list")
        if (self.value is None) != self.op.startswith("is"):
            raise ValueError("to compare with null, write 'is null' or 'is not null'; the word is written \"'null'\"")
        return self


def _literals(text: str) -> str | Sequence[str] | None:
    """The text of a literal, or of each of a list; quotes are taken off. A bare null is None."""
    if text.lower() in ("null", "~"):
        return None
    if text[0] not in "[\"'":
        return text
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read the value {text!r}; quote what holds brackets, commas or quotes") from error
    is_list = isinstance(node, yaml.SequenceNode)
    values = []
    for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(item, yaml.ScalarNode):
            raise ValueError(f"cannot read the value {text!r}: its items must be plain values; quote what holds ': '")
        values.append(str(item.value))
    return values if is_list else values[0]
