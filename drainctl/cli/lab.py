"""lab: mounted from drainctl.lab, which needs the extra `drainctl[lab]`."""

from drainctl.lab.commands import lab

__all__ = ["lab"]
