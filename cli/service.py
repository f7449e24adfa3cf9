"""
Telling a service manager how the run is: systemd's notify protocol, datagrams to NOTIFY_SOCKET.

`READY=1` when a run has put out what it began with, `WATCHDOG=1` from the loop that decides, so
that one which hangs is noticed and restarted, `STOPPING=1` at its end. Without a service manager
nothing is told. Source: sd_notify(3), sd_watchdog_enabled(3); issue 4, systemd.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

WATCHDOG_SHARE: Final = 0.5
"""A sign of life is due after this share of the time after which the manager loses patience."""


class ServiceManager:
    """
    Whoever started the run and waits for its signs of life.

    Args:
        address: the socket, a path or `@` and an abstract name; None for nobody.
        watchdog_sec: after how long a silence the run counts as hung; None if nobody looks.
    """

    def __init__(self, address: str | None = None, watchdog_sec: float | None = None) -> None:
        self._address = address
        self._every_sec = None if watchdog_sec is None else watchdog_sec * WATCHDOG_SHARE
        self._told_sec = 0.0
        self._socket: socket.socket | None = None

    def ready(self, status: str) -> None:
        """Tell that the run has begun."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Tell what `systemctl status` is to show, on one line."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Give a sign of life, if one is due."""
        if self._every_sec is None:
            return
        now_sec = time.monotonic()
        if now_sec - self._told_sec >= self._every_sec:
            self._told_sec = now_sec
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the run comes to its end."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        # A manager that has gone, or is too busy, is no reason to stop watching the bot.
        with contextlib.suppress(OSError):
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(text.encode(), self._address)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


NO_MANAGER: Final = ServiceManager()


def service_manager(environment: Mapping[str, str]) -> ServiceManager:
    """
    Return the service manager that the environment names, else one that hears nothing.

    A watchdog that is meant for another process, or whose time is no number, is none.
    """
    named = environment.get("NOTIFY_SOCKET", "")
    if not named.startswith(("/", "@")):
        return NO_MANAGER
    address = "\0" + named[1:] if named.startswith("@") else named
    usec = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    watched = is_ours and usec.isascii() and usec.isdecimal() and int(usec) > 0
    return ServiceManager(address, int(usec) / 1_000_000 if watched else None)
