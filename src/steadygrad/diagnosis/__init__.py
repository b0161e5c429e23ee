"""Observations in, findings out: each rule in its own file with its threshold and source beside it."""

from steadygrad.diagnosis.misuse import clipping_report
from steadygrad.diagnosis.over_time import judge_history
from steadygrad.diagnosis.rule import Rule
from steadygrad.diagnosis.rules import RULES, explain, select_rules
from steadygrad.diagnosis.verdict import diagnose, judge

__all__ = ["RULES", "Rule", "clipping_report", "diagnose", "explain", "judge", "judge_history", "select_rules"]
