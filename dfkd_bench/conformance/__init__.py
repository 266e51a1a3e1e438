"""Conformance checks: the rules that every method must pass.

from dfkd_bench.conformance import assert_conforms

def test_mine_conforms():
    assert_conforms("my-method")  # or "./mine.py:Mine", or the class itself
"""

from dfkd_bench.conformance.check import assert_conforms, check_method
from dfkd_bench.conformance.report import RULES, RuleResult

__all__ = ["RULES", "RuleResult", "assert_conforms", "check_method"]
