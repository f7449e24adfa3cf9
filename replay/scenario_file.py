"""
Scenario files: YAML in the manner of promtool's rule tests. The format is in docs/policy.md.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import yaml

from domain.commands import ApplyOverride, ClearOverride
from domain.errors import BadInput
from domain.events import Override, OverrideKind, TradingState
from domain.kpis import KPI_BY_NAME, KPIS, Reading
from domain.policy import Policy, overlay_mapping
from domain.windows import (
    SymbolReadings,
    WindowReadings,
    check_interval,
    check_symbols,
    parse_time,
)
from replay.scenario import KEYS, Expectation, Expected, Scenario
from replay.series_notation import WINDOWS_MAX, Gap, Series, parse_series
from replay.yaml_nodes import YamlFile

SCENARIOS_MAX: Final = 10_000
DEFAULT_START: Final = "2026-01-05T14:00:00Z"
DEFAULT_INTERVAL: Final = "60s"
DEFAULT_SYMBOL: Final = "BTCUSDT"

_FILE_KEYS: Final = ("interval", "start", "policy", "symbols", "scenarios")
_SCENARIO_KEYS: Final = ("name", "policy", "symbols", "windows", "series", "overrides", "expect")
_OVERRIDE_KEYS: Final = ("window", "kind", "symbol", "cap", "for", "id")
_INTERVAL: Final = re.compile(r"([0-9]{1,8})(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_WINDOWS: Final = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?")

ReadPolicy = Callable[[str], Policy]
"""Reads a policy file that a scenario file names."""


class _Defaults(msgspec.Struct, frozen=True):
    """What a file's scenarios have in common."""

    policy: Policy
    symbols: tuple[str, ...]
    interval_ms: int
    start_ms: int


def parse_scenarios(
    text: str, *, source: str, read_policy: ReadPolicy, policy: Policy | None = None
) -> list[Scenario]:
    """
    Return a file's scenarios, all of them checked.

    Args:
        source: the file's name, for messages.
        policy: decides instead of the file's own; what a single scenario says is laid over it.

    Raises:
        BadInput: naming the source and the line.
    """
    file = YamlFile(text, source)
    top = file.mapping(file.root, "the file", known=_FILE_KEYS, required=["scenarios"])
    defaults = _Defaults(
        policy=policy or _policy(file, top.get("policy"), Policy(), read_policy),
        symbols=_symbols(file, top.get("symbols"), (DEFAULT_SYMBOL,)),
        interval_ms=_interval_ms(file, top.get("interval")),
        start_ms=_start_ms(file, top.get("start")),
    )
    if defaults.start_ms % defaults.interval_ms:
        raise file.bad(top.get("start", file.root), "start: expected it aligned to the interval")
    nodes = file.sequence(top["scenarios"], "scenarios")
    if not 1 <= len(nodes) <= SCENARIOS_MAX:
        raise file.bad(
            top["scenarios"], f"scenarios: expected 1 to {SCENARIOS_MAX}, was {len(nodes)}"
        )
    return [_scenario(file, node, defaults, read_policy) for node in nodes]


def _scenario(
    file: YamlFile, node: yaml.Node, defaults: _Defaults, read_policy: ReadPolicy
) -> Scenario:
    keys = file.mapping(node, "scenario", known=_SCENARIO_KEYS, required=["name", "expect"])
    symbols = _symbols(file, keys.get("symbols"), defaults.symbols)
    policy = _policy(file, keys.get("policy"), defaults.policy, read_policy)
    series = _series(file, keys.get("series"), symbols)
    count = _window_count(file, node, keys.get("windows"), series)
    windows = tuple(
        _window(series, symbols, policy, index, defaults.start_ms + index * defaults.interval_ms)
        for index in range(count)
    )
    expectations = tuple(
        _expectation(file, one, count, symbols) for one in file.sequence(keys["expect"], "expect")
    )
    if not expectations:
        raise file.bad(keys["expect"], "expect: expected at least one expectation, was none")
    orders: dict[int, tuple[ApplyOverride | ClearOverride, ...]] = {}
    overrides = file.sequence(keys["overrides"], "overrides") if "overrides" in keys else []
    for number, one in enumerate(overrides, start=1):
        index, order = _order(file, one, number, count, symbols, defaults)
        orders[index] = (*orders.get(index, ()), order)
    return Scenario(
        name=file.text(keys["name"], "name"),
        place=file.place(node),
        policy=policy,
        symbols=symbols,
        interval_ms=defaults.interval_ms,
        start_ms=defaults.start_ms,
        windows=windows,
        orders=orders,
        expectations=expectations,
    )


_SeriesOf = dict[tuple[str | None, str], Series]
"""By symbol (None for all) and KPI."""


def _series(file: YamlFile, node: yaml.Node | None, symbols: tuple[str, ...]) -> _SeriesOf:
    """Return the series: by KPI for all symbols, and by symbol and KPI over them."""
    found: _SeriesOf = {}
    for key, value in ({} if node is None else file.mapping(node, "series")).items():
        if key in symbols:
            own = file.mapping(value, f"series.{key}", known=KPI_BY_NAME)
            found |= {(key, kpi): _one_series(file, inner) for kpi, inner in own.items()}
        elif key in KPI_BY_NAME:
            found[None, key] = _one_series(file, value)
        else:
            known = ", ".join([*KPI_BY_NAME, *symbols])
            raise file.bad(value, f"series: unknown KPI or symbol {key!r}; known: {known}")
    return found


def _one_series(file: YamlFile, node: yaml.Node) -> Series:
    try:
        return parse_series(file.text(node, "series"))
    except ValueError as error:
        raise file.bad(node, str(error)) from None


def _window_count(
    file: YamlFile, node: yaml.Node, given: yaml.Node | None, series: _SeriesOf
) -> int:
    """Return how many windows a scenario has: all its series agree, those that go on aside."""
    lengths = {
        f"{symbol or 'all'} {kpi}": len(one.items)
        for (symbol, kpi), one in series.items()
        if not one.has_rest
    }
    if given is not None:
        lengths["windows"] = file.whole(given, "windows")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise file.bad(node, f"series: expected as many windows in each, was {told}")
    if not lengths:
        raise file.bad(node, "expected a series of a certain length, or a key 'windows'")
    count = next(iter(lengths.values()))
    longest = max((len(one.items) for one in series.values()), default=0)
    if not 1 <= count <= WINDOWS_MAX or longest > count:
        raise file.bad(node, f"expected {max(1, longest)} to {WINDOWS_MAX} windows, was {count}")
    return count


def _window(
    series: _SeriesOf, symbols: tuple[str, ...], policy: Policy, index: int, start_ms: int
) -> WindowReadings | None:
    """Return what arrives in a window; None if any series has a gap there."""
    if any(one.at(index) is Gap.GAP for one in series.values()):
        return None
    arrived = {}
    for symbol in symbols:
        thresholds = policy.thresholds_of(symbol)
        kpis: dict[str, Reading] = {}
        for kpi in KPIS:
            one = series.get((symbol, kpi.name), series.get((None, kpi.name)))
            # What isn't told is at its threshold: that is OK under any policy.
            reading = thresholds[kpi.policy_key] if one is None else one.at(index)
            if reading is not None and not isinstance(reading, Gap):
                kpis[kpi.name] = reading
        arrived[symbol] = SymbolReadings(kpis)
    return WindowReadings(start_ms, arrived)


def _expectation(
    file: YamlFile, node: yaml.Node, count: int, symbols: tuple[str, ...]
) -> Expectation:
    keys = file.mapping(node, "expect", known=("window", *KEYS), required=["window"])
    first, last = _windows(file, keys.pop("window"), count)
    if not keys:
        raise file.bad(node, f"expect: expected one of {', '.join(KEYS)}, was none")
    values = {key: _expected(file, key, value, symbols) for key, value in keys.items()}
    return Expectation(file.place(node), first, last, values)


def _expected(file: YamlFile, key: str, node: yaml.Node, symbols: tuple[str, ...]) -> Expected:
    match key:
        case "state":
            state = file.text(node, key)
            if state not in list(TradingState):
                known = ", ".join(TradingState)
                raise file.bad(node, f"state: expected one of {known}, was {state!r}")
            return TradingState(state)
        case "throttle":
            return file.number(node, key)
        case "triggered_by":
            return None if file.is_null(node) else file.text(node, key)
        case "reasons":
            return tuple(file.text(one, key) for one in file.sequence(node, key))
        case _:
            inner = file.mapping(node, key, known=symbols)
            return {symbol: file.number(one, key) for symbol, one in inner.items()}


def _windows(file: YamlFile, node: yaml.Node, count: int) -> tuple[int, int]:
    """Return the windows of `4` or `4-6`, from 1 on."""
    text = file.text(node, "window")
    found = _WINDOWS.fullmatch(text)
    if found is None:
        raise file.bad(node, f"window: expected a number or a range such as 4-6, was {text!r}")
    first = int(found[1])
    last = int(found[2] or first)
    if not 1 <= first <= last <= count:
        raise file.bad(node, f"window: expected 1 to {count}, was {text}")
    return first, last


def _order(
    file: YamlFile,
    node: yaml.Node,
    number: int,
    count: int,
    symbols: tuple[str, ...],
    defaults: _Defaults,
) -> tuple[int, ApplyOverride | ClearOverride]:
    """Return an override, or the clearing of one, and the window that it comes before."""
    keys = file.mapping(node, "override", known=_OVERRIDE_KEYS, required=["window", "kind"])
    first, _ = _windows(file, keys["window"], count)
    at_ms = defaults.start_ms + (first - 1) * defaults.interval_ms
    name = file.text(keys["id"], "id") if "id" in keys else f"override-{number}"
    kind = file.text(keys["kind"], "kind")
    if kind == "clear":
        return first - 1, ClearOverride(id=name, at_ms=at_ms, actor="scenario")
    if kind not in list(OverrideKind):
        known = ", ".join([*OverrideKind, "clear"])
        raise file.bad(keys["kind"], f"kind: expected one of {known}, was {kind!r}")
    symbol = file.text(keys["symbol"], "symbol") if "symbol" in keys else None
    if symbol is not None and symbol not in symbols:
        raise file.bad(keys["symbol"], f"symbol: expected one of {', '.join(symbols)}")
    expires_at_ms = None
    if "for" in keys:
        expires_at_ms = at_ms + file.whole(keys["for"], "for") * defaults.interval_ms
    override = Override(
        id=name,
        kind=OverrideKind(kind),
        actor="scenario",
        reason="test",
        applied_at_ms=at_ms,
        symbol=symbol,
        cap=file.number(keys["cap"], "cap") if "cap" in keys else None,
        expires_at_ms=expires_at_ms,
    )
    return first - 1, ApplyOverride(override=override)


def _policy(
    file: YamlFile, node: yaml.Node | None, base: Policy, read_policy: ReadPolicy
) -> Policy:
    """Return a policy: a mapping is laid over the base, text names a policy file."""
    if node is None:
        return base
    if isinstance(node, yaml.ScalarNode):
        try:
            return read_policy(file.text(node, "policy"))
        except BadInput as error:
            raise file.bad(node, f"policy: {error}") from None
    given: Any = file.plain(node)
    return overlay_mapping(base, given, source=f"{file.place(node)}: policy")


def _symbols(file: YamlFile, node: yaml.Node | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if node is None:
        return default
    names = [file.text(one, "symbols") for one in file.sequence(node, "symbols")]
    return check_symbols(names, source=f"{file.place(node)}: symbols")


def _interval_ms(file: YamlFile, node: yaml.Node | None) -> int:
    text = DEFAULT_INTERVAL if node is None else file.text(node, "interval")
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise file.bad(node or file.root, f"interval: expected such as 60s or 5m, was {text!r}")
    interval_ms = int(found[1]) * _UNIT_MS[found[2]]
    return check_interval(interval_ms, source=f"{file.place(node or file.root)}: interval")


def _start_ms(file: YamlFile, node: yaml.Node | None) -> int:
    text = DEFAULT_START if node is None else file.text(node, "start")
    try:
        start_ms = parse_time(text)
    except (ValueError, OverflowError):
        start_ms = -1
    if start_ms < 0:
        raise file.bad(
            node or file.root, f"start: expected a time such as {DEFAULT_START}, was {text!r}"
        )
    return start_ms
