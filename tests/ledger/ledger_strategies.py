"""Hypothesis strategies for every event, made from the annotations of its fields."""

import sys
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from domain.events import Event
from domain.kpis import KPI_BY_POLICY_KEY
from domain.policy import Policy

BIGGEST = sys.float_info.max
EXTREMES = (0.0, -0.0, 5e-324, -5e-324, BIGGEST, -BIGGEST, 2.2250738585072014e-308, 0.1 + 0.2, 1e22)
FLOATS = st.sampled_from(EXTREMES) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.sampled_from(("", "null", "ü€😀\u2028", '"\\\x00')) | st.text(max_size=8)
INTEGERS = st.integers(-(2**63), 2**63 - 1)

THRESHOLDS = st.dictionaries(st.sampled_from(sorted(KPI_BY_POLICY_KEY)), st.floats(0, 1))
POLICIES = st.builds(
    Policy,
    symbols=st.dictionaries(st.sampled_from(("BTCUSDT", "ETHUSDT")), THRESHOLDS),
    min_warn_windows=st.integers(1, 9),
    min_ok_windows=st.integers(1, 12),
    unfreeze_after_ok_windows=st.integers(12, 99),
    cooldown_throttle=st.floats(0.3, 0.6),
)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a field's type."""
    plain = {float: FLOATS, str: TEXTS, int: INTEGERS, bool: st.booleans(), Policy: POLICIES}
    if annotation in plain:
        return cast("st.SearchStrategy[Any]", plain[annotation])
    if annotation is NoneType:
        return st.none()
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType):
        return st.one_of(*map(values_of, parts))
    if kind is Literal:
        return st.sampled_from(parts)
    if kind is tuple:
        return st.lists(values_of(parts[0]), max_size=2).map(tuple)
    if kind is dict:
        return st.dictionaries(values_of(parts[0]), values_of(parts[1]), max_size=2)
    if issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    assert issubclass(annotation, msgspec.Struct), annotation
    hints = get_type_hints(annotation)
    fields = {name: values_of(hints[name]) for name in annotation.__struct_fields__}
    return st.builds(annotation, **fields)


EVENTS: st.SearchStrategy[Event] = st.one_of(*map(values_of, get_args(Event)))
