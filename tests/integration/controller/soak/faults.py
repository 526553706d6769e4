"""Faults of the control plane, of its connection to the operator, and of the operator's replicas.

Each fault lasts a while and is then repaired.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from random import Random

from harness.controlplane import ControlPlane
from harness.watch_proxy import WatchProxy
from integration.support.chart import CHART, release, until
from integration.support.processes import Operator
from integration.support.webhook import mount

#: As `helm upgrade --force` did in Helm 3: each object is replaced.
HELM_FORCE = ("--force-replace", "--server-side=false")
HELM_VALUES = ("--set=gateway.enabled=true",)
_SLOW_SECONDS = 2.5


@dataclass(frozen=True)
class Replica:
    """A replica of the operator, and the proxy between it and the API server."""

    operator: Operator
    proxy: WatchProxy

    def kill(self) -> None:
        """Kill it and start it again."""
        self.operator.component.kill()
        self.operator.component.start()


@dataclass(frozen=True)
class Stage:
    """Everything that can fail."""

    plane: ControlPlane
    replicas: tuple[Replica, Replica]
    certificate: Path
    """The folder of the gateway's certificate."""

    def leader(self) -> Replica:
        """Return the leader, or any replica if there is none."""
        found: list[Replica] = []
        with suppress(AssertionError):
            found = until("one of them is the leader", lambda: [it for it in self.replicas if it.operator.leads()])
        return (found or list(self.replicas))[0]

    def mount_certificate(self) -> None:
        """Mount a new certificate for the gateway."""
        pair = self.plane.authority.server("localhost", addresses=["127.0.0.1"])
        mount(self.certificate, {"tls.crt": pair.certificate, "tls.key": pair.key})


Fault = Callable[[Stage, Random], None]


# --- The control plane


def _kill_api_server(it: Stage, random: Random) -> None:
    it.plane.apiserver.kill()
    time.sleep(random.uniform(0, 8))
    it.plane.apiserver.start()
    it.plane.apiserver.wait_ready()


def _kill_etcd(it: Stage, random: Random) -> None:
    it.plane.etcd.kill()
    time.sleep(random.uniform(0, 5))
    it.plane.etcd.start()
    it.plane.etcd.wait_ready()
    it.plane.apiserver.wait_ready()


def _compact(it: Stage, random: Random) -> None:
    it.plane.compact()
    it.plane.apiserver.restart()


def _fill_etcd(it: Stage, random: Random) -> None:
    with it.plane.out_of_space():
        time.sleep(random.uniform(1, 12))


def _slow_api_server(it: Stage, random: Random) -> None:
    for each in it.replicas:
        each.proxy.delay_seconds = random.uniform(0.5, _SLOW_SECONDS)
    time.sleep(random.uniform(5, 10))
    for each in it.replicas:
        each.proxy.delay_seconds = 0


def _refusing_api_server(it: Stage, random: Random) -> None:
    for each in it.replicas:
        each.proxy.refusals = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR)
    time.sleep(random.uniform(5, 10))
    for each in it.replicas:
        each.proxy.refusals = ()


def _renew_certificates(it: Stage, random: Random) -> None:
    it.plane.renew_certificate()
    it.mount_certificate()


def _upgrade(it: Stage, random: Random) -> None:
    release(it.plane, "upgrade", str(CHART), *HELM_FORCE, *HELM_VALUES)


# --- The replicas


def _kill_leader(it: Stage, random: Random) -> None:
    it.leader().kill()


def _kill_both(it: Stage, random: Random) -> None:
    for each in it.replicas:
        each.kill()


def _stop_leader(it: Stage, random: Random) -> None:
    component = it.leader().operator.component
    component.stop()
    component.start()


def _pause_leader(it: Stage, random: Random) -> None:
    pid = it.leader().operator.component.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(random.uniform(2, 14))
    os.kill(pid, signal.SIGCONT)


def _cut_off_leader(it: Stage, random: Random) -> None:
    with it.leader().proxy.blackhole():
        time.sleep(random.uniform(2, 14))


def _expire_watches(it: Stage, random: Random) -> None:
    with ExitStack() as stack:
        for each in it.replicas:
            stack.enter_context(each.proxy.cut())
        time.sleep(random.uniform(1, 6))


def _freeze_watches(it: Stage, random: Random) -> None:
    kind = random.choice(["", "accountsecrets", "namespaces", "secrets"])
    for each in it.replicas:
        each.proxy.freeze(kind)


REWIND = "rewind"
"""Restore etcd from an older snapshot. This undoes actions, so the soak does it itself."""
PLANE_FAULTS: Mapping[str, Fault] = {
    "kill-api-server": _kill_api_server,
    "kill-etcd": _kill_etcd,
    "compact": _compact,
    "fill-etcd": _fill_etcd,
    "slow-api-server": _slow_api_server,
    "refusing-api-server": _refusing_api_server,
    "renew-certificates": _renew_certificates,
    "upgrade": _upgrade,
    REWIND: lambda _, __: None,
}
REPLICA_FAULTS: Mapping[str, Fault] = {
    "kill-leader": _kill_leader,
    "kill-both": _kill_both,
    "stop-leader": _stop_leader,
    "pause-leader": _pause_leader,
    "cut-off-leader": _cut_off_leader,
    "expire-watches": _expire_watches,
    "freeze-watches": _freeze_watches,
}
