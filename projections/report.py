"""
`LIVE_REPORT.md`: the summary and the decision, for people.
"""

import re
from collections.abc import Iterable, Sequence

from domain.events import TradingState
from domain.kpis import KPIS
from projections.views import Decision, Hysteresis, OverrideView, Summary

_MARKDOWN = re.compile(r"([\\`*_\[\]|<>&])")


def report_of(summary: Summary, decision: Decision) -> str:
    """Return the report as Markdown; whatever people typed is escaped."""
    sections = [
        _heading(summary),
        _cause(decision),
        _symbols(summary),
        _violations(summary),
        _overrides(summary.overrides),
        _footing(summary, decision),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def way_back(state: TradingState, hysteresis: Hysteresis) -> str:
    """Return, in a sentence, how far the way out of the present state is."""
    if hysteresis.required is None:
        return "Nothing to recover from."
    sentence = (
        f"{hysteresis.ok_windows} of {hysteresis.required} OK windows in a row to leave {state}"
    )
    reset = hysteresis.last_reset
    if reset is None:
        return f"{sentence}."
    told = ", ".join(reset.reasons)
    who = f"{reset.symbol} {told}" if reset.symbol else told
    when = f" at {reset.window}" if reset.window else ""
    return f"{sentence}; last reset{when}: {who}."


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line, in a table too."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _heading(summary: Summary) -> str:
    dry_run = " (dry run)" if summary.dry_run else ""
    return "\n".join(
        [
            f"# Live report: {summary.env}:{summary.exchange}{dry_run}",
            "",
            f"**{summary.state}**, global throttle {summary.throttle:g}, "
            f"window {summary.window.start} to {summary.window.end}: {summary.window.verdict}.",
        ]
    )


def _cause(decision: Decision) -> str:
    lines = ["## Why", ""]
    if decision.since is None:
        lines.append("ACTIVE since the ledger began.")
    else:
        who = f" by {decision.triggered_by}" if decision.triggered_by else ""
        lines.append(
            f"{decision.state} since {decision.since} "
            f"(before: {decision.previous_state}), triggered{who}:"
        )
        lines += ["", *[f"- {escape(reason)}" for reason in decision.reasons]]
    lines += ["", escape(way_back(decision.state, decision.hysteresis))]
    return "\n".join(lines)


def _symbols(summary: Summary) -> str:
    rows = []
    for symbol in summary.symbols:
        values = summary.kpis.per_symbol.get(symbol, {})
        notional = summary.effective_notional[symbol]
        rows.append(
            [
                symbol,
                f"{summary.per_symbol_throttle[symbol]:g}",
                f"{summary.effective_throttle[symbol]:g}",
                "-" if notional is None else f"{notional:.2f}",
                *[_value(values.get(kpi.name)) for kpi in KPIS],
            ]
        )
    head = ["Symbol", "Throttle (KPI)", "Effective", "Notional USD", *[k.name for k in KPIS]]
    return "## Symbols\n\n" + _table(head, rows)


def _violations(summary: Summary) -> str:
    if not summary.violations:
        return "## Violations in this window\n\nNone."
    rows = [
        [violation.symbol, violation.verdict.value, escape(violation.reason)]
        for violation in summary.violations
    ]
    return "## Violations in this window\n\n" + _table(["Symbol", "Verdict", "Reason"], rows)


def _overrides(overrides: Sequence[OverrideView]) -> str:
    if not overrides:
        return ""
    rows = [
        [
            override.kind if override.cap is None else f"{override.kind} {override.cap:g}",
            override.symbol or "all",
            escape(override.actor),
            escape(override.reason),
            override.applied_at,
            override.expires_at or "until cleared",
        ]
        for override in overrides
    ]
    head = ["Override", "Symbol", "By", "Reason", "Since", "Until"]
    return "## Overrides in force\n\n" + _table(head, rows)


def _footing(summary: Summary, decision: Decision) -> str:
    counts = summary.counts
    place = summary.ledger
    return "\n".join(
        [
            "## Ledger",
            "",
            f"- Windows: {counts.windows} ({counts.ok} OK, {counts.warn} WARN, "
            f"{counts.crit} CRIT), {counts.gap_windows} missing in {counts.gaps} gaps, "
            f"{counts.late_windows} late.",
            f"- Transitions: {counts.transitions}.",
            f"- Feed: {escape(summary.feed)}. Ramp profile: {summary.ramp_profile or 'none'}.",
            f"- Policy: `{decision.policy_hash}`.",
            f"- Stream `{place.stream}`, version {place.version}, position {place.position}.",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _value(value: float | None) -> str:
    return "no data" if value is None else f"{value:.6g}"
