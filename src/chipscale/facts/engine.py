"""Engine: what serving software does, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChoice:
    """Which kernel runs a form on an architecture in a number format; both are regular expressions."""

    form: str
    name: str
    arch: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A serving engine: how it is recognised in a measured row, how it shares steps, which kernels it runs.

    `matches` are lower-case substrings of a stated name. A step computes at most `tokens` tokens for at most `sequences` requests; a prompt may be cut where `chunked`,
    shares steps with decodes where `shared`; its cache comes in blocks of `block` tokens, for a whole request at once where `reserve`.
    `narrow_cache`: unless told otherwise it caches keys and values of checkpoints below 16 bit in 8 bits. `exchange`: with several attention groups
    rows travel to the ranks of their experts and back (an all-to-all), instead of being gathered everywhere. `pipelined`: two micro-batches take turns, so that
    links work behind the other's products. `inside`: its kernels were timed inside networks, so that no factor on kernels alone applies to them.
    It is the port of engine `port` to chips whose architecture `arch` (a regular expression) fits; "" where it is none.
    """

    id: str
    name: str
    matches: tuple[str, ...]
    tokens: int
    sequences: int
    chunked: bool
    shared: bool
    block: int
    reserve: bool
    narrow_cache: bool
    exchange: bool = False
    pipelined: bool = False
    inside: bool = False
    kernels: tuple[KernelChoice, ...]
    source: str
    date: str
    port: str = ""
    arch: str = ""

    def kernel(self, form: str, arch: str, format: str) -> str:
        """Return the kernel that runs a form, "" where the engine's file names none."""
        return next((k.name for k in self.kernels if k.form == form and re.search(k.arch, arch) and re.search(k.format, format)), "")
