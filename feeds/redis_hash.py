"""
KPIs from Redis as the shadow pipeline leaves them: one hash a symbol, with the latest values.

Nothing is kept from window to window: what a hash holds when a window is over is what arrived for
it, if it is young enough. A hash that can't be read, for whatever reason, is nothing.

Source: LIVE_MODE_GUIDE.md, Redis; DESIGN.md section 5.
"""

import string
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import redis

from domain.errors import BadInput
from domain.kpis import KPIS, Defect, Reading
from domain.windows import (
    NOTHING,
    SymbolReadings,
    WindowReadings,
    check_interval,
    check_symbols,
    format_time,
)
from feeds.kpi_rows import fills_of, notional_of, reading_of_text, shown
from feeds.redis_asking import Notices, RedisAway, ask, reason
from feeds.samples import MalformedSample, parse_ts
from redis_link.client import BoundedRedis

DEFAULT_KPI_KEY: Final = "{env}:{exchange}:shadow:latest:{symbol}"
_PLACES: Final = ("env", "exchange", "symbol")
_KPI_FIELDS: Final = tuple(kpi.name for kpi in KPIS)
_FIELDS: Final = (*_KPI_FIELDS, "notional", "fills", "ts")
_VALUE_CHARACTERS_MAX: Final = 64

_Row = dict[str, str]
"""The fields of a hash that are there, of those that are asked for."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class RedisHashFeed:
    """A `LiveFeed` that looks at every symbol's hash once, when a window is over."""

    kind: Literal["redis"] = "redis"

    def __init__(
        self,
        client: BoundedRedis,
        symbols: Sequence[str],
        *,
        env: str,
        exchange: str,
        interval_ms: int,
        kpi_key: str = DEFAULT_KPI_KEY,
        allow_untimed: bool = False,
        kpi_max_age_ms: int | None = None,
        lateness_ms: int = 2_000,
        now_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        """
        Take the client, which stays the caller's; Redis need not be there yet.

        Args:
            client: which bounds all of a window's reading together.
            symbols: one hash is read for each.
            env: in prod a hash without `ts` has no value, unless `allow_untimed`.
            kpi_key: the name of a symbol's hash, with `{env}`, `{exchange}` and `{symbol}`.
            kpi_max_age_ms: how old a hash may be at the window's end; None is two intervals.
            lateness_ms: how far beyond the window's end a `ts` may lie.
            now_ms: the wall clock: a hash that is written anew just before it is read is none of
                the future, however late that is.

        Raises:
            BadInput: if the symbols, the interval or the template is malformed.
        """
        self._symbols = check_symbols(symbols, source="--symbols")
        interval_ms = check_interval(interval_ms, source="--interval-sec")
        _check_template(kpi_key, one_symbol=len(self._symbols) == 1)
        self._template = kpi_key.replace("{env}", env).replace("{exchange}", exchange)
        self._takes_untimed = allow_untimed or env != "prod"
        self._max_age_ms = 2 * interval_ms if kpi_max_age_ms is None else kpi_max_age_ms
        self._lateness_ms = lateness_ms
        self._now_ms = now_ms
        self._redis = client
        self._notices = Notices(f"Redis at {self._redis.place}")
        self._counts: Counter[str] = Counter()
        self._latest_ms = 0
        self._newest_ms: int | None = None

    @property
    def description(self) -> str:
        """Where the hashes are: `redis:127.0.0.1:6379/0 dev:bybit:shadow:latest:{symbol}`."""
        return f"redis:{self._redis.place} {self._template}"

    @property
    def lateness_ms(self) -> int:
        """How long after a window's end its hashes are still waited for."""
        return self._lateness_ms

    @property
    def newest_ms(self) -> int | None:
        """The latest `ts` of a hash with a number in it; an untimed one has no time."""
        return self._newest_ms

    def poll(self, now_ms: int) -> None:
        """Do nothing: only the latest values count, and only when the window is over."""

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """Return what the hashes hold now; without an answer from Redis, nothing."""
        self._counts.clear()
        symbols: dict[str, SymbolReadings] = {}
        rows = self._read()
        self._latest_ms = max(end_ms + self._lateness_ms, self._now_ms())
        for symbol, row in zip(self._symbols, rows, strict=True):
            readings = self._readings(self._key(symbol), row, end_ms)
            if readings != NOTHING:
                symbols[symbol] = readings
        return WindowReadings(start_ms=start_ms, symbols=symbols, feed_counts=dict(self._counts))

    def notices(self) -> list[str]:
        """Return outages, untimed hashes and malformed values, each kind once."""
        return self._notices.take()

    def close(self) -> None:
        """Do nothing: the client is its maker's."""

    def _key(self, symbol: str) -> str:
        return self._template.replace("{symbol}", symbol)

    def _read(self) -> list[_Row]:
        """Return each symbol's row, in order; one that can't be read is empty."""
        try:
            answers = ask(self._redis, self._ask_all)
        except RedisAway as away:
            self._notices.out(str(away))
            self._counts["unreachable"] += 1
            return [{} for _ in self._symbols]
        self._notices.back()
        return [
            self._row(self._key(symbol), answer)
            for symbol, answer in zip(self._symbols, answers, strict=True)
        ]

    def _ask_all(self, client: redis.Redis) -> list[object]:
        # Asking for the fields by name bounds the answer, whatever else the hash holds.
        with client.pipeline(transaction=False) as pipeline:
            for symbol in self._symbols:
                pipeline.hmget(self._key(symbol), list(_FIELDS))
            answers: list[object] = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, redis.ConnectionError):
                raise answer
        return answers

    def _row(self, key: str, answer: object) -> _Row:
        if not isinstance(answer, list):
            found = reason(self._redis, answer) if isinstance(answer, Exception) else "no list"
            self._malformed("key", f"{key}: expected a hash, was: {found}")
            return {}
        return {name: value for name, value in zip(_FIELDS, answer, strict=True) if value}

    def _readings(self, key: str, row: _Row, end_ms: int) -> SymbolReadings:
        """Return what a row says, its age considered."""
        kpis: dict[str, Reading] = {
            name: self._reading(key, name, row[name]) for name in _KPI_FIELDS if name in row
        }
        if not kpis:
            return NOTHING
        is_sample = any(not isinstance(reading, Defect) for reading in kpis.values())
        defect = self._defect_of_age(key, row.get("ts"), end_ms, is_sample=is_sample)
        if defect is not None:
            return SymbolReadings(kpis=dict.fromkeys(kpis, defect))
        return SymbolReadings(
            kpis=kpis,
            notional=self._amount(key, "notional", row),
            fills=self._whole(key, "fills", row),
        )

    def _defect_of_age(
        self, key: str, ts: str | None, end_ms: int, *, is_sample: bool
    ) -> Defect | None:
        if ts is None:
            return self._defect_of_untimed(key)
        try:
            ts_ms = parse_ts(ts)
        except MalformedSample as malformed:
            self._malformed("ts", f"{key} ts: {malformed.detail}")
            return Defect.MALFORMED
        if ts_ms > self._latest_ms:
            problem = f"{(ts_ms - end_ms) / 1000:g} s after the window's end"
            self._malformed("future", f"{key} ts: {format_time(ts_ms)} is {problem}")
            return Defect.MALFORMED
        if is_sample and (self._newest_ms is None or ts_ms > self._newest_ms):
            self._newest_ms = ts_ms
        if end_ms - ts_ms > self._max_age_ms:
            self._counts["stale"] += 1
            return Defect.STALE
        return None

    def _defect_of_untimed(self, key: str) -> Defect | None:
        if self._takes_untimed:
            consequence = "taken as it is, though it can't be told from a stale one"
        else:
            consequence = "taken for no data; write ts, or allow it with --allow-untimed"
        self._counts["untimed"] += 1
        self._notices.say_once("untimed", f"{key} has no ts: {consequence}")
        return None if self._takes_untimed else Defect.UNTIMED

    def _reading(self, key: str, name: str, text: str) -> Reading:
        try:
            reading = reading_of_text(text) if len(text) <= _VALUE_CHARACTERS_MAX else None
        except ValueError:
            reading = None
        if reading is None or isinstance(reading, Defect):
            self._malformed(name, f"{key} {name}: expected a number, was {shown(text)}")
        return Defect.MALFORMED if reading is None else reading

    def _amount(self, key: str, name: str, row: _Row) -> float | None:
        try:
            return notional_of(self._reading(key, name, row[name])) if name in row else None
        except ValueError:
            self._malformed(name, f"{key} {name}: expected at least 0, was {shown(row[name])}")
            return None

    def _whole(self, key: str, name: str, row: _Row) -> int | None:
        try:
            return fills_of(self._reading(key, name, row[name])) if name in row else None
        except ValueError:
            expected = "a whole number of at least 0"
            self._malformed(name, f"{key} {name}: expected {expected}, was {shown(row[name])}")
            return None

    def _malformed(self, kind: str, problem: str) -> None:
        self._counts["malformed"] += 1
        self._notices.say_once(kind, f"malformed: {problem}")


def _check_template(template: str, *, one_symbol: bool) -> None:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"--kpi-key: expected a template, was {shown(template)}: {error}") from error
    for _, place, form, conversion in parts:
        if place is not None and (place not in _PLACES or form or conversion):
            known = ", ".join(f"{{{name}}}" for name in _PLACES)
            raise BadInput(f"--kpi-key: expected no place but {known}, was {{{place}}}")
    if "{symbol}" not in template and not one_symbol:
        raise BadInput("--kpi-key: expected {symbol} in it, as there is more than one symbol")
