"""`drainctl init`: what a haproxy.cfg and its sockets tell → a commented drainctl.yml."""
