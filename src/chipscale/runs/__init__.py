"""What a whole training run takes: days with failures, energy by part, money, and how many chips a deadline needs."""

from chipscale.runs.accounting import account
from chipscale.runs.answer import run
from chipscale.runs.nouns import Answer, Bill, Run, Terms

__all__ = ["Answer", "Bill", "Run", "Terms", "account", "run"]
