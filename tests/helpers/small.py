"""Settings with which the methods with a long inner loop run in seconds and still execute all their code: several steps
in the inner loop (so that there is a best iterate), batches from several rounds, a generator that is reset.
"""

from __future__ import annotations

SMALL: dict[str, dict[str, int]] = {
    "cmi": {"iterations": 3, "student_steps": 5, "bank_draw": 12},
    "deepinversion": {"iterations": 3, "student_steps": 5},
    "fastdfkd": {"student_steps": 5},
    "nayer": {"g_steps": 3, "synthesis_steps": 2, "student_steps": 5, "gen_life": 2},
}
