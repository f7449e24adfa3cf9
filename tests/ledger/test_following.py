import json
import os
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import pytest
from ledger_examples import STREAM, begin, open_at, put_row, tell, window

from domain.errors import LedgerDamaged
from ledger.codec import Record

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_what_is_there_comes_first_and_in_order(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger, windows=3)
        with ledger.follow() as records:
            assert [record.position for record in islice(records, 5)] == [1, 2, 3, 4, 5]
        with ledger.follow(after=3) as records:
            assert [record.version for record in islice(records, 2)] == [4, 5]


def test_another_thread_sees_every_event_once_and_in_order(path: Path) -> None:
    seen: list[Record] = []
    with open_at(path) as ledger:
        stream, other = begin(ledger), begin(ledger, stream_id="dev:okx")

        def watch() -> None:
            with ledger.follow(after=4) as records:
                seen.extend(islice(records, 120))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for index in range(60):
            stream = tell(ledger, stream, [window(index)])
            other = tell(ledger, other, [window(index)])
        watcher.join(timeout=20)
        assert not watcher.is_alive()
        assert [record.position for record in seen] == list(range(5, 125))
        assert seen == ledger.records_by_position(after=4)


FOLLOWER = """
import json, sys
from itertools import islice
from pathlib import Path
from ledger_examples import open_at
with open_at(Path(sys.argv[1]), read_only=True) as ledger, ledger.follow() as records:
    print("ready", flush=True)
    for record in islice(records, int(sys.argv[2])):
        print(json.dumps([record.position, record.stream, record.version]), flush=True)
"""


@pytest.mark.parametrize("is_open", [True, False], ids=["a live writer", "a writer to come"])
def test_another_process_sees_every_event_once_and_in_order(path: Path, is_open: bool) -> None:
    ledger = open_at(path)
    stream = begin(ledger, windows=2)
    if not is_open:
        ledger.close()
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent.parent}"}
    command = [sys.executable, "-c", FOLLOWER, str(path), "54"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"ready\n"
        if not is_open:
            ledger = open_at(path)
        for index in range(2, 52):
            stream = tell(ledger, stream, [window(index)])
        lines = [json.loads(line) for line in follower.stdout]
    ledger.close()
    assert follower.returncode == 0
    assert lines == [[version, STREAM, version] for version in range(1, 55)]


def test_leaving_ends_the_waiting_of_another_thread(path: Path) -> None:
    ended = threading.Event()
    with open_at(path) as ledger:
        with ledger.follow() as records:

            def wait() -> None:
                assert list(records) == []
                ended.set()

            threading.Thread(target=wait, daemon=True).start()
            assert not ended.wait(0.3)
        assert ended.wait(5)


def test_damage_is_told_where_it_is_met(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger, windows=1)
    put_row(path, 4, name="moon_observed.v1", stored=b"{}")
    with open_at(path, read_only=True) as ledger, ledger.follow() as records:
        assert len(list(islice(records, 3))) == 3
        with pytest.raises(LedgerDamaged, match=r"version 4: moon_observed\.v1"):
            next(records)


def test_what_goes_wrong_with_the_records_elsewhere_is_no_damage(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger)

        def use() -> None:
            with ledger.follow() as records:
                next(records)
                (path.parent / "missing" / "file").read_bytes()

        with pytest.raises(FileNotFoundError):
            use()
