"""Reading what stands behind an option: chips and how many, hypotheses, lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chipscale.evidence import EvidenceError

MOST_CHIPS = 10_000_000
#: what may be one number with its thousands parted or several numbers
GROUPED = re.compile(r"\d{1,3}(,\d{3})+")


def chip_count(text: str, option: str = "--on") -> tuple[str, int]:
    """Read CHIP:N.

    >>> chip_count("h100:2,048")
    ('h100', 2048)
    """
    chip, colon, number = text.rpartition(":")
    if not colon or not chip:
        raise EvidenceError(f"{option} {text}: write CHIP:N, as in {option} h100:64")
    digits = number.strip().replace(",", "").replace("_", "")
    negative = digits.startswith("-") and digits[1:].isdigit()
    if not (digits.isascii() and digits.isdigit()) and not negative:
        raise EvidenceError(f"{option} {text}: {number!r} is not a number of chips; write a whole number from 1 to {MOST_CHIPS:,} after the colon")
    if negative or len(digits) > 12 or not 1 <= int(digits) <= MOST_CHIPS:
        raise EvidenceError(f"{option} {text}: {number} chips cannot be; write a whole number from 1 to {MOST_CHIPS:,}")
    return chip, int(digits)


def chip_counts(text: str) -> tuple[str, list[int]]:
    """Read CHIP:N or CHIP:N,N,...; what may be one number or several is refused.

    >>> chip_counts("h100:512,1024"), chip_counts("h100:128, 256")
    (('h100', [512, 1024]), ('h100', [128, 256]))
    """
    chip, colon, numbers = text.rpartition(":")
    if GROUPED.fullmatch(numbers.strip()):
        several = numbers.strip().replace(",", ", ")
        raise EvidenceError(f"--on {text}: is this one number or several? Write {chip}:{numbers.replace(',', '')}, or '{chip}:{several}' with blanks")
    return chip, [chip_count(f"{chip}{colon}{number}")[1] for number in numbers.split(",")]


def names(text: str) -> list[str]:
    """Read names parted by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def assumptions(texts: Sequence[str] | None) -> Mapping[str, str]:
    """Read CHIP=HYPOTHESIS options.

    >>> assumptions(["910d=quad-die"])
    {'910d': 'quad-die'}
    """
    found: dict[str, str] = {}
    for text in texts or ():
        chip, equals, key = (part.strip() for part in text.partition("="))
        if not (chip and equals and key):
            raise EvidenceError(f"--assume {text}: write CHIP=HYPOTHESIS, as in --assume 910d=quad-die")
        if found.setdefault(chip, key) != key:
            raise EvidenceError(f"--assume: {chip} is assumed to be {found[chip]} and {key}; keep one")
    return found


def counts(text: str | None) -> list[int] | None:
    """Read "3,4,4,3".

    >>> counts("3,4,4,3")
    [3, 4, 4, 3]
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise EvidenceError(f"--stage-layers {text}: write a whole number for each stage, parted by commas, as in 3,4,4,3")
    return [int(part) for part in parts]
