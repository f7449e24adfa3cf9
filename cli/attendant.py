"""
What a runner sees to between windows: operators' requests, and overrides whose time has come.

Source: DESIGN.md section 1, Overrides.
"""

from collections.abc import Collection

from msgspec.structs import replace

from cli.session import Session
from domain.commands import ApplyOverride, Command, ExpireOverrides
from domain.errors import CommandRefused
from domain.events import Event, OverrideApplied, OverrideEnded, OverrideKind
from ledger.application import Ledger
from ledger.inbox import Answer, Inbox, Request


class Attendant:
    """Turns what waits in the inbox, and what expires, into events of a session."""

    def __init__(self, session: Session, ledger: Ledger, inbox: Inbox) -> None:
        self._session = session
        self._ledger = ledger
        self._inbox = inbox
        # Only what waited already may have been done by a runner that was killed before answering.
        self._waited = {request.id for request in inbox.pending()}
        self._known: set[str | tuple[str, int, str]] | None = None
        self._answers: list[tuple[Request, Answer]] = []

    def attend(self, now_ms: int) -> list[Event]:
        """Decide what waits, and return the events that were appended, in order."""
        events = self._session.apply(ExpireOverrides(at_ms=now_ms), decided_at_ms=now_ms)
        for request in self._inbox.pending():
            events += self._take(request, now_ms)
        return events

    @property
    def settled(self) -> list[str]:
        """The freezes that were decided or cleared, and aren't answered yet: their holds end."""
        return [
            request.id if request.clearance is None else request.clearance.override_id
            for request, _ in self._answers
            if request.override is None or request.override.kind is OverrideKind.FREEZE
        ]

    def answer(self, ended_holds: Collection[str]) -> None:
        """
        Answer what was decided; called once it is published: an answer is never a promise.

        Args:
            ended_holds: the freezes whose hold in Redis has ended. To clear one that this ledger
                knows nothing of is granted by that.
        """
        answers, self._answers = self._answers, []
        for request, answer in answers:
            asked = request.clearance
            if answer.refused is None or asked is None or asked.override_id not in ended_holds:
                self._inbox.answer(request, answer)
            else:
                note = f"the hold of {asked.override_id} in Redis is ended; {answer.refused}"
                self._inbox.answer(request, replace(answer, refused=None, note=note))

    def _take(self, request: Request, now_ms: int) -> list[Event]:
        events: list[Event] = []
        refused: str | None = None
        if request.valid_until_ms is not None and now_ms > request.valid_until_ms:
            refused = "it was asked for too long ago; ask again"
        elif request.id not in self._waited or _mark_of(request) not in self._recorded():
            try:
                events = self._session.apply(_as_of(request, now_ms), decided_at_ms=now_ms)
            except CommandRefused as error:
                refused = str(error)
        self._answers.append((request, Answer(self._session.stream.version, refused)))
        return events

    def _recorded(self) -> set[str | tuple[str, int, str]]:
        """
        Return the marks of what the ledger held when a request that had waited was met.

        It reads the whole stream, which a request that is asked for now must not wait for.
        """
        if self._known is None:
            self._known = set()
            for record in self._ledger.records(self._session.stream.id):
                if isinstance(record.event, OverrideApplied):
                    self._known.add(record.event.override.id)
                elif isinstance(record.event, OverrideEnded):
                    ended = record.event
                    self._known.add((ended.id, ended.at_ms, ended.ended_by))
        return self._known


def _mark_of(request: Request) -> str | tuple[str, int, str]:
    """Return how the ledger names what the request led to: an override's id, or its end."""
    asked = request.clearance
    return request.id if asked is None else (asked.override_id, asked.at_ms, asked.actor)


def _as_of(request: Request, now_ms: int) -> Command:
    """Return the request's command; an override holds from now on, however long it waited."""
    command = request.command
    if isinstance(command, ApplyOverride):
        return ApplyOverride(override=replace(command.override, applied_at_ms=now_ms))
    return command
