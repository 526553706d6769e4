"""The probes and the metrics of a process."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from devbox_secrets.serving import health
from unit.serving.ports import free_port


@dataclass
class Process:
    """A process with its probes."""

    port: int
    unready: str | None = None
    unhealthy: str | None = None

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process(free_port())

    async def unready() -> str | None:
        return process.unready

    async def unhealthy() -> str | None:
        return process.unhealthy

    runner = await health.serve(process.port, unready=unready, unhealthy=unhealthy, measure=lambda: b"metric 1\n")
    yield process
    await runner.cleanup()


async def test_a_healthy_process_responds_with_ok(process: Process) -> None:
    assert await process.get("/readyz") == (200, "ok")
    assert await process.get("/healthz") == (200, "ok")


async def test_a_process_that_is_not_ready_says_why_and_is_healthy(process: Process) -> None:
    process.unready = "reading the cluster's state"
    assert await process.get("/readyz") == (503, "reading the cluster's state")
    assert await process.get("/healthz") == (200, "ok")


async def test_a_process_that_is_not_healthy_says_why(process: Process) -> None:
    process.unhealthy = "nothing was worked on"
    assert await process.get("/healthz") == (503, "nothing was worked on")


async def test_a_process_becomes_ready(process: Process) -> None:
    process.unready = "not yet"
    await process.get("/readyz")
    process.unready = None
    assert await process.get("/readyz") == (200, "ok")


async def test_the_metrics_are_served(process: Process) -> None:
    assert await process.get("/metrics") == (200, "metric 1\n")


async def test_other_paths_are_not_found(process: Process) -> None:
    assert (await process.get("/"))[0] == 404


async def test_a_port_in_use_is_an_error(process: Process) -> None:
    async def healthy() -> None:
        return None

    with pytest.raises(OSError, match="address already in use"):
        await health.serve(process.port, unready=healthy, unhealthy=healthy, measure=lambda: b"")
