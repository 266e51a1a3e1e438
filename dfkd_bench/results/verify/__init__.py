"""Verification of a results folder: what is recorded follows from what is stored, and what is shown from the records.

report = verify(Path("results"))
report.problems == []

Every check reads the files anew and believes none of them. A record of another protocol is held to itself: files,
sums, curves, predictions, hash, and its student evaluated again; what today's code would plan says nothing of it.

What it can not find, it can not find in principle: a consistent forgery of what only the run saw (seconds, memory,
counts of passes that no schedule fixes, accuracies of snapshots that were not kept; of another protocol, its terms
too) under a new seal: the seal needs no secret. Repeating the run finds that too, byte for byte:
`dfkd-bench run --like RECORD`.
"""

from __future__ import annotations

from dfkd_bench.results.verify.archives import verify_archive
from dfkd_bench.results.verify.check import integrity, verify
from dfkd_bench.results.verify.findings import Finding, Report
from dfkd_bench.results.verify.sums import write_sums

__all__ = ["Finding", "Report", "integrity", "verify", "verify_archive", "write_sums"]
