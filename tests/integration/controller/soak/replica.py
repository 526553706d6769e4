"""Runs the operator with a wrong clock, or as a mutant, instead of `devbox-secrets operator`.

Each mutant lacks a check, and the soak must fail with it.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest import mock

from devbox_secrets.controller import process
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.leader import LeaderElector
from devbox_secrets.controller.settings import ControllerSettings
from unit.controller.simulation.mutants import MUTANTS as SIMULATED


class _MissesDeletions(Cache):
    def delete_account_secret(self, _body: Mapping[str, Any]) -> set[str]:
        return set()


class _MissesLabels(Cache):
    def upsert_namespace(self, body: Mapping[str, Any]) -> set[str]:
        return set() if self.namespace_uid(body["metadata"]["name"]) else super().upsert_namespace(body)


class _LeadsForever(LeaderElector):
    def is_leader(self) -> bool:
        return self.term > 0

    async def lead(self, prepare: Callable[[], Awaitable[None]]) -> None:
        async def prepare_and_stay() -> None:
            await prepare()
            self.leading.set()
            await asyncio.Event().wait()

        await super().lead(prepare_and_stay)


MUTANTS: Mapping[str, Mapping[str, Any]] = {
    "no-fencing": {"LeaderElector": _LeadsForever, "Writer": SIMULATED["no-version"].writer},
    "ignored-relist": {"Cache": SIMULATED["lost-deletion"].cache},
    "lost-deletion": {"Cache": _MissesDeletions},
    "wrong-member": {"Cache": _MissesLabels},
    "stale-namespace": {"Writer": SIMULATED["recreated-namespace"].writer},
}
"""By name, the replacements for parts of the operator's process."""


def main() -> None:
    """Run the operator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutant", choices=MUTANTS)
    parser.add_argument("--minutes-ahead", type=float, default=0)
    options = parser.parse_args()
    ahead = timedelta(minutes=options.minutes_ahead)
    parts = {"LeaderElector": LeaderElector, **MUTANTS.get(options.mutant, {})}
    parts["LeaderElector"] = partial(parts["LeaderElector"], wall_clock=lambda: time.time() + ahead.total_seconds())
    with mock.patch.multiple(process, _now=lambda: datetime.now(UTC) + ahead, **parts):
        process.run(ControllerSettings.read())


if __name__ == "__main__":
    main()
