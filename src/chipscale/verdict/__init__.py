"""Verdict: one chip weighed against another, with how sure that is."""

from chipscale.verdict.nouns import HypothesisShare, Interval, JobVerdict, Sensitivity, Side, Verdict
from chipscale.verdict.weighing import weigh

__all__ = ["HypothesisShare", "Interval", "JobVerdict", "Sensitivity", "Side", "Verdict", "weigh"]
