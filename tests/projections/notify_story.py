"""
Given, when, then for notifications: a stream that tests tell in windows, and what is told of it.

    story = Story(Level.WARN, Policy(), BTC, ETH)
    story.windows(1, BTCUSDT=CRIT)              # given, when
    assert story.told() == ["..."]              # then: the titles since the last call
"""

from decider_spec import MINUTE_MS, SHORT, Ledger

from domain.events import RampProfile
from domain.policy import Policy
from domain.state import State
from ledger.codec import Record
from projections.notify_memory import Memory, happenings
from projections.notify_messages import Level, Message, Settings
from projections.notify_plan import plan

STREAM = "prod:bybit"
RUNBOOK_URL = "https://desk.example/runbook"


class Story(Ledger):
    """A stream whose records are planned as they come."""

    def __init__(
        self,
        level: Level = Level.WARN,
        policy: Policy = SHORT,
        *symbols: str,
        debounce_minutes: float = 0,
        limits: RampProfile | None = None,
    ) -> None:
        self.settings = Settings(
            stream=STREAM,
            level=level,
            debounce_ms=round(debounce_minutes * MINUTE_MS),
            runbook_url=RUNBOOK_URL,
        )
        self.memory = Memory()
        self._planned = State()
        self._version = 0
        super().__init__(policy, *symbols, limits=limits)
        self.messages()

    def messages(self) -> list[Message]:
        """Plan what happened since the last call, as a runner does, and return what is told."""
        records = [
            Record(
                stream=STREAM,
                version=version,
                event=event,
                decided_at_ms=self.next_window,
            )
            for version, event in enumerate(self.events, start=1)
        ][self._version :]
        told: list[Message] = []
        for happening in happenings(self._planned, records):
            self.memory, messages = plan(self.memory, happening, self.settings)
            told += messages
            self._planned = happening.after
        self._version = len(self.events)
        return told

    def told(self) -> list[str]:
        """Plan what happened since the last call, and return the titles of what is told."""
        return [message.title for message in self.messages()]

    def kinds(self) -> list[str]:
        """Plan what happened since the last call, and return the kinds of what is told."""
        return [message.kind.value for message in self.messages()]
