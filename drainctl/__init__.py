"""drainctl: roll a release across the servers behind HAProxy without one failed user request."""

__version__ = "0.1.0"
