"""The metrics of AccountSecrets have a limited number of series."""

from devbox_secrets.api.models import Reason
from devbox_secrets.controller import metrics


def not_ready() -> dict[tuple[str, str], float]:
    (family,) = metrics.ACCOUNT_SECRETS_NOT_READY.collect()
    return {(sample.labels["namespace"], sample.labels["reason"]): sample.value for sample in family.samples}


def total(reason: Reason) -> float | None:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_accountsecrets", {"reason": reason})


def test_a_namespace_has_a_series_for_each_reason_why_accountsecrets_are_not_ready() -> None:
    metrics.set_account_secrets({("a", "Synced"): 3, ("b", "UnknownKey"): 2, ("b", "Pending"): 1, ("c", "Pending"): 4})
    assert not_ready() == {("b", "UnknownKey"): 2, ("b", "Pending"): 1, ("c", "Pending"): 4}
    assert (total(Reason.SYNCED), total(Reason.PENDING), total(Reason.TOO_LARGE)) == (3, 5, 0)


def test_a_namespace_where_all_are_ready_has_no_series() -> None:
    metrics.set_account_secrets({("b", "Pending"): 1})
    metrics.set_account_secrets({("b", "Synced"): 1})
    assert not_ready() == {}


def test_above_the_limit_namespaces_share_a_series_without_a_namespace() -> None:
    names = [f"team-{number:04}" for number in range(metrics.MAX_NAMESPACES + 2)]
    metrics.set_account_secrets({(name, "Pending"): 1 for name in names} | {("a-ready-one", "Synced"): 1})
    series = not_ready()
    assert len(series) == metrics.MAX_NAMESPACES + 1
    assert series["", "Pending"] == 2
    assert names[-1] not in {namespace for namespace, _ in series}


def test_an_unknown_reason_is_not_used_as_a_label() -> None:
    metrics.set_account_secrets({("a", "canary"): 1})
    assert not_ready() == {}
    assert metrics.REGISTRY.get_sample_value("devbox_secrets_accountsecrets", {"reason": "canary"}) is None
