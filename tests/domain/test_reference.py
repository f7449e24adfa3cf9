"""The core agrees, window for window, with a naive second reading of DESIGN.md section 1."""

import msgspec
from decider_spec import Ledger, profile
from hypothesis import given, settings
from hypothesis import strategies as st
from random_stories import NAMES, Gap, Window, policies, series, window_readings
from reference import Reference

from domain.commands import ObserveWindow


@st.composite
def cases(draw: st.DrawFn, /) -> tuple[Ledger, Reference]:
    count = draw(st.integers(2, 4))
    limit = draw(st.integers(1, count))
    policy = draw(policies(limit))
    ledger = Ledger(policy, *NAMES[:count], limits=profile(limit))
    return ledger, Reference(msgspec.structs.asdict(policy), list(NAMES[:count]), limit)


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(cases(), series)
def test_the_core_and_the_naive_reference_agree_on_every_window(
    case: tuple[Ledger, Reference], steps: list[Window | Gap]
) -> None:
    ledger, reference = case
    for step in steps:
        if isinstance(step, Gap):
            if ledger.state.window is not None:
                ledger.skip(step.windows)
                reference.gap(step.windows)
                compare(ledger, reference)
            continue
        for _ in range(step.times):
            window = window_readings(ledger, step.arrived)
            ledger.when(ObserveWindow(readings=window))
            reference.window({name: got.kpis for name, got in window.symbols.items()})
            compare(ledger, reference)


def compare(ledger: Ledger, reference: Reference) -> None:
    state, symbols = ledger.state, reference.symbols
    assert ledger.mode == (reference.state, reference.throttle)
    assert state.triggered_by == reference.triggered_by
    assert ledger.counters == (reference.ok_count, reference.warn_count)
    assert state.per_symbol_throttles() == {one.name: one.throttle for one in symbols}
    assert state.effective_throttles() == {one.name: one.effective for one in symbols}
