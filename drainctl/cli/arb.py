"""arb: mounted from drainctl.arb, which is usable without the rest."""

from drainctl.arb.commands import arb

__all__ = ["arb"]
