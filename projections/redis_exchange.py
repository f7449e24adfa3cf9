"""
One exchange with `redis_publish.lua`: what it is sent, and what its answer means.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from projections.redis_control import Lease, well_formed
from projections.redis_keys import (
    TRANSITIONS_MAX,
    LiveKeys,
    Publication,
    Transition,
    frozen_fields,
)
from projections.redis_script import load_script
from redis_link.client import BoundedRedis

_PUBLISH: Final = load_script("redis_publish.lua")


class Outcome(StrEnum):
    """
    What became of a publication; anything but ACCEPTED wrote nothing.

    NOT_NEWER: a newer version is there, or this one and something would rise.
    OTHER_LEDGER: the keys are another ledger's.
    FENCED: another runner holds, or held, the lease: this one must stop.
    STALE: past its `valid_until` by the server's clock.
    FOREIGN: somebody set a key lower, and the ledger hasn't been told.
    DOWN: the server can't be reached, is too slow, or refuses.
    """

    ACCEPTED = "ACCEPTED"
    NOT_NEWER = "NOT_NEWER"
    OTHER_LEDGER = "OTHER_LEDGER"
    FENCED = "FENCED"
    STALE = "STALE"
    FOREIGN = "FOREIGN"
    DOWN = "DOWN"


class ForeignWrite(msgspec.Struct, frozen=True):
    """A key of ours that somebody else wrote; `symbol` is None for the state."""

    key: str
    symbol: str | None
    found: str
    expected: str


class Result(msgspec.Struct, frozen=True):
    """
    What became of a publication.

    Attributes:
        detail: whose lease or ledger it is, which key would rise, why the server is DOWN; the
            hold's text if it was accepted under one.
        foreign: what others wrote since the last publication, whatever the outcome.
    """

    outcome: Outcome
    detail: str = ""
    foreign: tuple[ForeignWrite, ...] = ()


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """
    On what terms a publication is offered; the first three are `RedisPublisher`'s.

    Attributes:
        is_probe: only look for foreign writes.
        acknowledged: foreign writes that may be overwritten.
        transitions: those that the server may not have.
        lease: ours, to be checked and renewed.
        written: what this writer published last.
    """

    dead_man: bool
    adopt: bool
    allow_stale: bool
    is_probe: bool
    acknowledged: tuple[ForeignWrite, ...]
    transitions: tuple[Transition, ...]
    lease: Lease | None
    written: Publication | None


def exchange(
    connection: BoundedRedis, keys: LiveKeys, publication: Publication, terms: Terms
) -> Result:
    """
    Let the server judge the publication, and write it if it may be; ACCEPTED for a probe too.

    Raises:
        RedisError, OSError: if the server is down; it may have written all the same.
    """
    retired = publication.retired
    # A second time, if symbols were published that the first didn't name.
    for _ in range(2):
        payload = msgspec.json.encode(_payload(keys, publication, retired, terms)).decode()
        answer = connection.run(_PUBLISH, _names(keys, publication, retired), [payload])
        if not isinstance(answer, list) or len(answer) < 2 or len(answer) % 4 != 2:
            break
        outcome, detail, *rest = map(str, answer)
        if outcome in Outcome.__members__:
            return Result(Outcome[outcome], detail, _foreign(rest))
        if outcome != "UNDECLARED":
            break
        retired = tuple(dict.fromkeys([*retired, *well_formed(detail.split(","))]))
    raise ResponseError("the answer isn't one of our script's")


def _names(keys: LiveKeys, publication: Publication, retired: tuple[str, ...]) -> list[str]:
    """Return the script's keys, in its order."""
    return [
        *(keys.state, keys.summary, keys.transitions, keys.hold, keys.lease, keys.fence),
        *map(keys.throttle, publication.throttles),
        *map(keys.kpi_throttle, publication.throttles),
        *(name(symbol) for symbol in retired for name in (keys.throttle, keys.kpi_throttle)),
    ]


def _payload(
    keys: LiveKeys, publication: Publication, retired: tuple[str, ...], terms: Terms
) -> dict[str, Any]:
    """Return the script's argument; numbers that go on into commands are text."""
    payload: dict[str, Any] = {
        "version": publication.version,
        "ledger_id": publication.ledger_id,
        "state": publication.state,
        "symbols": list(publication.throttles),
        "throttles": list(publication.throttles.values()),
        "kpi_throttles": list(publication.kpi_throttles.values()),
        "retired": retired,
        "summary": _flat(publication.summary),
        "frozen": _flat(frozen_fields(publication)),
        "fault": publication.fault,
        "is_fault": bool(publication.fault),
        "is_probe": terms.is_probe,
        "transitions": [
            {"number": transition.number, "fields": _flat(transition.fields)}
            for transition in terms.transitions
        ],
        "transitions_max": str(TRANSITIONS_MAX),
        "ttl_ms": str(publication.ttl_sec * 1000),
        "valid_until": str(publication.valid_until_ms),
        "dead_man": terms.dead_man,
        "adopt": terms.adopt,
        "allow_stale": terms.allow_stale,
        "acknowledged": {write.key: write.found for write in terms.acknowledged},
    }
    if terms.lease is not None:
        payload["lease"] = {
            "token": str(terms.lease.token),
            "owner": terms.lease.owner,
            "claim": terms.lease.claim,
            "ttl_ms": str(terms.lease.ttl_ms),
        }
    if terms.written is not None:
        values = {keys.throttle(name): text for name, text in terms.written.throttles.items()}
        values[keys.state] = terms.written.state.value
        payload["written"] = {"version": terms.written.version, "values": values}
    return payload


def _foreign(rest: list[str]) -> tuple[ForeignWrite, ...]:
    return tuple(
        ForeignWrite(key, symbol or None, found, expected)
        for key, symbol, found, expected in zip(*[iter(rest)] * 4, strict=True)
    )


def _flat(fields: dict[str, str]) -> list[str]:
    return [text for field in fields.items() for text in field]
