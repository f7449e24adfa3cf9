"""
Notifications of a run: planned from the ledger, handed to the couriers, their outcome recorded.

All of it happens between windows, on the runner's one connection; only the handing over itself is
the couriers', each on a thread of its own. Source: DECISIONS.md 56 to 60.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from cli.run_options import NotifyOptions
from domain.state import State
from domain.windows import format_minute
from ledger.application import Ledger, StreamState
from ledger.codec import Record
from ledger.side_log import SideLog
from projections.notify_courier import Courier
from projections.notify_log import (
    NAMES,
    PURPOSE,
    Entry,
    NotificationAbandoned,
    NotificationDelivered,
    NotificationsNoted,
    Waiting,
    inherit,
    standing_of,
)
from projections.notify_memory import Memory, happenings, memory_at
from projections.notify_messages import RUNBOOK, Kind, Message, Settings, Severity
from projections.notify_plan import plan
from projections.notify_targets import Target
from projections.notify_text import duration

PAGE: Final = 500
NOTED_EVERY_VERSIONS: Final = 1_000
"""How far the ledger grows before it is noted again up to where everything is planned."""

GRACE_SEC: Final = 5.0
"""How long the end of a run waits for what isn't delivered yet; the rest stays owed."""

LATE_MS: Final = 120_000
POLL_SEC: Final = 0.02


class Counts(msgspec.Struct):
    """What came of messages since the run began; `failed` counts attempts."""

    delivered: int = 0
    failed: int = 0
    abandoned: int = 0


class Notifier:
    """
    The notifications of one run on one stream.

    Attributes:
        counts: for the metrics, as are `pending`, `delivered_version` and `oldest_pending_ms`.

    Args:
        targets: where to send to; at least one.
        now_ms: the wall clock, for what is late and what is given up. It decides nothing.
    """

    def __init__(
        self,
        options: NotifyOptions,
        ledger: Ledger,
        stream: StreamState,
        targets: Sequence[Target],
        now_ms: Callable[[], int],
    ) -> None:
        self.counts = Counts()
        self._ledger = ledger
        self._now_ms = now_ms
        self._settings = Settings(
            stream=stream.id,
            level=options.level,
            debounce_ms=options.debounce_ms,
            runbook_url=options.runbook_url,
        )
        self._names = list(dict.fromkeys(target.name for target in targets))
        self._log: SideLog[Entry] = SideLog(ledger, stream.id, PURPOSE, NAMES)
        self._memory = Memory()
        self._planned = stream
        self._noted_version = stream.version
        self._notices: list[str] = []
        self._failing: set[str] = set()
        self._couriers = [
            Courier(target.name, target.send, self._write, now_ms)
            for target in {target.name: target for target in targets}.values()
        ]
        self._resume(stream)

    def follow(self, version: int) -> None:
        """
        Plan what the ledger holds that isn't planned yet, hand it over, record outcomes.

        Args:
            version: the stream's last one.
        """
        messages = self._plan_new() if version > self._planned.version else []
        for courier in self._couriers:
            if messages:
                courier.take(messages)
        self.record()
        if self._planned.version - self._noted_version >= NOTED_EVERY_VERSIONS:
            self._note([])

    def record(self) -> None:
        """Record what was delivered or given up since the last call."""
        entries = self._outcomes()
        self._log.append(entries)
        for courier in self._couriers:
            self._tell_change(courier)

    def notices(self) -> list[str]:
        """Return what somebody should be told since the last call."""
        notices, self._notices = self._notices, []
        return notices

    @property
    def pending(self) -> int:
        """How many messages wait, each counted for every target that hasn't got it."""
        return sum(courier.tally().waiting for courier in self._couriers)

    @property
    def delivered_version(self) -> int:
        """Up to which version of the stream everything has come to something."""
        waiting = [tally.oldest for tally in (each.tally() for each in self._couriers)]
        versions = [message.version - 1 for message in waiting if message is not None]
        return min([self._planned.version, *versions])

    @property
    def oldest_pending_ms(self) -> int | None:
        """When the oldest message that waits was decided, by the wall clock; None without one."""
        waiting = [tally.oldest for tally in (each.tally() for each in self._couriers)]
        times = [message.decided_at_ms for message in waiting if message is not None]
        return min((time_ms for time_ms in times if time_ms is not None), default=None)

    def tell_fault(self, fault: str) -> None:
        """Tell, as far as that goes within the grace, that the ledger can't be written."""
        now_ms = self._now_ms()
        runbook = f"{self._settings.runbook_url}#{RUNBOOK[Kind.LEDGER_FAULT]}"
        message = Message(
            id="fault",
            version=self._planned.version,
            kind=Kind.LEDGER_FAULT,
            severity=Severity.CRIT,
            episode=f"{self._settings.stream}#{self._planned.version}",
            at_ms=now_ms,
            decided_at_ms=now_ms,
            title=f"[{Severity.CRIT}] {self._settings.stream} the ledger can't be written",
            body="\n".join(
                [
                    f"Cause: {' '.join(fault.split())[:500]}",
                    "The runner ends. If it publishes to Redis, FROZEN and 0.0 stand there.",
                    "Next: see to the disk and the file, then start the runner again.",
                    f"Runbook: {runbook}",
                ]
            ),
        )
        for courier in self._couriers:
            courier.put_first(message)
        self._wait()

    def close(self, version: int) -> None:
        """Give what waits a short grace, and note the rest as owed."""
        self.follow(version)
        for courier in self._couriers:
            courier.hurry()
        self._wait()
        self.record()
        if self._planned.version > self._noted_version:
            self._note([])
        if self.pending:
            self._notices.append(f"{self.pending} notifications are owed; the next run sends them")

    def _wait(self) -> None:
        ends_sec = time.monotonic() + GRACE_SEC
        while time.monotonic() < ends_sec and not all(each.is_idle for each in self._couriers):
            time.sleep(POLL_SEC)

    def _resume(self, stream: StreamState) -> None:
        """Go on where the log stands; begin at the present version if it has nothing."""
        standing = standing_of(self._log.backwards())
        if standing is None:
            self._memory = memory_at(stream.state, stream.id, stream.version)
            self._note([])
            return
        noted = standing.noted
        self._memory = noted.memory
        self._planned = self._ledger.stream(stream.id, version=noted.version)
        self._noted_version = noted.version
        owed = standing.owed(self._plan_new())
        heirs = inherit(owed, noted.targets, self._names)
        self._hand_over(heirs.owed)
        lapsed: list[Entry] = [self._lapsed(waiting) for waiting in heirs.lapsed]
        if lapsed or set(noted.targets) != set(self._names):
            self._note(lapsed)
        if heirs.owed:
            self._notices.append(
                f"{len(heirs.owed)} notifications weren't recorded as delivered; they are sent "
                "again, and say so"
            )

    def _hand_over(self, owed: Sequence[Waiting]) -> None:
        for courier in self._couriers:
            messages = [each.message for each in owed if each.target == courier.name]
            courier.take(messages, may_repeat=True)

    def _plan_new(self) -> list[Message]:
        """Plan up to the ledger's end, and return the messages."""
        messages: list[Message] = []
        pending: list[Record] = []
        read = self._planned.version
        while page := self._ledger.page(self._settings.stream, after=read, limit=PAGE):
            pending += page
            read = page[-1].version
            if len(page) < PAGE:
                break
            # What the page's end may have cut in two is planned with the next one.
            pending = self._plan_records(pending, messages, is_end=False)
        self._plan_records(pending, messages, is_end=True)
        return messages

    def _plan_records(
        self, records: list[Record], messages: list[Message], *, is_end: bool
    ) -> list[Record]:
        groups = list(happenings(self._planned.state, records))
        left = [] if is_end else list(groups.pop().records)
        for happening in groups:
            self._memory, told = plan(self._memory, happening, self._settings)
            messages += told
            version = happening.records[-1].version
            self._planned = StreamState(self._planned.id, version, happening.after)
        return left

    def _note(self, entries: list[Entry]) -> None:
        """Append entries, and up to where everything is planned, in one."""
        waiting = [
            Waiting(target=courier.name, message=message)
            for courier in self._couriers
            for message in courier.waiting()
        ]
        noted = NotificationsNoted(
            version=self._planned.version,
            targets=tuple(self._names),
            memory=self._memory,
            at_ms=self._now_ms(),
            waiting=tuple(waiting),
        )
        self._log.append([*entries, noted])
        self._noted_version = noted.version

    def _outcomes(self) -> list[Entry]:
        entries: list[Entry] = []
        now_ms = self._now_ms()
        for courier in self._couriers:
            for result in courier.results():
                message, attempts = result.message, result.attempts
                if message.kind is Kind.LEDGER_FAULT:
                    continue
                if result.given_up is None:
                    self.counts.delivered += 1
                    entries.append(
                        NotificationDelivered(
                            message=message.id,
                            episode=message.episode,
                            target=courier.name,
                            at_ms=now_ms,
                            attempts=attempts,
                        )
                    )
                else:
                    waiting = Waiting(target=courier.name, message=message)
                    entries.append(self._abandoned(waiting, result.given_up, attempts))
        self.counts.failed = sum(courier.tally().failed for courier in self._couriers)
        return entries

    def _lapsed(self, waiting: Waiting) -> NotificationAbandoned:
        return self._abandoned(waiting, "the target is no longer named", 0)

    def _abandoned(self, waiting: Waiting, reason: str, attempts: int) -> NotificationAbandoned:
        self.counts.abandoned += 1
        message = waiting.message
        self._notices.append(
            f"notification given up for {waiting.target}: {reason}: {message.title}"
        )
        return NotificationAbandoned(
            message=message.id,
            episode=message.episode,
            target=waiting.target,
            at_ms=self._now_ms(),
            reason=reason,
            attempts=attempts,
        )

    def _tell_change(self, courier: Courier) -> None:
        """Say once that a target fails, and once that it no longer does."""
        tally = courier.tally()
        if tally.is_failing == (courier.name in self._failing):
            return
        if tally.is_failing:
            self._failing.add(courier.name)
            self._notices.append(
                f"notifications to {courier.name} fail; {tally.waiting} waiting, tried again with "
                "growing pauses"
            )
        else:
            self._failing.discard(courier.name)
            self._notices.append(f"notifications to {courier.name} are delivered again")

    def _write(self, message: Message, may_repeat: bool) -> tuple[str, str]:
        """Return a message as it is told now; called on a courier's thread."""
        return written(message, self._planned.state, may_repeat=may_repeat, now_ms=self._now_ms())


def written(message: Message, state: State, *, may_repeat: bool, now_ms: int) -> tuple[str, str]:
    """Return a message's title and text, with what there is to add at the time of sending it."""
    title, lines = message.title, []
    if may_repeat:
        title = f"{title} (perhaps told before)"
        lines.append(
            f"This may be a repeat: whether {message.episode} was told before isn't recorded."
        )
    late_ms = 0 if message.decided_at_ms is None else now_ms - message.decided_at_ms
    if late_ms > LATE_MS:
        since = "" if state.since_ms is None else f" since {format_minute(state.since_ms)}"
        lines.append(
            f"Late: decided {duration(late_ms)} ago. By now the state is "
            f"{state.trading_state}{since}."
        )
    return title, "\n".join([*lines, message.body])
