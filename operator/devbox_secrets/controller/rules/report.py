"""Decides which statuses and Events to write after a plan was carried out, and when to report a failure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devbox_secrets.api.models import AccountSecretStatus
from devbox_secrets.controller.rules.conditions import NotReady, held, not_owned, not_written
from devbox_secrets.controller.rules.events import Event, status_events
from devbox_secrets.controller.rules.plan import AccountPlan, AccountState, Action
from devbox_secrets.controller.rules.status import next_status
from devbox_secrets.errors import APIError

Outcomes = Mapping[str, Exception | None]
"""By namespace: the error, or None if everything succeeded."""
#: Consecutive failures (about six seconds) until they are reported: one namespace that can't be written
#: must not leave an account without statuses.
_FAILURES_UNTIL_REPORTED = 5


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """An AccountSecret's next status, and the Events to record after writing it."""

    uid: str
    status: AccountSecretStatus
    events: Sequence[Event]


def report(state: AccountState, plan: AccountPlan, outcomes: Outcomes, failures: int, now: str) -> list[StatusWrite]:
    """Decide which statuses to write.

    Args:
        state: the observed state of the account.
        plan: what was planned.
        outcomes: what succeeded and what failed.
        failures: how often in a row the account has failed; failures that a retry may solve aren't reported at once.
        now: RFC 3339, UTC.
    """
    if not state.home_uid:
        return []  # not seen yet or being deleted, so there is nothing to report
    if any(failure and not _is_reported(failure, failures) for failure in outcomes.values()):
        return []
    unreached = _unreached(state, plan, outcomes)
    writes = []
    for entry in state.entries:
        status = next_status(entry, plan.not_ready.get(entry.uid, unreached), now)
        if status != entry.status:
            writes.append(StatusWrite(entry.uid, status, status_events(entry.status, status)))
    return writes


def _is_reported(failure: Exception, failures: int) -> bool:
    """Return whether to report a failed write now rather than only retry it.

    A refusal is normal while a namespace is being deleted and its event hasn't arrived yet.
    """
    return isinstance(failure, APIError) and failures >= (1 if failure.is_permanent else _FAILURES_UNTIL_REPORTED)


def _unreached(state: AccountState, plan: AccountPlan, outcomes: Outcomes) -> NotReady | None:
    """Return why an account's variables can't reach some namespaces, or None."""
    foreign = [namespace for namespace, action in plan.actions.items() if action is Action.SKIP_FOREIGN]
    if foreign:
        return not_owned(foreign)
    finalizers = {
        member.namespace: member.secret.finalizers
        for member in state.members
        if member.secret and plan.actions[member.namespace] is Action.WAIT
    }
    if finalizers:
        return held(finalizers)
    failed = {namespace: str(failure) for namespace, failure in outcomes.items() if failure}
    return not_written(failed) if failed else None
