"""The two ways a command may fail, each with the exit status the shell sees."""

from __future__ import annotations


class BenchError(Exception):
    """Something a user can mend; its text is one line that says what is wrong and what to do."""

    exit_status = 1


class UsageError(BenchError):
    """The request itself is wrong: an unknown name, a misspelt key, a value out of range (exit status 2)."""

    exit_status = 2


class RunError(BenchError):
    """A well-formed request that failed: corrupt file, full disk, a method that raised (exit status 1)."""


class PrivilegeError(RunError):
    """A method asked for something of the teacher or of the world that it did not declare."""


class DiskError(RunError):
    """The disk refused a file; whatever was to be written can be done again when there is room."""


class BusyError(RunError):
    """Another process is at this run; it may be waited for."""


def did_you_mean(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` for the nearest known word, else the whole list of known words."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
