"""Reading haproxy.cfg: what it says, with the line of every value. `read.read_cfg` is the door."""
