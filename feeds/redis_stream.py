"""
Samples from a Redis stream, read durably: a restart loses none and counts none twice.

What a window holds depends on the samples and on where in the stream the windows before it were
closed, and on nothing else. So the id that was read last when a window was closed is recorded with
it, and a new run reads the recent past again, closing the same windows at the same ids: buckets,
levels and samples ahead of their window are then as they were, and what was late is late again.

The ids must be times in milliseconds that don't fall, as Redis makes them. Source: issue 3, Feeds.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from domain.errors import BadInput
from domain.windows import WindowReadings, check_interval, check_symbols
from feeds.aggregation import Aggregator
from feeds.redis_asking import Notices, RedisAway, Stopwatch
from feeds.redis_entries import Close, Entry, StreamId, StreamReader, recorded_closes
from feeds.samples import MalformedSample, Parsed, parse_fields, parse_message
from redis_link.client import BoundedRedis

POLL_SEC: Final = 0.3
COLLECT_SEC: Final = 10.0

_JSON_FIELDS: Final = ("data", "json", "payload")

_DESCRIPTION: Final = re.compile(
    r"redis-stream:(?:unix socket|\S+/(?P<database>\d+)) (?P<key>.*)", re.DOTALL
)

Progress = Literal["whole", "behind", "missing", "unreachable"]
"""How reading on went: to the end; not so far in time; no stream; no answer."""


def resume_windows(
    *, interval_ms: int, lookback_windows: int, kpi_max_age_ms: int | None, lateness_ms: int
) -> int:
    """Return how many of the last recorded windows a run needs so as to go on exactly."""
    max_age_ms = 2 * interval_ms if kpi_max_age_ms is None else kpi_max_age_ms
    past_ms = max(lookback_windows * interval_ms, max_age_ms) + lateness_ms
    return -(-past_ms // interval_ms) + 1


def stream_of(description: str) -> tuple[str | None, str] | None:
    """
    Return the database and the key of a described stream; None for the database of a unix socket.

    A run goes on where another one was only if that read the same stream. The server's address
    isn't of it: whoever moves or promotes a server takes its streams with their ids along.
    """
    found = _DESCRIPTION.fullmatch(description)
    return None if found is None else (found["database"], found["key"])


class RedisStreamFeed:
    """A `LiveFeed` that follows a Redis stream, and whose windows say how far they were read."""

    kind: Literal["redis"] = "redis"

    def __init__(
        self,
        client: BoundedRedis,
        key: str,
        symbols: Sequence[str],
        *,
        interval_ms: int,
        resume: Sequence[tuple[int, str]] = (),
        lookback_windows: int = 5,
        kpi_max_age_ms: int | None = None,
        lateness_ms: int = 2_000,
        stale: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """
        Take the client, which stays the caller's; Redis need not be there yet.

        Args:
            client: which bounds each question.
            key: the stream's name.
            resume: start and `feed_position` of the last recorded windows, in order: at least
                `resume_windows()` of them, where there are. Without any it begins one interval
                before the first window collected.
            lookback_windows, kpi_max_age_ms, lateness_ms, stale: as `Aggregator` takes them.

        Raises:
            BadInput: if the key, the symbols, the interval or a position is malformed.
        """
        self._symbols = check_symbols(symbols, source="--symbols")
        self._interval_ms = check_interval(interval_ms, source="--interval-sec")
        if not key:
            raise BadInput("--feed: expected redis-stream:KEY, was no key")
        self._key = key
        self._lateness_ms = lateness_ms
        self._make_aggregator: Callable[[], Aggregator] = lambda: Aggregator(
            self._symbols,
            interval_ms=self._interval_ms,
            lookback_windows=lookback_windows,
            kpi_max_age_ms=kpi_max_age_ms,
            lateness_ms=lateness_ms,
            stale=stale,
        )
        self._place = client.place
        self._notices = Notices(f"Redis at {self._place}")
        self._reader = StreamReader(client, key)
        self._recorded = recorded_closes(resume)
        self._is_new = not self._recorded
        self._lost = 0
        self._recent: deque[Close] = deque(
            maxlen=resume_windows(
                interval_ms=self._interval_ms,
                lookback_windows=lookback_windows,
                kpi_max_age_ms=kpi_max_age_ms,
                lateness_ms=lateness_ms,
            )
        )
        self._begin(self._origin_of_recorded() if self._recorded else None)

    @property
    def description(self) -> str:
        """Where the stream is: `redis-stream:127.0.0.1:6379/0 fills`."""
        return f"redis-stream:{self._place} {self._key}"

    @property
    def lateness_ms(self) -> int:
        """How long after a window's end its samples are still waited for."""
        return self._lateness_ms

    @property
    def newest_ms(self) -> int | None:
        """The latest `ts` up to the last window collected; None without any."""
        return self._aggregator.newest_ms

    def poll(self, now_ms: int) -> None:
        """Read what is there by now, for a moment at most."""
        under_way_ms = now_ms - now_ms % self._interval_ms
        if self._origin is None:
            self._begin(self._origin_before(under_way_ms))
        if self._notices.may_try(now_ms):
            # What lies before the last complete window can't be collected any more.
            self._skip_to(under_way_ms - self._interval_ms)
            self._follow(POLL_SEC, now_ms)

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """
        Return what the stream held for the window up to now.

        Without an answer from Redis or without a stream that is nothing. Where entries are known to
        be missing, or there are more than can be read in half an interval, it isn't the whole.
        """
        self._prepare(start_ms)
        progress = self._follow(min(COLLECT_SEC, self._interval_ms / 2_000), end_ms)
        counts: dict[str, int] = {} if progress == "whole" else {progress: 1}
        if self._recorded:
            # The windows before aren't rebuilt yet: this one is closed where the last of them was.
            last = self._recorded[-1].position
            self._recorded.append(Close(start_ms, last))
            return WindowReadings(start_ms=start_ms, feed_position=str(last), feed_counts=counts)
        if self._lost:
            counts["trimmed"] = self._lost
        is_whole = progress == "whole" and not self._lost
        self._lost = 0
        readings = self._close_window(Close(start_ms, self._reader.position), is_whole=is_whole)
        return msgspec.structs.replace(
            readings,
            symbols={} if progress in ("unreachable", "missing") else readings.symbols,
            feed_position=str(self._reader.position),
            feed_counts={**readings.feed_counts, **counts},
        )

    def notices(self) -> list[str]:
        """Return outages, trimming and malformed entries, each kind once."""
        return self._notices.take()

    def close(self) -> None:
        """Do nothing: the client is its maker's."""

    def _origin_before(self, start_ms: int) -> StreamId:
        """Return where a run begins whose first window is this one: an interval before it."""
        return StreamId.before(start_ms - self._interval_ms)

    def _origin_of_recorded(self) -> StreamId:
        """Return where the recorded windows' own run began, or may have; their ids are read."""
        oldest = self._recorded[0]
        at_position = oldest.position
        if at_position.is_entry:
            # The entry itself is read again: if it isn't there any more, the stream was trimmed.
            at_position = at_position.previous
        return min(self._origin_before(oldest.start_ms), at_position)

    def _begin(self, origin: StreamId | None) -> None:
        self._origin = origin
        self._lost = 0
        self._aggregator = self._make_aggregator()
        self._skipped_to_ms = 0
        if origin is not None:
            self._reader.begin(origin)

    def _prepare(self, start_ms: int) -> None:
        """See to it that the window can be closed, and that reading for it began where it must."""
        if start_ms < self._skipped_to_ms:
            # A clock that was ahead for a while had this window skipped: as after a restart.
            self._recorded.extend(close for close in self._recent if close.start_ms < start_ms)
            self._recent.clear()
            self._is_new = not self._recorded
            self._begin(self._origin_of_recorded() if self._recorded else None)
        if self._is_new and self._origin != (origin := self._origin_before(start_ms)):
            self._begin(origin)
        self._is_new = False
        self._skip_to(start_ms)

    def _skip_to(self, start_ms: int) -> None:
        if not self._recorded and start_ms > self._skipped_to_ms:
            self._skipped_to_ms = start_ms
            self._aggregator.advance(start_ms)

    def _close_window(self, close: Close, *, is_whole: bool = True) -> WindowReadings:
        # That the time is the position's and not the clock's makes it the same when read again.
        readings = self._aggregator.close(
            close.start_ms,
            connected_share=1.0 if is_whole else 0.0,
            now_ms=close.position.time_ms,
        )
        self._recent.append(close)
        return readings

    def _follow(self, budget_sec: float, now_ms: int) -> Progress:
        """Read on for as long as the budget lasts, and say how that went."""
        watch = Stopwatch()
        try:
            progress = self._read_on(watch, budget_sec)
        except RedisAway as away:
            self._notices.out(str(away), now_ms=now_ms, took_sec=watch.sec)
            return "unreachable"
        self._notices.back()
        if progress == "missing":
            self._notices.say_once("missing", f"{self.description}: there is no such stream")
        else:
            self._notices.forget("missing")
        return progress

    def _read_on(self, watch: Stopwatch, budget_sec: float) -> Progress:
        tail = self._reader.tail()
        if tail is None:
            return "missing"
        if self._reader.position.is_entry and tail.last < self._reader.position:
            at = (
                f"its last id {tail.last} is before {self._reader.position}, which was read already"
            )
            self._notices.say_once("backwards", f"{self.description}: stream was made anew: {at}")
            return "missing"
        while not self._reader.is_at(tail):
            if watch.sec > budget_sec:
                return "behind"
            before = self._reader.position
            for entry in self._reader.page(tail):
                self._close_recorded(before, entry.id)
                self._add(entry)
                before = entry.id
        self._close_recorded(self._reader.position, None)
        self._tell_lost(self._reader.take_lost())
        return "whole"

    def _close_recorded(self, read: StreamId, upcoming: StreamId | None) -> None:
        """Close what was closed by a run before this one between what is read and what comes."""
        while self._recorded and (upcoming is None or self._recorded[0].position < upcoming):
            close = self._recorded.popleft()
            self._close_window(close)
            if close.position.is_entry and close.position != read:
                # What came after the last window's position was never used: some of it is lost.
                is_last = not self._recorded
                self._notices.say_once(
                    "trimmed",
                    f"{self.description}: stream was trimmed: {close.position} isn't there, "
                    f"{'samples are lost' if is_last else 'the lookback is incomplete'}",
                )
                self._lost += is_last

    def _tell_lost(self, entries: int) -> None:
        if entries:
            self._lost += entries
            self._notices.say(
                f"{self.description}: stream was trimmed: {entries} entries went before being read"
            )

    def _add(self, entry: Entry) -> None:
        for sample in _samples(entry.fields):
            if isinstance(sample, MalformedSample):
                self._aggregator.count_malformed(sample.kind)
                problem = f"{sample.kind} in entry {entry.id} of {self._key}: {sample.detail}"
                self._notices.say_once(sample.kind, f"malformed: {problem}")
            else:
                self._aggregator.add(sample)


def _samples(fields: Mapping[str, str]) -> Parsed:
    if len(fields) == 1:
        ((name, value),) = fields.items()
        if name in _JSON_FIELDS:
            return parse_message(value)
    return parse_fields(fields)
