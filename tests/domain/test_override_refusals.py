"""Overrides: what is recorded of them, what ends them, and which are refused."""

import pytest
from decider_spec import BTC, ETH, NOTHING, OK, SHORT, START_MS, WARN, Ledger, at, kinds, only
from msgspec.structs import replace

from domain.commands import AdoptPolicy, ApplyOverride, ClearOverride
from domain.errors import CommandRefused
from domain.events import Override, OverrideApplied, OverrideKind

CAP = Override(
    id="cap-1",
    kind=OverrideKind.CAP,
    actor="kim",
    reason="drill",
    applied_at_ms=START_MS,
    cap=0.4,
)


def test_the_same_override_twice_is_applied_once() -> None:
    ledger = Ledger()
    assert kinds(ledger.when(ApplyOverride(override=CAP)))[0] == "OverrideApplied"
    assert ledger.when(ApplyOverride(override=CAP)) == []


def test_an_override_is_recorded_with_scope_actor_reason_and_expiry() -> None:
    ledger = Ledger()
    override = replace(CAP, symbol=BTC, expires_at_ms=at(5))
    assert only(ledger.when(ApplyOverride(override=override)), OverrideApplied).override == override
    assert ledger.state.overrides_in_force == (override,)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"symbol": "XRPUSDT"}, "no such symbol: XRPUSDT; this stream has BTCUSDT"),
        ({"expires_at_ms": START_MS}, "an override must expire after it is applied"),
        ({"cap": None}, "expected a cap from 0.0 to 1.0, was None"),
        ({"cap": -0.1}, "expected a cap from 0.0 to 1.0, was -0.1"),
        ({"cap": 1.1}, "expected a cap from 0.0 to 1.0, was 1.1"),
        ({"cap": float("nan")}, "expected a cap from 0.0 to 1.0, was nan"),
        ({"kind": OverrideKind.FREEZE}, "only a cap has a value, freeze has none"),
        ({"kind": OverrideKind.UNFREEZE}, "only a cap has a value, unfreeze has none"),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(changes: dict[str, object], told: str) -> None:
    ledger = Ledger()
    with pytest.raises(CommandRefused) as refusal:
        ledger.when(ApplyOverride(override=replace(CAP, **changes)))
    assert str(refusal.value) == told


def test_clearing_what_is_not_in_force_is_refused_and_says_what_is() -> None:
    ledger = Ledger()
    clear = ClearOverride(id="cap-9", at_ms=at(1), actor="kim")
    with pytest.raises(CommandRefused, match="no override cap-9 is in force; in force: none"):
        ledger.when(clear)
    ledger.when(ApplyOverride(override=CAP))
    with pytest.raises(CommandRefused, match="in force: cap-1"):
        ledger.when(clear)
    ledger.clear()
    with pytest.raises(CommandRefused, match="no override cap-1 is in force"):
        ledger.when(replace(clear, id="cap-1"))


def test_an_override_outlives_the_adoption_of_a_policy() -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.override("cap", ETH, cap=0.4)
    ledger.when(AdoptPolicy(window=START_MS, policy=SHORT, symbols=(ETH, BTC)))
    assert ledger.effective == [0.4, 1.0]


@pytest.mark.parametrize("arrived", [OK, WARN, NOTHING])
def test_while_a_freeze_holds_windows_are_judged_as_always(arrived: object) -> None:
    held, free = Ledger(SHORT), Ledger(SHORT)
    held.override("freeze")
    held.windows(1, arrived)  # type: ignore[arg-type]
    free.windows(1, arrived)  # type: ignore[arg-type]
    assert (held.verdict, held.reasons_of()) == (free.verdict, free.reasons_of())
