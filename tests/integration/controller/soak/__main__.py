"""Checks the whole system against a model: `python -m integration.controller.soak --seconds 600 --seed 1`.

In each round, users make changes while parts of the system fail. Afterwards, the cluster must match the model, and no
forbidden value may have been written in between. The seed determines the actions, the faults and their order.
"""

import argparse
import secrets
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from itertools import count
from random import Random

import httpx

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH
from harness.controlplane import ControlPlane, RequestError
from harness.watch_proxy import WatchProxy
from integration.controller.soak.actions import NAMESPACES, Action, Chooser, Users
from integration.controller.soak.faults import HELM_VALUES, PLANE_FAULTS, REPLICA_FAULTS, REWIND, Replica, Stage
from integration.controller.soak.history import History, Observer
from integration.controller.soak.model import Cluster, Model
from integration.controller.soak.replica import MUTANTS
from integration.support.account import SECRET
from integration.support.chart import CHART, Json, release, settle
from integration.support.gateway import gateway, new_account, token
from integration.support.processes import OPERATOR, operator

_ACTIONS_OF_A_ROUND = 12
_PAUSE_SECONDS = 0.5
_POLL_SECONDS = 0.5
_LAST_LINES = 50
_REPLICA = (sys.executable, "-m", "integration.controller.soak.replica")
#: A replica whose clock is further ahead than the operator tolerates.
_AHEAD = (*_REPLICA, "--minutes-ahead=7")
_SETTINGS = {
    "resync_seconds": "3600",  # each list has another reason
    "reseal_gateway_values": "true",
    "rescan_seconds": "1",
}


class Violation(Exception):
    """The cluster differs from the model, or a forbidden value was written."""


class Soak:
    """A cluster, its users and its faults."""

    def __init__(self, stage: Stage, users: Users, observer: Observer, options: argparse.Namespace) -> None:
        self.stage = stage
        self.users = users
        self.observer = observer
        self.model, self.history = Model(), History()
        self._quiet_seconds = options.quiet_seconds
        self._chooser = Chooser(options.seed)
        self._random = Random(f"{options.seed}: faults")  # noqa: S311 - a repeatable choice
        self._plane_faults = self._shuffled([name for name in PLANE_FAULTS if name in options.fault])
        self._replica_faults = self._shuffled([name for name in REPLICA_FAULTS if name in options.fault])

    def start(self) -> None:
        """Create the first objects, and wait until the cluster matches the model."""
        self._do_all(self._chooser.start())
        self._await_quiet()

    def round(self) -> None:
        """Act while parts of the system fail, then wait until the cluster matches the model."""
        names = [next(self._plane_faults), next(self._replica_faults)]
        say(f"faults: {', '.join(filter(None, names)) or 'none'}")
        with ThreadPoolExecutor() as pool:
            faults = [pool.submit(self._fail, name, self._random.random()) for name in names]
            if REWIND in names:
                self._act_and_rewind()
            else:
                self._act()
            for fault in faults:
                fault.result()
        self._await_quiet()

    def _shuffled(self, names: list[str]) -> Iterator[str]:
        """Yield all faults in random order, repeatedly."""
        while True:
            yield from self._random.sample(names, len(names)) or [""]

    def _fail(self, name: str, seed: float) -> None:
        faults = {**PLANE_FAULTS, **REPLICA_FAULTS}
        if name:
            faults[name](self.stage, Random(seed))  # noqa: S311 - a repeatable choice

    def _act(self) -> None:
        for _ in range(_ACTIONS_OF_A_ROUND):
            self._do_all([self._chooser.choose(self.model)])
            time.sleep(self._random.random() * _PAUSE_SECONDS)

    def _act_and_rewind(self) -> None:
        """Take a snapshot of etcd, act, and restore the snapshot, which undoes the actions."""
        before = deepcopy((self.model, self.history))
        with self.stage.plane.restored():
            self._act()
            self._check_history({})
        self.model, self.history = before
        self.stage.plane.controller_manager.restart()  # it would wait for versions that no longer exist

    def _do_all(self, actions: list[Action]) -> None:
        for action in actions:
            say(f"  {action}")
            self.users.do(action, self.model, self.history)

    def _await_quiet(self) -> None:
        """Wait until the cluster matches the model.

        Raises:
            Violation: it doesn't match in time.
        """
        started = time.monotonic()
        while differences := self._differences():
            if time.monotonic() > started + self._quiet_seconds:
                raise Violation(f"{self._quiet_seconds:.0f} s after the last change: {'; '.join(differences)}")
            time.sleep(_POLL_SECONDS)
        for number, each in enumerate(self.stage.replicas, 1):
            if not each.operator.component.is_running() or "Traceback" in each.operator.log:
                raise Violation(f"replica {number} failed")
        say(f"quiet after {time.monotonic() - started:.1f} s")

    def _differences(self) -> list[str]:
        try:
            cluster = read(self.stage.plane)
            unready = [why for each in self.stage.replicas if (why := each.operator.unready())]
            listed = {name: self.users.listed(name) for name in self.model.namespaces}
        except (httpx.HTTPError, RequestError, OSError) as error:
            return [str(error)]
        self._check_history(cluster.secrets)
        wrong = [
            f"{name}: the gateway lists {has}" for name, has in listed.items() if has != self.model.variables(name)
        ]
        return [*self.model.differences(cluster), *wrong, *unready]

    def _check_history(self, secrets: Mapping[str, Json]) -> None:
        for seen, secret in self.observer.take(secrets):
            for violation in self.history.violations(secret, seen):
                raise Violation(violation)


def read(plane: ControlPlane) -> Cluster:
    """Read the objects that are compared with the model."""
    namespaces = plane.request("GET", "/api/v1/namespaces")["items"]
    account_secrets = plane.request("GET", ALL_ACCOUNT_SECRETS_PATH)["items"]
    native = plane.request("GET", f"/api/v1/secrets?fieldSelector=metadata.name={SECRET}")["items"]
    by_namespace: dict[str, list[Json]] = {}
    for each in account_secrets:
        by_namespace.setdefault(each["metadata"]["namespace"], []).append(each)
    return Cluster(
        {each["metadata"]["name"]: each for each in namespaces if each["metadata"]["name"] in NAMESPACES},
        by_namespace,
        {each["metadata"]["namespace"]: each for each in native},
    )


def start(stack: ExitStack, options: argparse.Namespace) -> Soak:
    """Start a control plane, the chart, two replicas, and the gateway with TLS."""
    plane = stack.enter_context(ControlPlane.start())
    release(plane, "install", str(CHART), "--create-namespace", *HELM_VALUES)
    settle(plane)
    replicas = []
    mutant = (*_REPLICA, f"--mutant={options.mutant}")
    for number, program in enumerate((mutant, mutant) if options.mutant else (OPERATOR, _AHEAD)):
        (folder := plane.folder / f"replica-{number}").mkdir()
        proxy = stack.enter_context(WatchProxy.start(plane))
        replica = operator(plane, folder, proxy.url, program=program, **_SETTINGS)
        replicas.append(Replica(stack.enter_context(replica), proxy))
    stage = Stage(plane, (replicas[0], replicas[1]), plane.folder / "certificate")
    stage.mount_certificate()
    settings = {"certificate_dir": str(stage.certificate), "certificate_refresh_seconds": "0.5"}
    trust = ssl.create_default_context(cadata=plane.authority.pem.decode())
    server = stack.enter_context(gateway(plane, verify=trust, **settings))
    home = new_account(plane)
    grant = ("create", "clusterrolebinding", "soak", "--clusterrole=devbox-secrets-edit")
    plane.kubectl(*grant, f"--serviceaccount={home}:editor")
    client = stack.enter_context(server.client(token(plane, home)))
    observer = stack.enter_context(Observer.start(plane))
    return Soak(stage, Users(plane, client), observer, options)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


def main() -> str | None:
    """Run rounds until the time is up; return the first violation."""
    names = [*PLANE_FAULTS, *REPLICA_FAULTS]
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int, help="number of rounds; by default, only the time is limited")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument(
        "--fault", nargs="*", choices=names, default=names, metavar="FAULT", help="use only these faults"
    )
    parser.add_argument("--mutant", choices=MUTANTS, help="run an operator that lacks a check")
    parser.add_argument(
        "--quiet-seconds", type=float, default=150, help="maximum time until the cluster matches the model"
    )
    options = parser.parse_args()
    say(f"seed {options.seed}")
    with ExitStack() as stack:
        soak = start(stack, options)
        deadline = time.monotonic() + options.seconds
        try:
            soak.start()
            for number in count(1):
                if time.monotonic() > deadline or (options.rounds and number > options.rounds):
                    break
                say(f"round {number}, {deadline - time.monotonic():.0f} s left")
                soak.round()
        except (Violation, AssertionError) as error:
            for each in soak.stage.replicas:
                say("\n".join(["", *each.operator.log.splitlines()[-_LAST_LINES:]]))
            return f"seed {options.seed}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
