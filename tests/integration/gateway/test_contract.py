"""The gateway's contract on a real API server, tested with plain HTTP requests like those of an SDK."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.gateway_requests import create, error_message, objects
from integration.support.processes import COMMAND

Json = dict[str, Any]


@pytest.fixture
def account(controlplane: ControlPlane, rest: Gateway) -> Account:
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture
def api(controlplane: ControlPlane, rest: Gateway, account: Account) -> Iterator[httpx.Client]:
    with rest.client(token(controlplane, account.name)) as it:
        yield it


# --- The life cycle of a secret


def test_a_secret_is_created_read_updated_and_deleted_by_name(api: httpx.Client) -> None:
    before = time.time_ns() // 1_000_000
    made = create(api, "TOKEN")
    assert set(made) == {"id", "name", "create_time_ms", "update_time_ms"}
    assert made["name"] == "TOKEN"
    assert before <= made["create_time_ms"] == made["update_time_ms"] <= time.time_ns() // 1_000_000
    assert api.get("/v1/secrets/TOKEN").json() == made
    updated = api.post("/v1/secrets/TOKEN", json={"value": "w"}).json()
    assert updated == made | {"update_time_ms": updated["update_time_ms"]}
    assert updated["update_time_ms"] > made["update_time_ms"]
    assert api.post("/v1/secrets/TOKEN/delete").json() == updated
    error_message(api.get("/v1/secrets/TOKEN"), 404, "NotFound")


def test_a_secret_is_read_updated_and_deleted_by_id(api: httpx.Client) -> None:
    made = create(api, "TOKEN")
    path = f"/v1/secrets/id/{made['id']}"
    assert api.get(path).json() == made
    updated = api.post(f"{path}/update", json={"value": "w"}).json()
    assert api.get(path).json() == updated
    assert updated["update_time_ms"] > made["update_time_ms"]
    assert api.post(f"{path}/delete", json={}).json() == updated
    error_message(api.get(path), 404, "NotFound")
    error_message(api.post(f"{path}/update", json={"value": "w"}), 404, "NotFound")
    error_message(api.post(f"{path}/delete"), 404, "NotFound")


def test_the_id_of_a_deleted_secret_does_not_find_a_new_one_with_the_same_name(api: httpx.Client) -> None:
    first = create(api, "TOKEN")
    api.post("/v1/secrets/TOKEN/delete")
    second = create(api, "TOKEN")
    assert first["id"] != second["id"]
    error_message(api.post(f"/v1/secrets/id/{first['id']}/delete"), 404, "NotFound")
    assert api.get("/v1/secrets/TOKEN").json() == second


def test_the_path_id_delete_deletes_the_secret_named_id(api: httpx.Client) -> None:
    made = create(api, "id")
    assert api.get("/v1/secrets/id").json() == made
    assert api.post("/v1/secrets/id/delete", headers={"Content-Length": "0"}).json() == made


def test_a_value_is_sealed_for_the_account_and_the_name(api: httpx.Client, account: Account) -> None:
    create(api, "TOKEN", "the value")
    (made,) = objects(account)
    assert made["metadata"]["name"] == "token"
    assert made["spec"]["name"] == "TOKEN"
    assert made["spec"]["sealed"].startswith(f"dbs1.{account.key.id}.")
    assert "the value" not in json.dumps(made)


def test_creating_an_existing_name_fails_with_an_error_that_sdks_do_not_retry(api: httpx.Client) -> None:
    made = create(api, "TOKEN")
    answer = api.post("/v1/secrets", json={"name": "TOKEN", "value": "another"})
    assert "already" in error_message(answer, 400, "BadRequest")
    assert api.get("/v1/secrets/TOKEN").json() == made


def test_only_one_of_many_concurrent_creations_of_a_name_succeeds(
    controlplane: ControlPlane, rest: Gateway, account: Account
) -> None:
    key, start = token(controlplane, account.name), threading.Barrier(8)

    def one(_: int) -> int:
        with rest.client(key) as api:
            start.wait()
            return api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(8))) == [200] + [400] * 7
    assert len(objects(account)) == 1


# --- Pagination


def test_a_list_is_sorted_from_newest_to_oldest(api: httpx.Client) -> None:
    assert api.get("/v1/secrets").json() == {"secrets": [], "has_more": False, "total_count": 0}
    made = [create(api, f"S{number}") for number in range(3)]
    assert api.get("/v1/secrets").json() == {"secrets": made[::-1], "has_more": False, "total_count": 3}


def test_the_next_page_is_found_even_after_the_last_secret_of_a_page_is_deleted(api: httpx.Client) -> None:
    made = [create(api, f"S{number}") for number in range(5)][::-1]
    first = api.get("/v1/secrets", params={"limit": 2}).json()
    assert first == {"secrets": made[:2], "has_more": True, "total_count": 5}
    api.post(f"/v1/secrets/id/{made[1]['id']}/delete")
    second = api.get("/v1/secrets", params={"limit": 2, "starting_after": made[1]["id"]}).json()
    assert second == {"secrets": made[2:4], "has_more": True, "total_count": 4}
    third = api.get("/v1/secrets", params={"limit": 2, "starting_after": made[3]["id"]}).json()
    assert third == {"secrets": made[4:], "has_more": False, "total_count": 4}


def test_the_default_page_size_is_20(api: httpx.Client) -> None:
    made = [create(api, f"S{number}") for number in range(21)][::-1]
    assert api.get("/v1/secrets").json() == {"secrets": made[:20], "has_more": True, "total_count": 21}
    none = api.get("/v1/secrets", params={"limit": 0}).json()
    assert none == {"secrets": [], "has_more": True, "total_count": 21}
    assert len(api.get("/v1/secrets", params={"limit": 5000}).json()["secrets"]) == 21


# --- Retries: requests with the same x-request-id


RETRY = {"x-request-id": "stainless-python-retry-0b6ef1a2-6f0b-4ab4-a8c6-6d0c2a8f4b11"}


def test_a_retried_creation_returns_the_created_secret_from_any_replica(
    controlplane: ControlPlane, api: httpx.Client
) -> None:
    made = create(api, "TOKEN", **RETRY)
    key = api.headers["Authorization"].removeprefix("Bearer ")
    with gateway(controlplane) as another, another.client(key) as other:
        assert create(other, "TOKEN", **RETRY) == made
    assert create(api, "OTHER", **RETRY)["name"] == "OTHER"


def test_a_creation_retried_after_an_update_changes_nothing(api: httpx.Client, account: Account) -> None:
    create(api, "TOKEN", **RETRY)
    updated = api.post("/v1/secrets/TOKEN", json={"value": "w"}).json()
    (before,) = objects(account)
    assert create(api, "TOKEN", **RETRY) == updated
    assert objects(account) == [before]


def test_a_retried_update_does_not_revert_a_later_one(api: httpx.Client, account: Account) -> None:
    create(api, "TOKEN")
    api.post("/v1/secrets/TOKEN", json={"value": "first"}, headers=RETRY)
    second = api.post("/v1/secrets/TOKEN", json={"value": "second"}).json()
    (before,) = objects(account)
    assert api.post("/v1/secrets/TOKEN", json={"value": "first"}, headers=RETRY).json() == second
    assert objects(account) == [before]


def test_the_same_request_id_with_another_value_is_a_new_request(api: httpx.Client, account: Account) -> None:
    create(api, "TOKEN", "first", **RETRY)
    answer = api.post("/v1/secrets", json={"name": "TOKEN", "value": "second"}, headers=RETRY)
    assert "already" in error_message(answer, 400, "BadRequest")
    generations = []
    for value in ("second", "third", "second"):
        api.post("/v1/secrets/TOKEN", json={"value": value}, headers=RETRY)
        generations += [each["metadata"]["generation"] for each in objects(account)]
    assert generations == [2, 3, 3]  # the last update is a retry of the first


def test_concurrent_updates_are_all_applied(
    controlplane: ControlPlane, rest: Gateway, api: httpx.Client, account: Account
) -> None:
    create(api, "TOKEN")
    key = token(controlplane, account.name)

    def one(number: int) -> int:
        with rest.client(key) as own:
            headers = {"x-request-id": f"request-{number}"}
            return own.post("/v1/secrets/TOKEN", json={"value": str(number)}, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {200}
    (after,) = objects(account)
    assert len(after["metadata"]["annotations"]["gateway.devbox-secrets.dev/requests"].split()) == 4


def test_a_retried_deletion_returns_not_found(api: httpx.Client) -> None:
    create(api, "TOKEN")
    assert api.post("/v1/secrets/TOKEN/delete", headers=RETRY).status_code == 200
    error_message(api.post("/v1/secrets/TOKEN/delete", headers=RETRY), 404, "NotFound")


# --- kubectl and REST work on the same objects


def test_secrets_applied_with_kubectl_are_listed_updated_and_deleted_whatever_their_object_name(
    api: httpx.Client, account: Account
) -> None:
    account.put("TOKEN", b"from kubectl", "a.name-of-my.own")
    (found,) = api.get("/v1/secrets").json()["secrets"]
    (made,) = objects(account)
    assert found == api.get("/v1/secrets/TOKEN").json() == api.get(f"/v1/secrets/id/{found['id']}").json()
    assert found["create_time_ms"] == found["update_time_ms"]
    assert time.gmtime(found["create_time_ms"] / 1000)[:6] == tuple(
        time.strptime(made["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")[:6]
    )
    updated = api.post("/v1/secrets/TOKEN", json={"value": "from REST"}).json()
    assert updated["id"] == found["id"]
    assert updated["update_time_ms"] > found["update_time_ms"]
    (after,) = objects(account)
    assert after["spec"]["sealed"] != made["spec"]["sealed"]
    assert api.post("/v1/secrets/TOKEN/delete").json() == updated
    assert objects(account) == []


def test_a_variable_created_with_kubectl_already_exists(api: httpx.Client, account: Account) -> None:
    account.put("TOKEN", b"from kubectl", "my-own")
    error_message(api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"}), 400, "BadRequest")


def test_an_object_name_used_by_another_variable_does_not_prevent_a_creation(
    api: httpx.Client, account: Account
) -> None:
    account.put("OTHER", b"from kubectl", "token")
    made = create(api, "TOKEN")
    assert api.get("/v1/secrets/TOKEN").json() == made
    variables = {item["metadata"]["name"]: item["spec"]["name"] for item in objects(account)}
    assert (len(variables), variables["token"]) == (2, "OTHER")


def test_kubectl_changes_and_deletes_secrets_created_with_rest(api: httpx.Client, account: Account) -> None:
    made = create(api, "TOKEN")
    body = account.manifest("TOKEN", b"from kubectl")
    account.controlplane.kubectl("apply", "-f", "-", input=json.dumps(body))
    (after,) = objects(account)
    assert after["spec"]["sealed"] == body["spec"]["sealed"]
    now = api.get("/v1/secrets/TOKEN").json()
    assert (now["id"], now["create_time_ms"]) == (made["id"], made["create_time_ms"])
    account.delete("token")
    error_message(api.get("/v1/secrets/TOKEN"), 404, "NotFound")


def test_the_time_of_a_kubectl_update_is_the_api_servers(api: httpx.Client, account: Account) -> None:
    made = create(api, "TOKEN")
    while time.time() * 1000 < made["create_time_ms"] + 1000:
        time.sleep(0.05)  # into the next second, the resolution of Kubernetes' times
    account.controlplane.kubectl("apply", "-f", "-", input=json.dumps(account.manifest("TOKEN", b"w")))
    (after,) = objects(account)
    assert api.get("/v1/secrets/TOKEN").json()["update_time_ms"] > made["update_time_ms"]
    assert api.get("/v1/secrets/TOKEN").json()["update_time_ms"] % 1000 == 0
    assert after["metadata"]["uid"]


def test_the_operators_own_writes_do_not_change_the_update_time(api: httpx.Client, account: Account) -> None:
    made = create(api, "TOKEN")
    # A re-sealed value, written as the operator, and a status.
    body = {"spec": {"sealed": account.manifest("TOKEN", b"v")["spec"]["sealed"]}}
    patch = ("patch", "accountsecret", "token", "-n", account.name, "--type=merge", "--field-manager=devbox-secrets")
    account.controlplane.kubectl(*patch, "-p", json.dumps(body))
    account.controlplane.kubectl(
        *patch, "--subresource=status", "-p", '{"status": {"changedAt": "2030-01-01T00:00:00Z"}}'
    )
    assert api.get("/v1/secrets/TOKEN").json() == made


def test_the_owner_is_used_if_two_objects_have_the_same_variable(api: httpx.Client, account: Account) -> None:
    account.put("TOKEN", b"a", "one")
    account.put("TOKEN", b"b", "two")
    owner = min(objects(account), key=lambda it: (it["metadata"]["creationTimestamp"], it["metadata"]["uid"]))
    listed = api.get("/v1/secrets").json()
    assert listed["total_count"] == 2
    found = api.get("/v1/secrets/TOKEN").json()
    api.post("/v1/secrets/TOKEN/delete")
    (remaining,) = objects(account)
    assert remaining["metadata"]["uid"] != owner["metadata"]["uid"]
    assert [it for it in listed["secrets"] if it != found] == api.get("/v1/secrets").json()["secrets"]


# --- Protocol and process


@pytest.mark.parametrize("http2", [False, True])
def test_one_port_serves_http_1_and_http_2_without_tls(
    controlplane: ControlPlane, rest: Gateway, account: Account, *, http2: bool
) -> None:
    with rest.client(token(controlplane, account.name), http2=http2) as api:
        made = create(api, "TOKEN")
        answer = api.get("/v1/secrets/TOKEN")
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.json() == made


def test_probes_need_no_token(rest: Gateway) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx.get(f"{rest.url}{path}", trust_env=False).text == "ok"


@pytest.mark.parametrize("http2", [False, True])
def test_a_connection_serves_any_number_of_requests(rest: Gateway, *, http2: bool) -> None:
    with rest.client("none", http2=http2) as api:
        assert {api.get("/healthz").status_code for _ in range(1_100)} == {200}


def test_the_process_exits_with_0_on_sigterm(controlplane: ControlPlane, rest: Gateway) -> None:
    with gateway(controlplane) as it, it.client("none") as api:
        assert api.get("/healthz").text == "ok"
        assert it.component.stop() == 0


def test_the_error_for_a_missing_api_server_names_the_setting() -> None:
    ours = ("DEVBOX_SECRETS_", "KUBERNETES_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run([COMMAND, "gateway"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "DEVBOX_SECRETS_API_SERVER" in done.stderr
