"""Reverts the changes of our own engine to the host's network."""

import json
from pathlib import Path

from harness.run import ClusterError, run

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_BRIDGE = "docker0"


def remember(file: Path) -> None:
    """Record the settings that dockerd changes, unless an older record exists, whose changes were never reverted."""
    if not file.exists():
        policy = run("iptables", "--wait", "--list-rules", "FORWARD").split()[2]
        file.write_text(json.dumps({"forwarding": _FORWARDING.read_text().strip(), "policy": policy}))


def restore(file: Path) -> None:
    """Remove dockerd's chains, the rules that jump to them, and its bridge, and restore the recorded settings."""
    before = json.loads(file.read_text())
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat"):
            _clean(program, table)
    run("iptables", "--wait", "--policy", "FORWARD", before["policy"])
    _FORWARDING.write_text(before["forwarding"])
    if Path("/sys/class/net", _BRIDGE).exists():
        run("ip", "link", "delete", _BRIDGE)
    file.unlink()


def _clean(program: str, table: str) -> None:
    command = [program, "--wait", "--table", table]
    try:
        rules = [line.split() for line in run(*command, "--list-rules").splitlines()]
    except ClusterError:
        return  # a kernel without this table
    chains = [rule[1] for rule in rules if rule[0] == "-N" and rule[1].startswith("DOCKER")]
    for rule in rules:
        if rule[0] == "-A" and rule[1] not in chains and (_BRIDGE in rule or set(chains) & set(rule)):
            run(*command, "--delete", *rule[1:])
    for chain in chains:
        run(*command, "--flush", chain)
    for chain in chains:
        run(*command, "--delete-chain", chain)
