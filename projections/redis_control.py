"""
What stands beside publication: who may publish, what stops it, and what is published now.

Source: DESIGN.md section 1, Overrides, Starting, and failing closed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from domain.events import TradingState
from domain.windows import SYMBOL_PATTERN
from projections.redis_keys import TTL_SEC, LiveKeys
from projections.redis_script import load_script
from redis_link.client import BoundedRedis

DOWN_ERRORS: Final = (RedisError, OSError)
"""What an unreachable, slow or refusing server comes to."""

_READ: Final = load_script("redis_read.lua")
_LEASE: Final = load_script("redis_lease.lua")
_RELEASE: Final = load_script("redis_release.lua")
_HOLD: Final = load_script("redis_hold.lua")
_CLEAR: Final = load_script("redis_clear.lua")
_REASON_CHARS_MAX: Final = 200


class Down(msgspec.Struct, frozen=True):
    """The server can't be reached, is too slow, or refuses; `reason` holds no secret."""

    reason: str


class Lease(msgspec.Struct, frozen=True):
    """The right to publish; `token` is higher than every one given before. See `Wanted`."""

    token: int
    owner: str
    ttl_ms: int
    claim: str


class Wanted(msgspec.Struct, frozen=True):
    """
    A lease that is asked for.

    Attributes:
        owner: host, process id and since when, for whoever is refused.
        ttl_ms: longer than an interval and the time that a window takes.
        claims: what it is taken by, then those of earlier holders that may be taken over from;
            made up before it is asked for, and nobody else's.
        replaces: the token of an earlier holder that may be taken over from.
    """

    owner: str
    ttl_ms: int
    claims: tuple[str, ...]
    replaces: int | None = None


class LeaseHeld(msgspec.Struct, frozen=True):
    """Somebody else has the right to publish, until it runs out."""

    token: int
    owner: str
    expires_in_ms: int


class Published(msgspec.Struct, frozen=True):
    """
    What is published; None or "" for what isn't there.

    Attributes:
        state: FROZEN too where the key can't be read as a state.
        ledger_id, version, valid_until_ms, symbols, fault: the summary's.
        hold: who keeps everything FROZEN, and why; None if nobody does.
        lease_owner, lease_token: who publishes.
    """

    state: TradingState | None
    ledger_id: str
    version: int | None
    valid_until_ms: int | None
    symbols: tuple[str, ...]
    fault: str
    hold: str | None
    lease_owner: str
    lease_token: int | None


def published_state(connection: BoundedRedis, keys: LiveKeys) -> Published | Down:
    """Return what is published now, of whichever ledger, as of one moment."""
    try:
        return _read(connection, keys)
    except DOWN_ERRORS as error:
        return down(connection, error)


def acquire_lease(connection: BoundedRedis, keys: LiveKeys, wanted: Wanted) -> Lease | LeaseHeld:
    """
    Take the lease, or return who has it.

    Raises:
        RedisError, OSError: if the server is down.
    """
    replaces = "" if wanted.replaces is None else wanted.replaces
    args: list[str | int] = [wanted.owner, wanted.ttl_ms, replaces, *wanted.claims]
    answer = connection.run(_LEASE, [keys.lease, keys.fence], args)
    match answer:
        case [1, str(token)]:
            return Lease(int(token), wanted.owner, wanted.ttl_ms, wanted.claims[0])
        case [0, str(token), str(holder), int(expires_in_ms)]:
            return LeaseHeld(_number(token) or 0, holder, expires_in_ms)
        case _:
            raise ResponseError("the answer isn't one of our script's")


def release_lease(connection: BoundedRedis, keys: LiveKeys, lease: Lease) -> bool:
    """
    Give the lease back; return whether it was still ours.

    Raises:
        RedisError, OSError: if the server is down.
    """
    return bool(connection.run(_RELEASE, [keys.lease], [lease.token]))


def set_hold(
    connection: BoundedRedis,
    keys: LiveKeys,
    text: str,
    request_id: str,
    *,
    ttl_sec: int = TTL_SEC,
) -> Down | None:
    """
    Freeze what is published, and let nothing above FROZEN be published until `clear_hold`.

    Args:
        text: who and why, on one line.
        request_id: the request that the hold stands for; it ends with that one alone.
        ttl_sec: how long the frozen keys live, in s; the hold itself has no end.
    """
    try:
        with connection.bounded():
            symbols = _read(connection, keys).symbols
            line = f"{text}{_mark(request_id)}"
            fields = {"state": "FROZEN", "throttle": "0.0", "fault": f"held: {line}"}
            fields |= {f"throttle:{symbol}": "0.0" for symbol in symbols}
            flat = [item for field in fields.items() for item in field]
            names = [keys.hold, keys.state, keys.summary, *map(keys.throttle, symbols)]
            connection.run(_HOLD, names, [line, ttl_sec * 1000, *flat])
    except DOWN_ERRORS as error:
        return down(connection, error)
    return None


def clear_hold(connection: BoundedRedis, keys: LiveKeys, request_id: str) -> bool | Down:
    """
    Return whether there was a hold for this request, and end it.

    If it was the last one, the next window publishes what it decides.
    """
    try:
        return bool(connection.run(_CLEAR, [keys.hold], [_mark(request_id)]))
    except DOWN_ERRORS as error:
        return down(connection, error)


def down(connection: BoundedRedis, error: Exception) -> Down:
    """Return what a failure is, in a line without secrets."""
    if isinstance(error, RedisTimeout | TimeoutError):
        return Down(connection.missed)
    reason = " ".join(connection.scrub(str(error)).split())[:_REASON_CHARS_MAX]
    return Down(f"refused: {reason}" if isinstance(error, ResponseError) else reason)


def _read(connection: BoundedRedis, keys: LiveKeys) -> Published:
    names = [keys.state, keys.summary, keys.hold, keys.lease]
    answer = connection.run(_READ, names, [])
    if not isinstance(answer, list) or len(answer) != 9:
        raise ResponseError("the answer isn't one of our script's")
    state, ledger_id, version, valid_until, symbols, fault, hold, owner, token = map(str, answer)
    return Published(
        state=_state(state) if state else None,
        ledger_id=ledger_id,
        version=_number(version),
        valid_until_ms=_number(valid_until),
        symbols=well_formed(symbols.split(",")),
        fault=fault,
        hold=hold or None,
        lease_owner=owner,
        lease_token=_number(token),
    )


def well_formed(symbols: Sequence[str]) -> tuple[str, ...]:
    """Return those that are symbols: the others may not become part of a key."""
    return tuple(filter(SYMBOL_PATTERN.fullmatch, symbols))


def _mark(request_id: str) -> str:
    """Return what the line of a request's hold ends with."""
    return f" (request {request_id})"


def _state(text: str) -> TradingState:
    try:
        return TradingState(text.strip())
    except ValueError:
        return TradingState.FROZEN


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
