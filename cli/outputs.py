"""
What a runner puts out after each append: the Redis keys, then the artifacts.

Both are made from the ledger alone, so that a run which was killed between two steps makes them
good at its next start. Source: DESIGN.md section 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from cli.metering import ARTIFACTS, NO_METER, NOTIFICATIONS, REDIS, Meter
from cli.session import Session
from domain.commands import ReportExternalWrite, ReportFill
from domain.errors import BadInput
from domain.events import Event
from domain.windows import WindowReadings
from ledger.application import Ledger
from projections.artifacts import write_artifacts

if TYPE_CHECKING:
    from cli.notifying import Notifier
    from cli.publishing import LedgerPublisher
    from projections.redis_exchange import ForeignWrite


FILL_GRACE_MS: Final = 5_000
"""How long a bot may take to obey before a fill counts as disobedience: orders are under way."""


PUBLICATIONS_MAX: Final = 3
"""How often a state is published in a row while others go on writing to its keys."""


class Outputs:
    """
    The outputs of one run.

    Args:
        publisher: None where nothing is published: a dry run, or no Redis.
        notifier: None where nobody is told.
        meter: what is told how far the outputs have come.
    """

    def __init__(
        self,
        ledger: Ledger,
        session: Session,
        artifacts: Path,
        publisher: "LedgerPublisher | None",
        notifier: "Notifier | None" = None,
        meter: Meter = NO_METER,
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._artifacts = artifacts
        self._publisher = publisher
        self._meter = meter
        meter.add_projection(ARTIFACTS)
        if publisher is not None:
            meter.add_projection(REDIS)
            meter.redis_answered(publisher.is_up)
        if notifier is not None:
            meter.add_projection(NOTIFICATIONS)
            self._meter_notifier(notifier)
        self._notifier = notifier
        self._failure: BadInput | None = None
        self._notices: list[str] = []

    def put_out(self, events: Sequence[Event], *, now_ms: int) -> list[Event]:
        """
        Publish what an append has led to, then renew the artifacts.

        Returns:
            The events that were appended because somebody else had written to the keys.

        Raises:
            AnotherWriter: if another runner has taken over; nothing was published then.
        """
        more: list[Event] = []
        if self._publisher is not None and self._session.stream.state.ledger_id:
            more = self._publish(events, self._publisher, now_ms)
        if self._session.stream.state.observed is not None:
            self._write_artifacts()
        return more

    def begin_window(self) -> bool:
        """Begin another window's outputs; return whether an earlier publication is owed."""
        return self._publisher is not None and self._publisher.begin_window()

    def hurry(self) -> None:
        """Put out what comes now even if Redis didn't answer before in this window."""
        if self._publisher is not None:
            self._publisher.hurry()

    def notify(self) -> list[str]:
        """Tell people what was appended, and record what they got; called between windows only."""
        if self._notifier is None:
            return []
        self._notifier.follow(self._session.stream.version)
        self._meter_notifier(self._notifier)
        return self._notifier.notices()

    def disobeyed(self, readings: WindowReadings) -> list[ReportFill]:
        """Return a report for each symbol whose fills added risk while 0.0 was published."""
        if self._publisher is None:
            return []
        reports = []
        for symbol, fill in readings.risk_fills.items():
            frozen_since_ms = self._publisher.frozen_since_ms(symbol)
            if frozen_since_ms is not None:
                report = ReportFill(
                    symbol=symbol,
                    filled_at_ms=fill.ts_ms,
                    frozen_since_ms=frozen_since_ms,
                    notional=fill.notional,
                    grace_ms=FILL_GRACE_MS,
                )
                reports.append(report)
        return reports

    def end_holds(self, request_ids: Sequence[str]) -> set[str]:
        """End the holds in Redis of requests that are decided; return whose there was one."""
        if self._publisher is None or not request_ids:
            return set()
        return self._publisher.end_holds(request_ids)

    def publish_fault(self, text: str) -> None:
        """Publish FROZEN and 0.0 for everything, with the cause."""
        if self._publisher is not None:
            self._publisher.publish_fault(text)
        if self._notifier is not None:
            self._notifier.tell_fault(text)

    def notices(self) -> list[str]:
        """Return what somebody should be told since the last call."""
        notices, self._notices = self._notices, []
        return notices if self._publisher is None else [*notices, *self._publisher.notices()]

    def close(self) -> None:
        """
        Leave what is to stand when the run has ended.

        Raises:
            BadInput: if the artifacts couldn't be renewed at the end.
        """
        if self._publisher is not None:
            self._publisher.close()
        if self._notifier is not None:
            self._notifier.close(self._session.stream.version)
        if self._failure is not None:
            raise self._failure

    def _meter_notifier(self, notifier: "Notifier") -> None:
        counts = notifier.counts
        self._meter.notified(
            pending=notifier.pending,
            delivered=counts.delivered,
            failed=counts.failed,
            abandoned=counts.abandoned,
        )
        self._meter.projected(NOTIFICATIONS, notifier.delivered_version)

    def _write_artifacts(self) -> None:
        """Renew the artifacts; a full disk under them is no reason to stop watching the bot."""
        try:
            write_artifacts(self._ledger, self._session.stream, self._artifacts)
        except BadInput as failure:
            if self._failure is None:
                self._notices.append(f"{failure}; decisions go on without the artifacts")
            self._failure = failure
        else:
            self._meter.projected(ARTIFACTS, self._session.stream.version)
            if self._failure is not None:
                self._notices.append("the artifacts are written again")
            self._failure = None

    def _publish(
        self, events: Sequence[Event], publisher: "LedgerPublisher", now_ms: int
    ) -> list[Event]:
        """Publish, and adopt or report what others wrote in the meantime, until nothing is new."""
        reported: list[Event] = []
        known: list[ForeignWrite] = []
        for _ in range(PUBLICATIONS_MAX):
            foreign = publisher.publish(
                self._ledger, self._session.stream, events, now_ms=now_ms, acknowledged=known
            )
            self._meter.redis_answered(publisher.is_up)
            self._meter.projected(REDIS, publisher.accepted_version)
            new = [write for write in foreign if write not in known]
            known += new
            events = [
                event
                for write in new
                for event in self._session.apply(_report(write, now_ms), decided_at_ms=now_ms)
            ]
            if not events:
                break
            reported += events
        return reported


def _report(write: "ForeignWrite", now_ms: int) -> ReportExternalWrite:
    return ReportExternalWrite(
        id=f"{now_ms:013d}-{uuid4().hex[:8]}",
        key=write.key,
        symbol=write.symbol,
        found=write.found,
        expected=write.expected,
        at_ms=now_ms,
    )
