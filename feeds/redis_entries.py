"""
The entries of a Redis stream, in order and in pages, and how many went before they were read.

Source: issue 3, Feeds; https://redis.io/docs/latest/commands/xinfo-stream/.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis

from domain.errors import BadInput
from domain.windows import format_time
from feeds.redis_asking import RedisAway, ask, reason
from redis_link.client import BoundedRedis

PAGE_ENTRIES: Final = 5_000
PAGE_ENTRIES_MIN: Final = 50
RECORDED_MAX: Final = 10_000

_SEQUENCE_MAX: Final = 2**64 - 1
_ID_CHARACTERS_MAX: Final = 41


class StreamId(NamedTuple):
    """The id of a stream's entry; ids grow."""

    time_ms: int
    sequence: int

    def __str__(self) -> str:
        """Return it as Redis writes it."""
        return f"{self.time_ms}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "StreamId":
        """
        Return the id of a text such as `1767621600000-0`.

        Raises:
            ValueError: if it is none.
        """
        time_ms, dash, sequence = text[: _ID_CHARACTERS_MAX + 1].partition("-")
        numbers = (time_ms, sequence)
        is_id = dash and all(number.isascii() and number.isdecimal() for number in numbers)
        if not is_id or len(text) > _ID_CHARACTERS_MAX:
            raise ValueError(f"expected an id such as 1767621600000-0, was {text[:60]!r}")
        return cls(int(time_ms), int(sequence))

    @classmethod
    def before(cls, time_ms: int) -> "StreamId":
        """Return an id that lies before every entry of that time, and is no entry's own."""
        return cls(max(time_ms - 1, 0), _SEQUENCE_MAX)

    @property
    def previous(self) -> "StreamId":
        """The id just before this one."""
        if self.sequence:
            return StreamId(self.time_ms, self.sequence - 1)
        return StreamId.before(self.time_ms)

    @property
    def is_entry(self) -> bool:
        """Whether an entry may have it."""
        return self.sequence != _SEQUENCE_MAX


class Entry(NamedTuple):
    """One entry of a stream."""

    id: StreamId
    fields: Mapping[str, str]


class Close(NamedTuple):
    """A window, and the id that was read last when it was closed."""

    start_ms: int
    position: StreamId


class Tail(NamedTuple):
    """
    A stream at one moment.

    Attributes:
        last: the id given last, whether its entry is still there or not.
        first: the id of the oldest entry that is still there, None without any.
        added: how many entries there ever were; None before Redis 7.
    """

    last: StreamId
    first: StreamId | None
    added: int | None


class StreamReader:
    """
    Reads a stream from an id on.

    Attributes:
        position: the id that was read last, or that reading begins after.
    """

    def __init__(self, client: BoundedRedis, key: str) -> None:
        self._redis = client
        self._key = key
        self.position = StreamId(0, 0)
        self._page_entries = PAGE_ENTRIES
        self._is_short = False
        self._lost = 0
        # How many entries there ever were when the end was reached, and how many were read since.
        self._added_at_end: int | None = None
        self._read_since_end = 0

    def begin(self, after: StreamId) -> None:
        """Read from what comes after an id."""
        self.position = after
        self._added_at_end = None
        self._lost = 0

    def tail(self) -> Tail | None:
        """
        Return where the stream ends now, so that reading up to there ends too; None if it isn't.

        Raises:
            RedisAway: if there is no answer, or the key isn't a stream.
        """
        self._is_short = False
        info = ask(self._redis, self._ask_info)
        if info is None:
            # If it is made again, all of its entries are new.
            self._added_at_end, self._read_since_end = 0, 0
            return None
        first = info.get("first-entry")
        added = info.get("entries-added")
        try:
            return Tail(
                last=StreamId.parse(str(info["last-generated-id"])),
                first=StreamId.parse(str(first[0])) if first else None,
                added=added if isinstance(added, int) else None,
            )
        except (LookupError, TypeError, ValueError) as error:
            raise RedisAway(f"XINFO STREAM: {reason(self._redis, error)}") from error

    def is_at(self, tail: Tail) -> bool:
        """Return whether all there is up to the tail is read; then what is lost is known, too."""
        if not self._is_short and self.position < tail.last:
            return False
        self._lost += self._lost_before(tail)
        self._added_at_end, self._read_since_end = tail.added, 0
        return True

    def page(self, tail: Tail) -> list[Entry]:
        """
        Return the next entries up to the tail, and count them as read.

        Raises:
            RedisAway: if there is no answer; the next page asked for is then smaller.
        """
        try:
            rows = ask(self._redis, lambda client: self._ask_page(client, tail))
            entries = [Entry(StreamId.parse(str(id_)), fields) for id_, fields in rows]
        except RedisAway as away:
            if away.is_slow:
                self._page_entries = max(PAGE_ENTRIES_MIN, self._page_entries // 4)
            raise
        except (TypeError, ValueError) as error:
            raise RedisAway(f"XRANGE: {reason(self._redis, error)}") from error
        self._is_short = len(entries) < self._page_entries
        self._page_entries = min(PAGE_ENTRIES, self._page_entries * 2)
        self._read_since_end += len(entries)
        if entries:
            self.position = entries[-1].id
        return entries

    def take_lost(self) -> int:
        """Return how many entries went before they were read, since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    def _lost_before(self, tail: Tail) -> int:
        if self._added_at_end is None:
            return 0
        if tail.added is None:
            # An older Redis doesn't count. That the entry read last is gone is all one can see.
            return int(
                self.position.is_entry and tail.first is not None and tail.first > self.position
            )
        if tail.added < self._added_at_end:
            return 1  # It was made anew, and what the old one held is gone.
        return max(tail.added - self._added_at_end - self._read_since_end, 0)

    def _ask_info(self, client: redis.Redis) -> dict[str, Any] | None:
        try:
            return client.xinfo_stream(self._key)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise

    def _ask_page(self, client: redis.Redis, tail: Tail) -> list[Any]:
        start = f"({self.position}"
        rows = client.xrange(self._key, start, str(tail.last), count=self._page_entries)
        return [] if rows is None else list(rows)


def recorded_closes(resume: Sequence[tuple[int, str]]) -> deque[Close]:
    """
    Return recorded windows: start and `feed_position` of each, in order.

    Raises:
        BadInput: naming the window whose position is none, or that is out of order.
    """
    closes: deque[Close] = deque(maxlen=RECORDED_MAX)
    for start_ms, text in resume:
        try:
            close = Close(start_ms, StreamId.parse(text))
        except ValueError as error:
            raise BadInput(f"recorded window {format_time(start_ms)}: {error}") from error
        if closes and close.start_ms <= closes[-1].start_ms:
            raise BadInput(f"recorded window {format_time(start_ms)}: expected windows in order")
        # Positions don't go back either, unless the stream was made anew in between.
        position = max(close.position, closes[-1].position) if closes else close.position
        closes.append(Close(start_ms, position))
    return closes
