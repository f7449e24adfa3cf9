"""
What a runner sees to between windows: operators' requests, and overrides whose time has come.

Source: DESIGN.md section 1, Overrides.
"""

from msgspec.structs import replace

from cli.session import Session
from domain.commands import ApplyOverride, Command, ExpireOverrides
from domain.errors import CommandRefused
from domain.events import Event, OverrideApplied
from ledger.application import Ledger
from ledger.inbox import Answer, Inbox, Request


class Attendant:
    """Turns what waits in the inbox, and what expires, into events of a session."""

    def __init__(self, session: Session, ledger: Ledger, inbox: Inbox) -> None:
        self._session = session
        self._ledger = ledger
        self._inbox = inbox
        self._known: set[str] | None = None

    def attend(self, now_ms: int) -> list[Event]:
        """Return the events that were appended, in order; each request has its answer then."""
        events = self._session.apply(ExpireOverrides(at_ms=now_ms), decided_at_ms=now_ms)
        for request in self._inbox.pending():
            events += self._take(request, now_ms)
        return events

    def _take(self, request: Request, now_ms: int) -> list[Event]:
        """Decide one request and answer it, in this order: an answer is never a promise."""
        events: list[Event] = []
        refused: str | None = None
        if request.valid_until_ms is not None and now_ms > request.valid_until_ms:
            refused = "it was asked for too long ago; ask again"
        elif request.id not in self._recorded():
            try:
                events = self._session.apply(_as_of(request, now_ms), decided_at_ms=now_ms)
            except CommandRefused as error:
                refused = str(error)
        self._inbox.answer(request, Answer(self._session.stream.version, refused))
        return events

    def _recorded(self) -> set[str]:
        """
        Return the overrides that the ledger held when the first request was met.

        A runner that was killed between the append and the answer finds the request once more.
        """
        if self._known is None:
            self._known = {
                record.event.override.id
                for record in self._ledger.records(self._session.stream.id)
                if isinstance(record.event, OverrideApplied)
            }
        return self._known


def _as_of(request: Request, now_ms: int) -> Command:
    """Return the request's command; an override holds from now on, however long it waited."""
    command = request.command
    if isinstance(command, ApplyOverride):
        return ApplyOverride(override=replace(command.override, applied_at_ms=now_ms))
    return command
