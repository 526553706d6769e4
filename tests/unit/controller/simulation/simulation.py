"""Two replicas, an API server, users and faults, driven by a seed."""

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.names import ACCOUNT_LABEL, KEYS_SECRET, NAMESPACES_PATH, account_secrets_path
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.writes import Writer
from unit.controller.objects import KEY, edited, secret
from unit.controller.simulation.api_server import OPERATOR, ApiServer, secret_path
from unit.controller.simulation.model import EDITED, Model, Value, data_of, foreign, is_foreign
from unit.controller.simulation.replica import KINDS, ErrorHandler, Replica
from unit.controller.simulation.world import Violation, World
from unit.kube.fake_api import labels_of

HOMES = ("a", "b")
NAMESPACES = (*HOMES, "c", "d", "e")
VARIABLES = ("V", "W", "X")
ACCOUNT_SECRETS = ("r", "s", "t")
_PUBLIC_KEY = KEY.public
#: Longer than the longest backoff and the duration of an unreleased Lease together.
_QUIET_SECONDS = 200
_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Parts:
    """The classes of the operator that a mutant may replace."""

    cache: type[Cache] = Cache
    writer: type[Writer] = Writer


class Simulation:
    """One cluster."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.world = world = World(seed)
        self.api = ApiServer(world)
        self.model = Model(world, self.api)
        self.api.on_write = self.model.check_write
        self.api.watchers.append(self.model.note_namespace)
        data = {KEY.public.id: base64.b64encode(KEY.dump()).decode()}
        keys = {"metadata": {"name": KEYS_SECRET, "namespace": OPERATOR}, "data": data}
        self.api.put(f"{NAMESPACES_PATH}/{OPERATOR}/secrets/{KEYS_SECRET}", keys)
        self._parts = parts
        self._count = 0
        self.replicas = [self._start(), self._start()]

    def run(self, steps: int) -> None:
        """Alternate between busy and quiet times, for at least this many steps.

        Raises:
            Violation: an invariant doesn't hold.
        """
        handler = ErrorHandler(self.world)
        logger = logging.getLogger("devbox_secrets")
        logger.addHandler(handler)
        try:
            while self.world.steps < steps:
                self._be_busy()
                self._be_quiet()
        finally:
            logger.removeHandler(handler)
            for replica in self.replicas:
                replica.kill()

    def _be_busy(self) -> None:
        self.world.quiet = False
        until = self.world.now + _BUSY_SECONDS
        self.world.often(self.world.random.choice([0.1, 0.5, 2]), until, self._change)
        self.world.often(5, until, self._inject_fault)
        self.world.pass_time(_BUSY_SECONDS)

    def _be_quiet(self) -> None:
        """Wait until the operator has reached the desired state.

        Raises:
            Violation: it doesn't reach it.
        """
        self.world.quiet = True
        differences: list[str] = []
        for _ in range(_QUIET_SECONDS):
            self.world.pass_time(1)
            differences = list(self.model.differences())
            if not differences:
                return
        raise Violation(f"{_QUIET_SECONDS} s after the last change: {'; '.join(differences)}")

    def _change(self) -> None:
        """Make a random change."""
        random = self.world.random
        changes: dict[Callable[[str], None], int] = {
            self._put_account_secret: 6,
            self._delete_account_secret: 2,
            self._create_namespace: 3,
            self._label_namespace: 1,
            self._delete_namespace: 2,
            self._touch_secret: 1,
        }
        (change,) = random.choices(list(changes), list(changes.values()))
        change(random.choice(HOMES if random.random() < 0.3 else NAMESPACES))

    def _put_account_secret(self, namespace: str) -> None:
        if namespace not in self.api.accounts():
            return
        random = self.world.random
        self._count += 1
        name = random.choice(ACCOUNT_SECRETS)
        path = account_secrets_path(namespace, name)
        uid = f"uid-{namespace}-{self._count}"
        created = {"name": name, "namespace": namespace, "uid": uid, "generation": 0}
        found = self.api.objects.get(path, {"metadata": created, "spec": {"name": random.choice(VARIABLES)}})
        metadata, variable = found["metadata"], found["spec"]["name"]
        value = Value(namespace, metadata["uid"], self._count)
        account = namespace if random.random() < 0.9 else "elsewhere"
        sealed = _PUBLIC_KEY.seal(SecretBytes(str(value).encode()), account=account, name=variable)
        if account == namespace:
            self.model.sealed[sealed] = value
        self.model.homes.setdefault(value.uid, self.api.namespaces()[namespace]["metadata"]["uid"])
        metadata = {**metadata, "generation": metadata["generation"] + 1}
        self.api.put(path, {**found, "metadata": metadata, "spec": {"name": variable, "sealed": sealed}})

    def _delete_account_secret(self, namespace: str) -> None:
        if found := self.api.account_secrets(namespace):
            name = self.world.random.choice(found)["metadata"]["name"]
            self.api.delete(account_secrets_path(namespace, name))

    def _create_namespace(self, namespace: str) -> None:
        if namespace not in self.api.namespaces():
            self.api.put_namespace(namespace, self._labels(namespace))

    def _label_namespace(self, namespace: str) -> None:
        if namespace in self.api.accounts():
            self.api.put_namespace(namespace, self._labels(namespace))

    def _labels(self, namespace: str) -> Mapping[str, str]:
        random = self.world.random
        return {ACCOUNT_LABEL: random.choice(HOMES)} if random.random() < (0.1 if namespace in HOMES else 0.6) else {}

    def _delete_namespace(self, namespace: str) -> None:
        if namespace in self.api.accounts():
            self.api.delete_namespace(namespace)

    def _touch_secret(self, namespace: str) -> None:
        """Change, delete or replace an account Secret."""
        found, path, random = self.api.account_secret(namespace), secret_path(namespace), self.world.random
        # An empty Secret that someone edited isn't the operator's any more.
        if found and (is_foreign(found) or not labels_of(found) or random.random() < 0.5):
            self.api.delete(path)
        elif found:
            self.api.put(path, edited(found, values={random.choice([*data_of(found), "_key"]): EDITED}))
        elif namespace in self.api.accounts():
            copy = secret(namespace, {}, namespace)
            del copy["metadata"]["uid"], copy["metadata"]["creationTimestamp"]
            copy["metadata"]["managedFields"] = []
            self.api.put(path, foreign(edited(copy, values={"_key": "theirs"})))

    def _inject_fault(self) -> None:
        """Inject a random fault."""
        random = self.world.random
        number = random.randrange(len(self.replicas))
        replica = self.replicas[number]
        match random.randrange(6):
            case 0 | 1:
                replica.watches.interrupt(random.choice(KINDS))
            case 2:
                replica.freeze(random.uniform(0.1, 20))
            case 3:
                replica.stop()
                self.world.later(random.uniform(0.1, 5), lambda: self._restart(number))
            case 4:
                self._restart(number)
            case _:
                self.api.is_down = True
                self.world.later(random.uniform(0.1, 10), self._come_up)

    def _come_up(self) -> None:
        self.api.is_down = False

    def _restart(self, number: int) -> None:
        self.replicas[number].kill()
        self.replicas[number] = self._start()

    def _start(self) -> Replica:
        return Replica(self.world, self.api, self._parts.cache, self._parts.writer)


def run(seed: int, steps: int, parts: Parts) -> int:
    """Run a simulation; return its number of steps.

    Raises:
        Violation: an invariant doesn't hold.
    """
    simulation = Simulation(seed, parts)
    simulation.run(steps)
    return simulation.world.steps
