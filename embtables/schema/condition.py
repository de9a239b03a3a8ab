"""Conditions on columns, as `where` lists and evaluation slices have them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import yaml
from pydantic import model_validator

from embtables.schema.base import Model

Literal_ = bool | int | float | str | datetime


class Condition(Model):
    """One condition of `where`, written as text: `rating != 3`, `country in [UK, FR]`, `customer_id is not null`."""

    column: str
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null"]
    value: Literal_ | tuple[Literal_, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"\s*(\S+?)\s*(==|!=|<=|>=|<|>|\snot in\s|\sin\s)\s*(.+?)\s*", value)
        if found:
            column, op, text = found.groups()
            try:
                literal = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(f"cannot read the value {text!r}") from error
            return {"column": column, "op": op.strip(), "value": literal}
        found = re.fullmatch(r"\s*(\S+)\s+(is null|is not null)\s*", value)
        if found:
            return {"column": found[1], "op": found[2]}
        raise ValueError("write '<column> <op> <value>' with op ==, !=, <, <=, >, >=, in, not in, is null, is not null")

    @model_validator(mode="after")
    def _check(self) -> Condition:
        is_list = isinstance(self.value, tuple)
        if self.op in ("in", "not in") and not is_list:
            raise ValueError(f"'{self.op}' needs a list: {self.column} {self.op} [a, b]")
        if self.op not in ("in", "not in") and is_list:
            raise ValueError(f"'{self.op}' compares with one value, not with a list")
        if (self.value is None) != self.op.startswith("is"):
            raise ValueError("to compare with null, write 'is null' or 'is not null'")
        return self
