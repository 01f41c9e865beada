"""Provision: one service on one chip, answered."""

from chipscale.provision.answer import serve
from chipscale.provision.nouns import Serving, Wish
from chipscale.provision.versus import versus

__all__ = ["Serving", "Wish", "serve", "versus"]
