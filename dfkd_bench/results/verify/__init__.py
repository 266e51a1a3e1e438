"""Verification of a results folder: records are compared with stored files, and tables with records.

report = verify(Path("results"))
report.problems == []

Every check reads the files again. A record of another protocol version is checked only against its own files (digests,
curves, predictions, hash, a new evaluation of its student), not against the rules of the current version.

Verification cannot detect a consistent change, with a new seal, of values that only the run itself measured: seconds,
memory, counts of passes that no schedule determines, accuracies of snapshots that were not stored (and for another
protocol version its terms). The seal needs no secret. `dfkd-bench run --like RECORD` repeats the run and compares it
byte for byte, which detects such a change.
"""

from __future__ import annotations

from dfkd_bench.results.verify.archives import verify_archive
from dfkd_bench.results.verify.check import integrity, verify
from dfkd_bench.results.verify.findings import Finding, Report
from dfkd_bench.results.verify.sums import write_sums

__all__ = ["Finding", "Report", "integrity", "verify", "verify_archive", "write_sums"]
