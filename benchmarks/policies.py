"""The cost of the policies for the API server, for the most expensive pods that a user can send.

    PYTHONPATH=tests python benchmarks/policies.py

Each pod is created as a dry run, with and without the label that makes it a devbox; the difference is the cost of the
policies. The unit is the cost of a plain pod. Each pod is either admitted or rejected with a message; any other
response stops the benchmark. The last pod shows a cost that isn't due to our policies: the API server encodes
each pod that a policy may change as JSON and decodes it again.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from integration.support.chart import DEVBOX, Json, container, pod
from support import BenchmarkError, Client, Request, Server, arguments, environment, say, table

_PATH = "/api/v1/namespaces/default/pods?dryRun=All"
_ENV, _MOUNT = "devbox-secrets.dev/env", "devbox-secrets.dev/mount"
_TOO_LARGE = "a devbox can have at most 100 containers"
_WARM_UP = 3


@dataclass(frozen=True)
class Case:
    """A pod, and the API server's message for it as a devbox; empty if it is admitted."""

    name: str
    spec: Json
    annotations: Mapping[str, str]
    rejection: str = ""

    def request(self, labels: dict[str, str]) -> Request:
        """Return the request that creates it."""
        return Request("POST", _PATH, json.dumps(pod(self.spec, labels, dict(self.annotations))).encode())


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 20})
    with environment() as here:
        times = asyncio.run(measure(here.server, it.count))
    unit = times[PLAIN.name, False]
    rows = []
    for case in CASES:
        other, devbox = times[case.name, False], times[case.name, True]
        ratios = (f"{seconds / unit:.1f}" for seconds in (other, devbox, devbox - other))
        answer = "rejected" if case.rejection else "admitted"
        rows.append((case.name, *ratios, f"{(devbox - other) * 1e3:.1f}", answer))
    header = ("", "other pod", "devbox", "added", "added, ms", "")
    table(f"Creation of a pod, in units of a plain pod's ({unit * 1e3:.1f} ms), median of {it.count:,}", header, rows)


async def measure(server: Server, count: int) -> dict[tuple[str, bool], float]:
    """Create every pod with and without the devbox's label, and return the median seconds of each."""
    times: dict[tuple[str, bool], float] = {}
    async with Client.connect(server) as client:
        for case in CASES:
            say(case.name)
            # In turns, so that the effects of the previous one are the same for both.
            taken: dict[bool, list[float]] = {False: [], True: []}
            requests = {False: case.request({}), True: case.request(DEVBOX)}
            for _ in range(_WARM_UP + count):
                for devbox, request in requests.items():
                    taken[devbox].append(await _seconds(client, request, case.rejection if devbox else ""))
            times |= {(case.name, devbox): median(each[_WARM_UP:]) for devbox, each in taken.items()}
    return times


async def _seconds(client: Client, request: Request, rejection: str) -> float:
    start = time.perf_counter()
    try:
        await client.send(request)
        message = ""
    except BenchmarkError as error:
        message = str(error)
    seconds = time.perf_counter() - start
    if bool(message) != bool(rejection) or rejection not in message:
        raise BenchmarkError(f"expected {rejection or 'no rejection'}, got {message or 'none'}")
    return seconds


def _names(count: int, length: int = 0) -> list[str]:
    return [f"VARIABLE_{number}".ljust(length, "_") for number in range(count)]


def _env(count: int) -> list[Json]:
    return [{"name": f"OWN_{number}", "value": "x"} for number in range(count)]


def _containers(count: int, **fields: object) -> Json:
    return {"containers": [container(f"c{number}", **fields) for number in range(count)]}


def _mounts(count: int) -> Json:
    volumes = [{"name": f"v{number}", "emptyDir": {}} for number in range(count)]
    mounts = [{"name": f"v{number}", "mountPath": f"/{number}"} for number in range(count)]
    return {"containers": [container("a", volumeMounts=mounts)], "volumes": volumes}


PLAIN = Case("a plain pod", _containers(1), {})


def _cases() -> Iterator[Case]:
    one = _containers(1)
    yield PLAIN
    yield Case("env: 100 entries", one, {_ENV: ",".join(_names(100))})
    yield Case("env: 100 of the longest entries", one, {_ENV: ",".join(f"{n}={n}" for n in _names(100, 253))})
    for count in (25_000, 250_000):
        yield Case(f"env: {count:,} commas", one, {_ENV: "," * count}, _ENV)
        yield Case(f"env: {count:,} spaces", one, {_ENV: " " * count}, _ENV)
        yield Case(f"env: a name of {count:,}", one, {_ENV: "A" * count}, _ENV)
        yield Case(f"env: {count // 2:,} entries", one, {_ENV: ",".join("A" * (count // 2))}, _ENV)
        yield Case(f"env: {count:,} equals signs", one, {_ENV: "=" * count}, _ENV)
        yield Case(f"mount: {count:,} slashes", one, {_MOUNT: "/" * count}, _MOUNT)
        yield Case(f"mount: {count // 2:,} parts", one, {_MOUNT: "/a" * (count // 2)}, _MOUNT)
    many = {f"a{number}": "" for number in range(45_000)}
    yield Case("45,000 annotations", one, many, _TOO_LARGE)
    yield Case("45,000 annotations, and env", one, {**many, _ENV: "A"}, _TOO_LARGE)
    ours = {f"devbox-secrets.dev/{number:x}": "" for number in range(999)}
    yield Case("999 unknown annotations of ours, and env", one, {**ours, _ENV: "A"}, "is unknown")
    hundred = {_ENV: ",".join(_names(100))}
    yield Case("1,000 annotations, and env", one, {**dict(list(many.items())[:999]), **hundred})
    yield Case("env: 100 in 3 containers", _containers(3), hundred)
    yield Case("env: 100 in 3 containers of 166", _containers(3, env=_env(166)), hundred)
    yield Case("env: 100 in 100 containers of 50", _containers(100, env=_env(50)), hundred, _TOO_LARGE)
    yield Case("env: 100 in a container of 500", _containers(1, env=_env(500)), hundred)
    same = [{"name": "VARIABLE_0", "value": "x"}] * 500
    yield Case("env: 100 in a container of 500 of one name", _containers(1, env=same), hundred)
    yield Case("100 containers", _containers(100), {})
    yield Case("100 containers, and mount", _containers(100), {_MOUNT: "/account"})
    yield Case("500 envFrom", _containers(1, envFrom=[{"configMapRef": {"name": "a"}}] * 500), {})
    yield Case("250 volumes, and mount", _mounts(250), {_MOUNT: "/account"})
    yield Case("250 volumes, and the longest mount", _mounts(250), {_MOUNT: "/a" * 2_047})
    yield Case("1,000 containers", _containers(1_000), {}, _TOO_LARGE)
    yield Case("10,000 env, and env", _containers(1, env=_env(10_000)), hundred, _TOO_LARGE)
    yield Case("10,000 volumes, and mount", _mounts(10_000), {_MOUNT: "/account"}, _TOO_LARGE)
    yield Case("a value of a mebibyte", _containers(1, env=[{"name": "A", "value": "x" * (1 << 20)}]), {})


CASES = list(_cases())


if __name__ == "__main__":
    main()
