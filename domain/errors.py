"""
Every error a user can meet, and the exit code that each one ends a command with.

    LiveError
    ├── BadInput            2  bad usage or bad input: nothing was written
    │   └── CommandRefused  2  a command that the controller's rules don't allow now
    ├── CannotTell          3  no, stale or incomplete data: neither PASS nor FAIL
    ├── AnotherWriter       4  another runner writes to this stream
    └── LedgerDamaged       5  the ledger can't be read as a ledger, or can't be written
        └── HistoryDamaged  5  the history can't be read; it can be made again from the ledger

Source: DESIGN.md section 3, exit codes.
"""


class LiveError(Exception):
    """The base of all errors that are told to the user as one line, without a traceback."""

    exit_code = 1


class BadInput(LiveError):
    """Bad usage or bad input; the message names the file, line or key and says what to do."""

    exit_code = 2


class CommandRefused(BadInput):
    """A command that is well formed, but not allowed in the controller's present state."""


class CannotTell(LiveError):
    """There is no, only stale, or only incomplete data, so that nothing may be concluded."""

    exit_code = 3


class AnotherWriter(LiveError):
    """Another writer appended to the stream since it was read: this one must stop."""

    exit_code = 4


class LedgerDamaged(LiveError):
    """The ledger is not a database, is of a newer format, or doesn't decode."""

    exit_code = 5


class HistoryDamaged(LedgerDamaged):
    """A file of the history is missing or not as it was written; the ledger may well be fine."""
