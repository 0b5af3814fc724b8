"""A real cluster on loopback, and a load generator that counts every request."""
