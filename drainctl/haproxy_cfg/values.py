"""
The small grammars inside a line: durations, whole numbers, addresses.

Source: HAProxy configuration.txt, "2.6. Time format"; "bind", "server" and "11. Address formats" (2.8).
"""

from __future__ import annotations

import re

from drainctl.haproxy_cfg.model import Address

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OTHER = re.compile(r"(?:abns|abnsz|fd|sockpair|rhttp|rev|udp|quic\d?)@")
_FAMILY = re.compile(r"(?:stream\+|dgram\+)?(?:(?:tcp|mptcp)[46]?|ipv4|ipv6|unix)@")


def seconds(text: str, unit: str = "ms") -> float:
    """A duration, `unit` where none is written. Raises: ValueError."""
    found = re.fullmatch(r"(\d+)(us|ms|s|m|h|d)?", text)
    if not found:
        raise ValueError(f"found {text!r}, expected a duration")
    return int(found[1]) * _UNITS_S[found[2] or unit]


def whole(text: str) -> int:
    """A whole number. Raises: ValueError."""
    return int(text)


def address(text: str) -> Address:
    """Any text is an address of some kind; a port after the last colon, as HAProxy takes it."""
    plain = _FAMILY.sub("", text, count=1)
    if _OTHER.match(text):
        return Address(text, "other", "")
    if plain.startswith("/") or text.startswith("unix@"):
        return Address(text, "unix", plain)
    host, colon, port = plain.rpartition(":")
    if not colon or plain.endswith("]"):
        host, port = plain, ""
    elif not re.fullmatch(r"[+-]?\d*(-\d+)?", port):
        host, port = plain, ""  # such as a variable with the port in it
    host = host.removeprefix("[").removesuffix("]")
    return Address(text, "ip", "" if host == "*" else host, int(port) if port.isdigit() else None)
