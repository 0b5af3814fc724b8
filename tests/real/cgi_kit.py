"""
nginx in front of uWSGI by FastCGI or by uWSGI's own protocol, laid out as a user would for socket-flip and
port-flip; and a program that asks such a process for a page, as `service.ask` does.

    python cgi_kit.py fastcgi|uwsgi unix:/PATH|HOST:PORT /path      the body; exit 0 for a 2xx
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys

# name: (FastCGI's and uWSGI's variables are nearly the same)
BEGIN, END, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6  # record types of FastCGI 1.0, section 8


def ask(protocol: str, address: str, path: str) -> tuple[int, bytes]:
    """The status and body of one GET."""
    given = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": path,
        "PATH_INFO": path.partition("?")[0],
        "QUERY_STRING": path.partition("?")[2],
        "SCRIPT_NAME": "",
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop",
    }
    family = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET
    host, _, port = address.rpartition(":")
    with socket.socket(family) as link:
        link.settimeout(5)
        link.connect(address.removeprefix("unix:") if family == socket.AF_UNIX else (host, int(port)))
        link.sendall(fastcgi(given) if protocol == "fastcgi" else uwsgi(given))
        came = b""
        while part := link.recv(65536):
            came += part
    head, _, body = (unpacked(came) if protocol == "fastcgi" else came).partition(b"\r\n\r\n")
    status = re.match(rb"(?:HTTP/1\.\d |Status: )(\d+)", head)
    return (int(status[1]) if status else 200 if head else 0), body


def fastcgi(given: dict[str, str]) -> bytes:
    pairs = b"".join(
        struct.pack(">BB", len(name), len(value)) + name.encode() + value.encode()
        for name, value in given.items()
    )
    records = [(BEGIN, struct.pack(">HB5x", 1, 0)), (PARAMS, pairs), (PARAMS, b""), (STDIN, b"")]
    return b"".join(struct.pack(">BBHHBx", 1, kind, 1, len(data), 0) + data for kind, data in records)


def unpacked(came: bytes) -> bytes:
    out = b""
    while len(came) >= 8:
        _, kind, _, length, padding = struct.unpack(">BBHHBx", came[:8])
        out += came[8 : 8 + length] if kind == STDOUT else b""
        came = came[8 + length + padding :]
    return out


def uwsgi(given: dict[str, str]) -> bytes:
    pairs = b"".join(struct.pack("<H", len(word)) + word.encode() for pair in given.items() for word in pair)
    return struct.pack("<BHB", 0, len(pairs), 0) + pairs


if __name__ == "__main__":
    try:
        status, body = ask(*sys.argv[1:])
    except OSError as error:
        sys.exit(str(error))
    os.write(1, body)
    sys.exit(not 200 <= status < 300)
