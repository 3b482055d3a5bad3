"""Bench of the service: load from a process of its own, on loopback (load.py), against ours and others (servers.py)."""
