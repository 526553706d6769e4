"""How kopf is set up, and what its events do."""

import asyncio
from itertools import accumulate
from typing import Any

import kopf
import pytest

from devbox_secrets.controller import watch
from devbox_secrets.controller.cache import Cache
from unit.controller.objects import Body, account_secret, at, namespace, secret


def test_an_api_server_may_be_away_for_hours_and_is_asked_every_second() -> None:
    backoffs = watch.settings().networking.error_backoffs
    assert isinstance(backoffs, tuple)
    assert list(accumulate(backoffs))[-1] > 3600
    assert max(backoffs) <= 1


def test_of_the_secrets_only_those_of_the_one_name_are_watched() -> None:
    selectors = watch.settings().watching.field_selectors
    assert len(selectors) == 1
    assert selectors["v1", "secrets"] == "metadata.name=devbox-account-secrets"


def test_kopf_writes_nothing_of_its_own() -> None:
    settings = watch.settings()
    assert not settings.posting.enabled
    body, patch = kopf.Body({"metadata": {}}), kopf.Patch()
    storage = settings.persistence.diffbase_storage
    storage.store(body=body, patch=patch, essence=storage.build(body=body))
    assert storage.fetch(body=body) is None
    assert patch == {}


class Watches:
    """The handlers as kopf finds them."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.enqueued: list[set[str]] = []
        self.lists = 0
        self.registry = watch.registry(self.cache, self.enqueued.append, self.relisted)
        self.handlers = {
            str(handler.id): handler.fn
            for handler in self.registry._watching.get_all_handlers()  # noqa: SLF001 - there is no other way to them
        }

    def relisted(self) -> None:
        self.lists += 1

    async def tell(self, kind: str, body: Body, event: str | None = "MODIFIED") -> object:
        """Have an event come; give what kopf would write into the object's status."""
        handler: Any = self.handlers[kind]
        return await handler(event={"type": event, "object": body})


@pytest.fixture
def watches() -> Watches:
    return Watches()


async def test_an_event_fills_the_cache_and_enqueues_the_accounts_that_it_concerns(watches: Watches) -> None:
    await watches.tell("namespaces", at(1, namespace("team")))
    await watches.tell("namespaces", at(2, namespace("box", "team")))
    await watches.tell("secrets", at(3, secret("box", {"A": "1"})))
    await watches.tell("accountsecrets", at(4, account_secret("A", "dbs1.…")))
    assert watches.enqueued == [{"team"}, {"box", "team"}, {"team"}, {"team"}]
    assert [member.namespace for member in watches.cache.members("team")] == ["box", "team"]
    assert len(watches.cache.account_secrets("team")) == 1


async def test_a_deletion_empties_it_again(watches: Watches) -> None:
    objects = {
        "namespaces": namespace("team"),
        "secrets": secret("team", {}),
        "accountsecrets": account_secret("A", "dbs1.…"),
    }
    for kind, body in objects.items():
        await watches.tell(kind, at(5, body), "ADDED")
    watches.enqueued.clear()
    for kind, body in reversed(objects.items()):
        await watches.tell(kind, at(6, body), "DELETED")
    assert watches.enqueued == [{"team"}] * 3
    assert watches.cache.members("team") == []
    assert watches.cache.account_secrets("team") == []


async def test_what_is_listed_again_enqueues_nothing(watches: Watches) -> None:
    for _ in range(2):
        await watches.tell("namespaces", at(1, namespace("team")), None)
    assert watches.enqueued == [{"team"}, set()]


@pytest.mark.parametrize(("event", "lists"), [(None, 1), ("ADDED", 0), ("MODIFIED", 0), ("DELETED", 0)])
async def test_it_is_noticed_when_kopf_lists_a_kind(watches: Watches, event: str | None, lists: int) -> None:
    await watches.tell("accountsecrets", at(4, account_secret("A", "dbs1.…")), event)
    assert watches.lists == lists


async def test_no_handler_returns_what_kopf_would_write_into_a_status(watches: Watches) -> None:
    assert await watches.tell("accountsecrets", at(4, account_secret("A", "dbs1.…"))) is None


def test_no_handler_runs_in_a_thread_of_its_own(watches: Watches) -> None:
    assert sorted(watches.handlers) == ["accountsecrets", "namespaces", "secrets"]
    assert all(asyncio.iscoroutinefunction(handler) for handler in watches.handlers.values())


def test_kopf_connects_as_the_service_account_or_else_as_kubectl_would(
    watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (handler,) = watches.registry._activities.get_all_handlers()  # noqa: SLF001 - there is no other way to it
    login: Any = handler.fn
    by_account, by_kubeconfig = (kopf.ConnectionInfo(server=f"https://{name}") for name in ("account", "kubeconfig"))
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: by_account)
    monkeypatch.setattr(kopf, "login_with_kubeconfig", lambda **_: by_kubeconfig)
    assert login() is by_account
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: None)
    assert login() is by_kubeconfig
