"""A log beside the streams is kept in the ledger's file, and nobody who reads streams meets it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from ledger_examples import STREAM, begin

from domain.errors import AnotherWriter, LedgerDamaged
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.side_log import SideLog


class Sent(msgspec.Struct, frozen=True):
    text: str


class Noted(msgspec.Struct, frozen=True):
    version: int


Entry = Sent | Noted
NAMES: dict[type[Entry], str] = {Sent: "sent.v1", Noted: "noted.v1"}


@pytest.fixture
def location(tmp_path: Path) -> LedgerLocation:
    return LedgerLocation(tmp_path / "l.sqlite")


def log_of(ledger: Ledger, stream: str = STREAM) -> SideLog[Entry]:
    return SideLog(ledger, stream, "tests", NAMES)


def test_entries_are_read_back_in_order_and_from_the_last_on(location: LedgerLocation) -> None:
    entries: list[Entry] = [Sent(str(number)) for number in range(1_200)]
    with Ledger.open(location) as ledger:
        log = log_of(ledger)
        assert log.entries() == []
        log.append(entries[:700])
        log.append([])
        log_of(ledger).append(entries[700:])
        log_of(ledger, "prod:bybit").append([Noted(7)])
    with Ledger.open(location, read_only=True) as ledger:
        assert log_of(ledger).entries() == entries
        assert next(log_of(ledger).backwards()) == entries[-1]
        assert log_of(ledger, "prod:bybit").entries() == [Noted(7)]


def test_a_log_that_was_never_written_is_empty_and_leaves_the_file_as_it_is(
    location: LedgerLocation,
) -> None:
    with Ledger.open(location) as ledger:
        begin(ledger, 3)
    before = location.path.read_bytes()
    with Ledger.open(location, read_only=True) as ledger:
        assert log_of(ledger).entries() == []
    assert location.path.read_bytes() == before


def test_nothing_that_reads_streams_meets_a_log(location: LedgerLocation) -> None:
    with Ledger.open(location) as ledger:
        stream = begin(ledger, 3)
        before = ledger.records_by_position()
        log_of(ledger).append([Sent("a"), Noted(1)])
        assert ledger.stream_ids() == [STREAM]
        assert ledger.records_by_position() == before
        assert ledger.stream(STREAM) == stream
        assert ledger.position(stream) == ledger.last_version(STREAM) == stream.version


def test_a_log_that_grew_since_it_was_read_is_another_writers(location: LedgerLocation) -> None:
    with Ledger.open(location) as ledger:
        log_of(ledger).append([Sent("a")])
        first, second = log_of(ledger), log_of(ledger)
        first.append([Sent("b")])
        with pytest.raises(AnotherWriter):
            second.append([Sent("c"), Sent("d")])
        assert log_of(ledger).entries() == [Sent("a"), Sent("b")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE stored_tests SET state='{'", "entry 1: sent.v1 does not decode"),
        ("UPDATE stored_tests SET topic='sent.v2'", "unknown entry 'sent.v2'; was it written by"),
    ],
)
def test_what_does_not_decode_is_damage(location: LedgerLocation, change: str, told: str) -> None:
    with Ledger.open(location) as ledger:
        log_of(ledger).append([Sent("a")])
    with closing(sqlite3.connect(location.path)) as connection, connection:
        connection.execute(change)
    with Ledger.open(location) as ledger, pytest.raises(LedgerDamaged, match=told):
        log_of(ledger).entries()


def test_a_log_that_cannot_be_written_is_damage(location: LedgerLocation) -> None:
    with Ledger.open(location) as ledger:
        log_of(ledger).append([Sent("a")])
    with (
        Ledger.open(location, read_only=True) as ledger,
        pytest.raises(LedgerDamaged, match="can't be read or written"),
    ):
        log_of(ledger).append([Sent("b")])
