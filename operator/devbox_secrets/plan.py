"""The rules: from AccountSecrets and namespaces to what should be. Pure; imports api and refusals.

No clock, no input or output, no Kubernetes client. Each rule is one function, and a test of it is
a table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from pydantic import SecretBytes

from devbox_secrets.api import (
    ACCOUNT_LABEL,
    SECRET_MAX_BYTES,
    SECRET_NAMES_MAX_BYTES,
    AccountSecretStatus,
)
from devbox_secrets.refusals import Refusal, name_conflict, not_a_home, reserved_name, too_large, too_many

#: Variables by which a value becomes code, or a devbox stops being itself: the loader's and the
#: shell's, the interpreters' start-up hooks, what decides which programs and certificates are used.
RESERVED_NAMES = (
    "PATH", "HOME", "USER", "SHELL", "PWD", "HOSTNAME", "IFS", "ENV", "PS4", "TMPDIR",
    "LD_*", "DYLD_*", "GCONV_PATH", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES", "MALLOC_*",
    "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "ZDOTDIR",
    "KUBERNETES_*",
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT",
    "PYTHONWARNINGS", "PYTHONUSERBASE", "PYTHONEXECUTABLE",
    "NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS",
    "PERL5LIB", "PERL5OPT", "PERL5DB", "PERLLIB", "RUBYLIB", "RUBYOPT", "GEM_PATH", "GEM_HOME",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH",
    "GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG*", "GIT_ASKPASS", "GIT_EDITOR",
    "GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "SSH_ASKPASS",
    "EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "MANPAGER",
    "OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """An AccountSecret as the rules see it."""

    uid: str
    account: str
    name: str
    variable: str
    created: str
    """RFC 3339, UTC, to the second, as Kubernetes writes it: sorts as text."""
    generation: int
    key_id: str | None
    opened: SecretBytes | Refusal
    rotate_after: str | None = None
    """A number of days, hours or minutes, such as 90d."""
    status: AccountSecretStatus = field(default_factory=AccountSecretStatus)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first; two of the same second by their uid, the same every time."""
        return self.created, self.uid


@dataclass(frozen=True, slots=True)
class Member:
    """A namespace of the account, and its account Secret as it is now."""

    namespace: str
    labelled: bool
    secret: "Found | None" = None


@dataclass(frozen=True, slots=True)
class Found:
    """A Secret of the account Secret's name, found in a namespace."""

    resource_version: str
    data: Mapping[str, SecretBytes] = field(default_factory=dict)
    owned: bool = True
    labelled: bool = True
    """Whether it bears our label, as what we write does."""
    frozen: bool = False
    """Whether it can't become ours by a write: someone made it immutable, or gave it another type."""


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """What an account's devboxes should have, and why something is missing there."""

    values: Mapping[str, SecretBytes]
    refusals: Mapping[str, Refusal]
    """By the AccountSecret's uid."""


class Step(Enum):
    """What to do in one namespace."""

    NOTHING = "nothing"
    APPLY = "apply"
    DELETE = "delete"
    REPLACE = "replace"
    """Delete it and write it anew: it can't be changed."""
    LEAVE = "leave"
    """It belongs to someone else."""

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self not in {Step.NOTHING, Step.LEAVE}


def account_of(namespace: str, labels: Mapping[str, str]) -> str:
    """Name a namespace's account: the one that its label names, or itself."""
    return labels.get(ACCOUNT_LABEL) or namespace


def is_reserved(variable: str, reserved: Iterable[str]) -> bool:
    """Tell whether a variable is reserved; `*` at a pattern's end stands for anything."""
    return any(fnmatchcase(variable, pattern) for pattern in reserved)


def plan_account(
    entries: Iterable[Entry],
    present: Mapping[str, SecretBytes],
    *,
    home_account: str,
    reserved: Sequence[str] = RESERVED_NAMES,
) -> AccountPlan:
    """Decide which variables an account's devboxes have.

    `present` is what its account Secret holds now. A value that can't be had (its key is gone, it
    doesn't open, it became too large) leaves the one that was synced before in its place: devboxes
    go on starting while a person mends it. `home_account` is the account of the namespace that
    the entries are in; it's the namespace itself, unless a label gives it to another.
    """
    refusals: dict[str, Refusal] = {}
    owners: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.age):
        if entry.account != home_account:
            refusals[entry.uid] = not_a_home(entry.account, home_account)
        elif is_reserved(entry.variable, reserved):
            refusals[entry.uid] = reserved_name(entry.variable)
        elif entry.variable in owners:
            refusals[entry.uid] = name_conflict(entry.variable, owners[entry.variable].name)
        else:
            owners[entry.variable] = entry

    kept = {
        variable: present[variable]
        for variable, owner in owners.items()
        if owner.status.changed_at is not None and variable in present
    }
    values, missing = _fill(owners, kept)
    return AccountPlan(values, refusals | missing)


def step(want: Mapping[str, SecretBytes], member: Member) -> Step:
    """Decide what to do with a member namespace's account Secret.

    A labelled namespace keeps an empty one: its devboxes refer to it as required, so that none
    starts before its secrets are there.
    """
    found = member.secret
    wanted = bool(want) or member.labelled
    if found is None:
        return Step.APPLY if wanted else Step.NOTHING
    if not found.owned:
        return Step.LEAVE
    if not wanted:
        return Step.DELETE
    if found.labelled and found.data == want:
        return Step.NOTHING
    return Step.REPLACE if found.frozen else Step.APPLY


def _fill(
    owners: Mapping[str, Entry], kept: Mapping[str, SecretBytes]
) -> tuple[dict[str, SecretBytes], dict[str, Refusal]]:
    """Put each owner's value in the place of the kept one, as far as a Secret holds them."""

    def grows(owner: Entry) -> bool:
        return not isinstance(owner.opened, Refusal) and len(owner.opened) > len(kept.get(owner.variable, b""))

    values, refusals = dict(kept), {}
    size, names = sum(map(len, values.values())), sum(map(_name_bytes, values))
    # What shrinks comes first: its room is there for the others, and the next plan is the same.
    for owner in sorted(owners.values(), key=grows):
        variable = owner.variable
        if isinstance(owner.opened, Refusal):
            refusals[owner.uid] = _keeping(owner.opened, owner, values)
            continue
        grown = size - len(values.get(variable, b"")) + len(owner.opened)
        named = names + (0 if variable in values else _name_bytes(variable))
        if grown > SECRET_MAX_BYTES:
            refusals[owner.uid] = _keeping(too_large(variable, grown), owner, values)
        elif named > SECRET_NAMES_MAX_BYTES:
            refusals[owner.uid] = too_many(variable, len(values))
        else:
            values[variable] = owner.opened
            size, names = grown, named
    return values, refusals


def _keeping(refusal: Refusal, owner: Entry, values: Mapping[str, SecretBytes]) -> Refusal:
    since = owner.status.changed_at
    return refusal.keeping(since) if since and owner.variable in values else refusal


def _name_bytes(variable: str) -> int:
    """Weigh a name in the stored Secret: once as a key, once in managedFields, and what is around both."""
    return 2 * len(variable) + 16
