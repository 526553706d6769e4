"""Which Events are recorded, for which objects, and what happens if one can't be created."""

from datetime import UTC, datetime

import pytest

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.event_recorder import EventRecorder
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.errors import Forbidden
from unit.controller.fake_writer import FakeWriter, RecordedEvent
from unit.controller.objects import account_secret, at, namespace, secret

EVENT = Event("CannotOpen", "it doesn't open")


class Scans:
    """A recorder, the namespaces that it scans, and the Events that it recorded."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.writer = FakeWriter()
        self.recorder = EventRecorder(
            self.writer, self.cache, "replica-1", lambda: datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        )

    def put(self, name: str, account: str | None = None) -> None:
        self.cache.upsert_namespace(at(next(self.writer.versions), namespace(name, account)))

    def delete(self, name: str) -> None:
        self.cache.delete_namespace(at(next(self.writer.versions), namespace(name)))

    async def scan(self) -> list[tuple[str, str]]:
        """Scan once; return the names and reasons of the recorded Events."""
        self.writer.events.clear()
        await self.recorder.record_namespaces()
        return [(each.regarding["name"], each.event.reason) for each in self.writer.events]


@pytest.fixture
def scans() -> Scans:
    return Scans()


def written() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_writes_total", {"resource": "event"}) or 0


def without_home() -> float | None:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_namespaces_without_home")


async def test_an_event_refers_to_the_state_of_its_accountsecret(scans: Scans) -> None:
    before = written()
    await scans.recorder.record(AccountSecret.parse(at(7, account_secret("A", "dbs1.…"))), EVENT)
    regarding = {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "namespace": "team",
        "name": "a",
        "uid": "uid-team-A",
        "resourceVersion": "7",
    }
    assert scans.writer.events == [RecordedEvent(regarding, EVENT, "2026-01-02T03:04:05.000678Z", "replica-1")]
    assert written() == before + 1


async def test_a_failure_to_create_an_event_is_logged(scans: Scans, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scans.writer.fail_once("event team/a", Forbidden("POST …: 403 quota"))
    before = written()
    await scans.recorder.record(AccountSecret.parse(at(7, account_secret("A", "dbs1.…"))), EVENT)
    assert caplog.messages == ["cannot create an Event: POST …: 403 quota"]
    assert written() == before


async def test_a_namespace_whose_account_has_a_home_causes_no_event(scans: Scans) -> None:
    scans.put("team")
    scans.put("box", "team")
    assert [await scans.scan() for _ in range(3)] == [[], [], []]
    assert without_home() == 0


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        pytest.param([], "HomeNotFound", id="it doesn't exist"),
        pytest.param([("team", "other"), ("other", None)], "InvalidHome", id="it belongs to another account"),
    ],
)
async def test_an_account_without_a_home_is_recorded_once_at_the_second_scan(
    others: list[tuple[str, str | None]], reason: str, scans: Scans
) -> None:
    for other in others:
        scans.put(*other)
    scans.put("box", "team")
    assert [await scans.scan() for _ in range(4)] == [[], [("box", reason)], [], []]
    assert without_home() == 1


async def test_the_event_is_in_the_namespace_itself(scans: Scans) -> None:
    scans.put("box", "team")
    await scans.scan()
    await scans.scan()
    (recorded,) = scans.writer.events
    assert recorded.regarding == {"apiVersion": "v1", "kind": "Namespace", "namespace": "box", "name": "box"}


async def test_a_home_that_is_created_right_after_its_member_causes_no_event(scans: Scans) -> None:
    scans.put("box", "team")
    assert await scans.scan() == []
    scans.put("team")
    assert await scans.scan() == []


async def test_another_problem_of_the_same_namespace_is_recorded(scans: Scans) -> None:
    scans.put("box", "team")
    await scans.scan()
    await scans.scan()
    scans.put("other")
    scans.put("team", "other")
    assert [await scans.scan() for _ in range(3)] == [[], [("box", "InvalidHome")], []]


async def test_a_problem_that_was_fixed_and_returns_is_recorded_again(scans: Scans) -> None:
    scans.put("box", "team")
    await scans.scan()
    assert await scans.scan() == [("box", "HomeNotFound")]
    scans.put("team")
    await scans.scan()
    scans.delete("team")
    assert [await scans.scan() for _ in range(2)] == [[], [("box", "HomeNotFound")]]


async def test_someone_else_s_secret_is_recorded_once_in_addition_to_other_problems(scans: Scans) -> None:
    scans.put("box", "team")
    body = secret("box", {"A": "1"})
    body["metadata"]["managedFields"] = []
    scans.cache.upsert_secret(at(next(scans.writer.versions), body))
    await scans.scan()
    assert sorted(await scans.scan()) == [("box", "HomeNotFound"), ("box", "NotOwned")]
    assert await scans.scan() == []
    assert without_home() == 1
