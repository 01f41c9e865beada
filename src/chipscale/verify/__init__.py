"""Verify: a record of measurements held against what is claimed of a chip, and what is believed afterwards."""

from chipscale.verify.belief import Informed, informed
from chipscale.verify.claims import verify
from chipscale.verify.nouns import Judged, Match, Measurement, Property, Share, Subject, Update, Usual, Verification

__all__ = ["Informed", "Judged", "Match", "Measurement", "Property", "Share", "Subject", "Update", "Usual", "Verification", "informed", "verify"]
