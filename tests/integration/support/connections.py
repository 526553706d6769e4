"""Counts the connections of a port, as the kernel reports them."""

from pathlib import Path

_ESTABLISHED = "01"


def connections(port: int) -> int:
    """Count the open connections at a server's end (proc_pid_net(5))."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return sum(f"{port:04X}" == local.rpartition(":")[2] and state == _ESTABLISHED for _, local, _, state, *_ in lines)
