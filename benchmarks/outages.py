"""How long devboxes keep a deleted value if the API server crashes at a random moment, and whether it leaks.

    PYTHONPATH=tests python benchmarks/outages.py

Each run deletes ten values, or a namespace that is immediately created again. The API server is killed at a random
moment before, during or after the deletions, for a few seconds. Times start when the API server is ready again and all
deletions have succeeded. Two replicas run, without periodic relists.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

from support import BenchmarkError, Client, Environment, Request, arguments, environment, say, table
from workload import creates, make_accounts, path

_VALUES = 10
_AT_MOST_SECONDS = 2.0
_GIVE_UP_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass
class Result:
    """The results of the runs of one kind."""

    runs: int = 0
    values: int = 0
    seconds: list[float] = field(default_factory=list)
    moved: int = 0


class Runs:
    """The control plane and operations on it."""

    def __init__(self, here: Environment, chance: random.Random) -> None:
        self.here = here
        self.chance = chance

    async def deletions(self, client: Client, outage: float, result: Result) -> None:
        """Delete every value of an account while the API server crashes."""
        requests = creates(self.here.key.public, ["account-0"], _VALUES)
        await client.send_all(requests)
        names = [f"variable-{number}" for number in range(_VALUES)]
        await self.until("the values are in the account Secret", lambda: self.count(client, "account-0", _VALUES))
        cut = self.chance.randrange(_VALUES + 1)

        async def delete(some: list[str]) -> None:
            for name in some:
                await self.insist(client, Request("DELETE", path("account-0", name)))

        before = asyncio.create_task(delete(names[:cut]))
        await asyncio.sleep(self.chance.random() * 0.1)
        await asyncio.to_thread(self.crash, outage)
        await asyncio.gather(before, delete(names[cut:]))
        since = time.monotonic()
        await self.until("the values are gone", lambda: self.count(client, "account-0", 0))
        result.seconds.append(time.monotonic() - since)
        result.values += _VALUES

    async def recreation(self, client: Client, outage: float, result: Result) -> None:
        """Delete a namespace and create it again while the API server crashes: the new one must not get old values."""
        requests = creates(self.here.key.public, ["account-1"], 1)
        await client.send_all(requests)
        await self.until("the value is in the account Secret", lambda: self.count(client, "account-1", 1))
        crash = asyncio.create_task(self.crash_after(self.chance.random() * 2, outage))
        await self.insist(client, Request("DELETE", "/api/v1/namespaces/account-1"))
        body = b'{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"account-1"}}'
        await self.insist(client, Request("POST", "/api/v1/namespaces", body), until_created=True)
        await crash
        since = time.monotonic()
        while time.monotonic() - since < 2 * _AT_MOST_SECONDS:
            result.moved += not await self.count(client, "account-1", 0)
            await asyncio.sleep(_POLL_SECONDS)
        result.values += 1
        result.seconds.append(0.0)

    async def crash_after(self, seconds: float, outage: float) -> None:
        """Crash the API server after a delay."""
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.crash, outage)

    def crash(self, outage: float) -> None:
        """Kill the API server, and start it again after a while."""
        apiserver = self.here.controlplane.apiserver
        apiserver.kill()
        time.sleep(outage)
        apiserver.start()
        apiserver.wait_ready()

    async def count(self, client: Client, account: str, wanted: int) -> bool:
        """Return whether an account's devboxes have this many values."""
        try:
            secret = await client.get(f"/api/v1/namespaces/{account}/secrets/devbox-account-secrets")
        except (BenchmarkError, aiohttp.ClientError):
            return wanted == 0
        return len(secret.get("data") or {}) == wanted

    async def insist(self, client: Client, request: Request, *, until_created: bool = False) -> None:
        """Repeat a request until it succeeds; a namespace can't be created while the old one is terminating."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                await client.send(request)
            except aiohttp.ClientError:
                pass
            except BenchmarkError as error:
                if "404" in str(error) and not until_created:
                    return
            else:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise BenchmarkError(f"{request.method} {request.path} never succeeded")

    async def until(self, awaited: str, ask: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it is true."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while not await ask():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"waited {_GIVE_UP_SECONDS:.0f} s, but not: {awaited}")
            await asyncio.sleep(_POLL_SECONDS)


async def run(here: Environment, runs: int, seed: int) -> dict[str, Result]:
    """Do this many runs: most with a short outage, a third with a recreated namespace."""
    chance = random.Random(seed)  # noqa: S311 - reproducible
    it = Runs(here, chance)
    results: dict[str, Result] = defaultdict(Result)
    async with Client.connect(here.server) as client:
        for number in range(runs):
            what, seconds = chance.choices(
                [("deleted", 3.0), ("deleted", 25.0), ("deleted", 45.0), ("created again", 3.0)], [12, 1, 1, 6]
            )[0]
            say(f"{number + 1} of {runs}: {what}, API server down for {seconds:.0f} s")
            result = results[f"{what}, API server down for {seconds:.0f} s"]
            result.runs += 1
            await (it.deletions if what == "deleted" else it.recreation)(client, seconds, result)
    return results


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"runs": 100, "seed": 1})
    with environment() as here:
        make_accounts(here.server, "account", 2)
        (here.controlplane.folder / "second").mkdir()
        with here.operator(resync_seconds="36000"), here.operator(folder="second", resync_seconds="36000"):
            results = asyncio.run(run(here, it.runs, it.seed))
    table(
        f"{it.runs} crashes of the API server, seed {it.seed}",
        ("", "runs", "values", "longest s", f"over {_AT_MOST_SECONDS:.0f} s", "moved"),
        [
            (
                name,
                str(result.runs),
                str(result.values),
                f"{max(result.seconds):.2f}",
                str(sum(seconds > _AT_MOST_SECONDS for seconds in result.seconds)),
                str(result.moved),
            )
            for name, result in sorted(results.items())
        ],
    )


if __name__ == "__main__":
    main()
