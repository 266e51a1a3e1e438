"""Errors for users, each with the exit status of the command."""

from __future__ import annotations


class BenchError(Exception):
    """An error that the user can fix; its text is one line that says what is wrong and what to do."""

    exit_status = 1


class UsageError(BenchError):
    """An invalid request: an unknown name, a misspelt key, a value out of range (exit status 2)."""

    exit_status = 2


class RunError(BenchError):
    """A valid request that failed: damaged file, full disk, exception in a method (exit status 1)."""


class PrivilegeError(RunError):
    """A method used something that it did not declare in its `Privileges`."""


class DiskError(RunError):
    """A file could not be written; the run can be repeated when there is space."""


class BusyError(RunError):
    """Another process is working on this run; the caller may wait for it."""


def did_you_mean(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` with the most similar known word; without one, the list of known words."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
