"""
The policy: thresholds, hysteresis and what counts as missing.

A policy is checked when it is made, so that one that exists is one that can be run.
Source: LIVE_MODE_GUIDE.md, KPI Thresholds and Hysteresis; DESIGN.md sections 1 and 4.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from domain.errors import BadInput
from domain.kpis import KPI_BY_NAME, KPI_BY_POLICY_KEY, KPIS
from domain.windows import SYMBOL_PATTERN

COOLDOWN_THROTTLE_MIN: Final = 0.3
COOLDOWN_THROTTLE_MAX: Final = 0.6
COUNT_MAX: Final = 1_000_000

_COUNTS: Final = (
    "min_warn_windows",
    "min_ok_windows",
    "unfreeze_after_ok_windows",
    "no_data_freeze_windows",
    "global_freeze_symbols",
)


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What the controller decides by.

    Attributes:
        thresholds: by policy key, in each KPI's unit; all five are there.
        symbols: thresholds of single symbols, by symbol and policy key, over the general ones.
        required_kpis: KPIs whose NO_DATA counts as WARN, and as CRIT when it goes on.
        waived_when_halted: KPIs that may be absent for a symbol whose trading was halted.
        min_warn_windows: WARN windows in a row that lead to COOLDOWN.
        min_ok_windows: OK windows in a row that lead from COOLDOWN to ACTIVE.
        unfreeze_after_ok_windows: OK windows in a row that lead out of FROZEN.
        no_data_freeze_windows: the consecutive NO_DATA window from which on it is CRIT.
        global_freeze_symbols: how many CRIT symbols make the window CRIT.
        cooldown_throttle: the global throttle in COOLDOWN, 0.3 to 0.6.

    Raises:
        ValueError: if the policy could not be run; the message starts with the key.
    """

    thresholds: dict[str, float] = msgspec.field(
        default_factory=lambda: {kpi.policy_key: kpi.threshold for kpi in KPIS}
    )
    symbols: dict[str, dict[str, float]] = {}
    required_kpis: tuple[str, ...] = tuple(kpi.name for kpi in KPIS if kpi.required)
    waived_when_halted: tuple[str, ...] = tuple(kpi.name for kpi in KPIS if kpi.waived)
    min_warn_windows: int = 3
    min_ok_windows: int = 12
    unfreeze_after_ok_windows: int = 24
    no_data_freeze_windows: int = 3
    global_freeze_symbols: int = 1
    cooldown_throttle: float = 0.5

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds, at="thresholds")
        missing = KPI_BY_POLICY_KEY.keys() - self.thresholds.keys()
        if missing:
            raise ValueError(f"thresholds: {', '.join(sorted(missing))} must be there")
        for symbol, thresholds in self.symbols.items():
            if not SYMBOL_PATTERN.fullmatch(symbol):
                raise ValueError(f"symbols: {symbol!r} is not a well-formed symbol")
            _check_thresholds(thresholds, at=f"symbols.{symbol}")
        _check_kpis(self.required_kpis, at="required_kpis")
        _check_kpis(self.waived_when_halted, at="waived_when_halted")
        if not set(self.required_kpis) - set(self.waived_when_halted):
            raise ValueError(
                "required_kpis: expected at least one KPI that is not in waived_when_halted, "
                f"was {list(self.required_kpis)}; without one, a symbol without data would be OK"
            )
        for name in _COUNTS:
            if not 1 <= getattr(self, name) <= COUNT_MAX:
                raise ValueError(f"{name}: expected 1 to {COUNT_MAX}, was {getattr(self, name)}")
        if self.unfreeze_after_ok_windows < self.min_ok_windows:
            raise ValueError(
                "unfreeze_after_ok_windows: expected at least min_ok_windows "
                f"({self.min_ok_windows}), was {self.unfreeze_after_ok_windows}; "
                "FROZEN must not be easier to leave than COOLDOWN"
            )
        if not COOLDOWN_THROTTLE_MIN <= self.cooldown_throttle <= COOLDOWN_THROTTLE_MAX:
            raise ValueError(
                f"cooldown_throttle: expected {COOLDOWN_THROTTLE_MIN} to {COOLDOWN_THROTTLE_MAX}, "
                f"was {self.cooldown_throttle}"
            )

    def thresholds_of(self, symbol: str) -> Mapping[str, float]:
        """Return the symbol's thresholds by policy key: its own where it has some."""
        own = self.symbols.get(symbol)
        return self.thresholds if own is None else {**self.thresholds, **own}

    @property
    def hash(self) -> str:
        """64 hex digits that name the policy: the SHA-256 of its sorted JSON."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def overlay_policy(base: Policy, data: bytes, *, source: str) -> Policy:
    """
    Return the base policy with what a policy file says laid over it.

    Thresholds are laid over one by one, those of single symbols too; any other key replaces the
    base's value.

    Args:
        base: what holds where the file says nothing.
        data: the file's JSON.
        source: the file's name, for errors.

    Raises:
        BadInput: naming the source and the key.

    Source: DESIGN.md section 4, policy file.
    """
    try:
        given = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(
            f"{source}: expected a policy as JSON (in which a number is never NaN or infinite): "
            f"{error}"
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{source}: expected UTF-8: {error}") from None
    except ValueError as error:
        raise BadInput(f"{source}: {error}") from None
    return overlay_mapping(base, given, source=source)


def overlay_mapping(base: Policy, given: object, *, source: str) -> Policy:
    """Return the base policy with a decoded policy object laid over it; see `overlay_policy`."""
    if not isinstance(given, dict):
        raise BadInput(f"{source}: expected a JSON object, was {type(given).__name__}")
    known = Policy.__struct_fields__
    for key in given:
        if key not in known:
            raise BadInput(f"{source}: unknown key {key!r}; known: {', '.join(known)}")
    merged: dict[str, Any] = {**msgspec.structs.asdict(base), **given}
    try:
        merged["thresholds"] = _overlay(base.thresholds, given.get("thresholds", {}), "thresholds")
        merged["symbols"] = dict(base.symbols)
        for symbol, own in _as_object(given.get("symbols", {}), "symbols").items():
            merged["symbols"][symbol] = _overlay(
                base.symbols.get(symbol, {}), own, f"symbols.{symbol}"
            )
        return msgspec.convert(merged, Policy)
    except ValueError as error:
        raise BadInput(f"{source}: {error}") from None


class PolicyChange(msgspec.Struct, frozen=True):
    """One difference between two policies; `loosens` if it could mean more trading."""

    key: str
    before: str
    after: str
    loosens: bool

    @property
    def text(self) -> str:
        """The difference in one line: `thresholds.max_risk: 0.4 -> 0.5 (loosens)`."""
        return f"{self.key}: {self.before} -> {self.after}" + (" (loosens)" if self.loosens else "")


def policy_changes(before: Policy, after: Policy, symbols: tuple[str, ...]) -> list[PolicyChange]:
    """
    Return every difference, the thresholds as they hold for each of the symbols.

    Loosening is any change that could improve a verdict, put off a COOLDOWN, shorten an exit or
    raise a throttle. Source: DESIGN.md section 1, Policy changes.
    """
    changes = _threshold_changes(before.thresholds, after.thresholds, "thresholds")
    for symbol in symbols:
        if before.symbols.get(symbol) != after.symbols.get(symbol):
            changes += _threshold_changes(
                before.thresholds_of(symbol), after.thresholds_of(symbol), f"symbols.{symbol}"
            )
    looser_if_higher = {
        "min_warn_windows": True,
        "min_ok_windows": False,
        "unfreeze_after_ok_windows": False,
        "no_data_freeze_windows": True,
        "global_freeze_symbols": True,
        "cooldown_throttle": True,
    }
    for key, if_higher in looser_if_higher.items():
        old, new = getattr(before, key), getattr(after, key)
        if old != new:
            # Down to 1, a window in which every symbol is frozen on its own is no longer WARN.
            isolates_no_more = key == "global_freeze_symbols" and new == 1
            loosens = (new > old) == if_higher or isolates_no_more
            changes.append(PolicyChange(key, str(old), str(new), loosens))
    for key, looser_if_added in (("required_kpis", False), ("waived_when_halted", True)):
        old_kpis, new_kpis = set(getattr(before, key)), set(getattr(after, key))
        if old_kpis != new_kpis:
            moved = new_kpis - old_kpis if looser_if_added else old_kpis - new_kpis
            names = [", ".join(sorted(kpis)) or "none" for kpis in (old_kpis, new_kpis)]
            changes.append(PolicyChange(key, names[0], names[1], bool(moved)))
    return changes


def _threshold_changes(
    before: Mapping[str, float], after: Mapping[str, float], at: str
) -> list[PolicyChange]:
    return [
        PolicyChange(
            f"{at}.{kpi.policy_key}",
            f"{before[kpi.policy_key]!r}",
            f"{after[kpi.policy_key]!r}",
            (after[kpi.policy_key] < before[kpi.policy_key]) == (kpi.breached_when == "<"),
        )
        for kpi in KPIS
        if before[kpi.policy_key] != after[kpi.policy_key]
    ]


def _check_thresholds(thresholds: Mapping[str, float], *, at: str) -> None:
    for key, threshold in thresholds.items():
        kpi = KPI_BY_POLICY_KEY.get(key)
        if kpi is None:
            known = ", ".join(KPI_BY_POLICY_KEY)
            raise ValueError(f"{at}: unknown key {key!r}; known: {known}")
        if not (math.isfinite(threshold) and kpi.is_valid(threshold)):
            raise ValueError(
                f"{at}.{key}: expected a finite number from {kpi.lowest:g} to {kpi.highest:g}, "
                f"was {threshold!r}"
            )


def _check_kpis(names: tuple[str, ...], *, at: str) -> None:
    for name in names:
        if name not in KPI_BY_NAME:
            raise ValueError(f"{at}: unknown KPI {name!r}; known: {', '.join(KPI_BY_NAME)}")
    if len(set(names)) != len(names):
        raise ValueError(f"{at}: a KPI is there twice: {', '.join(names)}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice}: the key is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"a number is never NaN or infinite, was {text}")


def _overlay(base: Mapping[str, float], given: object, at: str) -> dict[str, float]:
    """Return the given thresholds laid over the base's."""
    thresholds = dict(base)
    for key, threshold in _as_object(given, at).items():
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError(f"{at}.{key}: expected a number, was {threshold!r}")
        thresholds[key] = float(threshold) + 0.0  # A negative zero becomes zero.
    return thresholds


def _as_object(given: object, at: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{at}: expected a JSON object, was {type(given).__name__}")
    return given
