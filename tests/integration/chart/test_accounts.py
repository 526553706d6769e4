"""The chart's policy decides who can add a namespace to an account, for every kind of role and request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, created, get, install, namespace, until
from integration.support.users import (
    CHANGES,
    CREATIONS,
    EVERYWHERE,
    POLICY,
    SHARE,
    Person,
    Role,
    create_namespace,
    create_role,
    denial_message,
    denied,
    labels_of,
)

# The home of the account, another home, and a namespace that joins the account.
HOME, OTHER, MEMBER = (f"accounts-{name}" for name in ("home", "other", "member"))


@dataclass(frozen=True)
class Row:
    """Roles besides the right to change namespaces, and whether they allow a namespace to join the account."""

    about: str
    roles: Sequence[Role]
    allowed: bool


ROWS = [
    Row("no role", [], allowed=False),
    Row("share in the home", [Role(SHARE, HOME, "share")], allowed=True),
    Row("share in another home", [Role(SHARE, OTHER, "share")], allowed=False),
    Row("share in the joining namespace", [Role(SHARE, MEMBER, "share")], allowed=False),
    Row("share in every namespace", [Role(SHARE, EVERYWHERE, "share")], allowed=True),
    Row("admin of the home", [Role("admin", HOME, "share")], allowed=True),
    Row("admin of the joining namespace", [Role("admin", MEMBER, "share")], allowed=False),
    Row("edit of the home", [Role("edit", HOME, "create")], allowed=False),
    Row("view of the home", [Role("view", HOME, "get")], allowed=False),
    Row("our edit of the home", [Role("devbox-secrets-edit", HOME, "create")], allowed=False),
    Row("cluster-admin in the home", [Role("cluster-admin", HOME, "share")], allowed=True),
    Row("cluster-admin", [Role("cluster-admin", EVERYWHERE, "share")], allowed=True),
]

INVALID_NAMES = ["Team-A", "TEAM", "team.a", "team_a", "a.b.c", "A"]
OWN_ACCOUNT = ["", "{}"]


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> Iterator[None]:
    install(controlplane)
    create_role(controlplane)
    for name in (HOME, OTHER, MEMBER):
        create_namespace(controlplane, {}, name)
    yield
    controlplane.kubectl("delete", "namespace", HOME, OTHER, MEMBER, "--wait=false")


@pytest.fixture(scope="module")
def stranger(controlplane: ControlPlane, _installed: None) -> Person:
    """Someone who can change every namespace but share no account."""
    return Person.new(controlplane)


@pytest.fixture(scope="module")
def sharer(controlplane: ControlPlane, _installed: None) -> Person:
    """Someone who can change every namespace and share every account."""
    return Person.new(controlplane, Role(SHARE, EVERYWHERE, "share"))


@pytest.fixture
def box(controlplane: ControlPlane) -> Iterator[str]:
    """A namespace without labels."""
    name = create_namespace(controlplane, {})
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def new(controlplane: ControlPlane) -> Iterator[str]:
    """The name of a namespace that doesn't exist yet."""
    name = f"test-{uuid4().hex[:8]}"
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def delete_and_wait(person: Person, *names: str) -> None:
    """Delete namespaces and wait for their removal; the controller that finalizes them has no right to share."""
    done = person("delete", "namespace", *names, "--timeout=30s")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.about)
def test_joining_needs_the_right_to_share_in_the_home(row: Row, controlplane: ControlPlane) -> None:
    controlplane.kubectl("label", "namespace", MEMBER, f"{ACCOUNT}-")
    person = Person.new(controlplane, *row.roles)
    done = person.labels(MEMBER, HOME)
    if row.allowed:
        assert (done.returncode, labels_of(controlplane, MEMBER)) == (0, {ACCOUNT: HOME})
    else:
        assert (denial_message(done), labels_of(controlplane, MEMBER)) == (denied(person.user, HOME), {})


@pytest.mark.parametrize("way", CHANGES)
def test_a_user_without_the_right_cannot_add_a_namespace(
    way: str, controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    assert denial_message(CHANGES[way](stranger, box, {ACCOUNT: HOME})) == denied(stranger.user, HOME)
    assert labels_of(controlplane, box) == {}


@pytest.mark.parametrize("way", CHANGES)
def test_a_user_with_the_right_can_add_a_namespace(
    way: str, controlplane: ControlPlane, sharer: Person, box: str
) -> None:
    done = CHANGES[way](sharer, box, {ACCOUNT: HOME})
    assert (done.returncode, labels_of(controlplane, box)) == (0, {ACCOUNT: HOME}), done.stderr


@pytest.mark.parametrize("way", CREATIONS)
def test_a_user_without_the_right_cannot_create_a_member_namespace(
    way: str, controlplane: ControlPlane, stranger: Person, new: str
) -> None:
    assert denial_message(CREATIONS[way](stranger, new, {ACCOUNT: HOME})) == denied(stranger.user, HOME)
    assert "NotFound" in controlplane.kubectl("get", "namespace", new, check=False).stderr


@pytest.mark.parametrize("way", CREATIONS)
def test_a_user_with_the_right_can_create_a_member_namespace(
    way: str, controlplane: ControlPlane, sharer: Person, new: str
) -> None:
    done = CREATIONS[way](sharer, new, {ACCOUNT: HOME})
    assert (done.returncode, labels_of(controlplane, new)) == (0, {ACCOUNT: HOME}), done.stderr


def test_a_member_namespace_with_a_generated_name_needs_the_right(stranger: Person, sharer: Person) -> None:
    body = namespace("", {ACCOUNT: HOME})
    body["metadata"]["generateName"] = "test-"
    create = ("create", "--dry-run=server", "--filename=-")
    assert denial_message(stranger(*create, body=body)) == denied(stranger.user, HOME)
    assert sharer(*create, body=body).returncode == 0


def test_a_label_added_by_another_policy_needs_the_right_of_the_user(
    controlplane: ControlPlane, stranger: Person, sharer: Person, new: str
) -> None:
    requested = {"platform": new}
    metadata = {"metadata": {"name": new}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["namespaces"]}]
    expression = f'Object{{metadata: Object.metadata{{labels: {{"{ACCOUNT}": "{HOME}"}}}}}}'
    policy = {
        "matchConstraints": {"resourceRules": rules, "objectSelector": {"matchLabels": requested}},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        "reinvocationPolicy": "Never",
    }
    kinds = {"MutatingAdmissionPolicy": policy, "MutatingAdmissionPolicyBinding": {"policyName": new}}
    for kind, spec in kinds.items():
        created(controlplane, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "spec": spec, **metadata})

    create = ("create", "--dry-run=server", "--output=json", "--filename=-")
    body = namespace(new, requested)
    until("the label is added", lambda: HOME in sharer(*create, body=body).stdout)
    assert denial_message(stranger(*create, body=body)) == denied(stranger.user, HOME)
    for kind in kinds:
        controlplane.kubectl("delete", kind, new)


def test_kubectl_prints_the_policys_message(stranger: Person, box: str) -> None:
    assert stranger.labels(box, HOME).stderr == (
        f'Error from server (Forbidden): namespaces "{box}" is forbidden:'
        f" ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request: {denied(stranger.user, HOME)}\n"
    )


def test_an_admin_of_the_home_can_grant_the_right_as_the_message_says(controlplane: ControlPlane, box: str) -> None:
    admin, person = Person.new(controlplane, Role("admin", HOME, "share")), Person.new(controlplane)
    assert denial_message(person.labels(box, HOME)) == denied(person.user, HOME)
    role = ("create", "rolebinding", person.user, f"--clusterrole={SHARE}", f"--user={person.user}")
    done = admin(*role, f"--namespace={HOME}")
    assert done.returncode == 0, done.stderr
    person.can("share", "accountsecrets", HOME)
    assert person.labels(box, HOME).returncode == 0


def test_an_editor_of_the_home_cannot_grant_the_right(controlplane: ControlPlane) -> None:
    editor = Person.new(controlplane, Role("edit", HOME, "create"))
    done = editor("create", "rolebinding", "mine", f"--clusterrole={SHARE}", "--user=me", f"--namespace={HOME}")
    assert "forbidden" in done.stderr


def test_a_service_account_needs_the_right_too(controlplane: ControlPlane, box: str) -> None:
    without = Person.service_account(controlplane, OTHER, Role(SHARE, OTHER, "share"))
    assert denial_message(without.labels(box, HOME)) == denied(without.user, HOME)
    assert Person.service_account(controlplane, OTHER, Role(SHARE, HOME, "share")).labels(box, HOME).returncode == 0


def test_an_impersonated_user_needs_the_right(
    controlplane: ControlPlane, stranger: Person, sharer: Person, box: str
) -> None:
    label = ("label", "namespace", box, f"{ACCOUNT}={HOME}")
    done = controlplane.kubectl(*label, f"--as={stranger.user}", check=False)
    assert denial_message(done) == denied(stranger.user, HOME)
    controlplane.kubectl(*label, f"--as={sharer.user}")


def test_a_group_can_have_the_right(controlplane: ControlPlane, stranger: Person, box: str) -> None:
    controlplane.kubectl(
        "create", "rolebinding", box, f"--clusterrole={SHARE}", f"--group={box}", f"--namespace={HOME}"
    )
    label = ("label", "namespace", box, f"{ACCOUNT}={HOME}", f"--as={stranger.user}", f"--as-group={box}")
    until("the group has the right", lambda: controlplane.kubectl(*label, check=False).returncode == 0)


def test_joining_a_missing_home_needs_the_right_in_all_namespaces(
    stranger: Person, sharer: Person, box: str, new: str
) -> None:
    assert denial_message(stranger.labels(box, new)) == denied(stranger.user, new)
    assert sharer.labels(box, new).returncode == 0


def test_moving_to_another_account_needs_the_right_only_in_the_new_home(controlplane: ControlPlane, box: str) -> None:
    of_home = Person.new(controlplane, Role(SHARE, HOME, "share"))
    of_other = Person.new(controlplane, Role(SHARE, OTHER, "share"))
    assert of_home.labels(box, HOME).returncode == 0
    assert denial_message(of_home.labels(box, OTHER)) == denied(of_home.user, OTHER)
    assert of_other.labels(box, OTHER).returncode == 0


@pytest.mark.parametrize("account", OWN_ACCOUNT)
def test_a_namespace_can_leave_for_its_own_account_without_the_right(
    account: str, controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    assert stranger.labels(box, account.format(box)).returncode == 0
    assert labels_of(controlplane, box) == {ACCOUNT: account.format(box)}


@pytest.mark.parametrize("way", CREATIONS)
@pytest.mark.parametrize("account", OWN_ACCOUNT)
def test_a_namespace_can_be_created_in_its_own_account_without_the_right(
    way: str, account: str, stranger: Person, new: str
) -> None:
    assert CREATIONS[way](stranger, new, {ACCOUNT: account.format(new)}).returncode == 0


def test_removing_the_label_needs_no_right_but_restoring_it_does(
    controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    before = get(controlplane, "namespace", box)
    del before["metadata"]["resourceVersion"]
    assert stranger("label", "namespace", box, f"{ACCOUNT}-").returncode == 0
    assert denial_message(stranger("replace", "--filename=-", body=before)) == denied(stranger.user, HOME)
    assert labels_of(controlplane, box) == {}


def test_recreating_a_deleted_member_needs_the_right(controlplane: ControlPlane, stranger: Person, box: str) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    delete_and_wait(stranger, box)
    done = stranger("create", "--filename=-", body=namespace(box, {ACCOUNT: HOME}))
    assert denial_message(done) == denied(stranger.user, HOME)


@pytest.mark.parametrize("way", CHANGES)
def test_a_member_can_be_changed_without_the_right(
    way: str, controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    done = CHANGES[way](stranger, box, {ACCOUNT: HOME, "team": "red"})
    assert (done.returncode, labels_of(controlplane, box)) == (0, {ACCOUNT: HOME, "team": "red"}), done.stderr


@pytest.mark.parametrize("account", INVALID_NAMES)
def test_an_invalid_namespace_name_is_denied_to_everyone(
    account: str, stranger: Person, sharer: Person, box: str
) -> None:
    message = (
        f"label {ACCOUNT}: \"{account}\" isn't a valid namespace name; use the name of the account's home namespace:"
        ' lowercase letters, digits and "-"'
    )
    assert [denial_message(person.labels(box, account)) for person in (stranger, sharer)] == [message, message]


def test_the_longest_valid_name_is_accepted(sharer: Person, box: str) -> None:
    assert sharer.labels(box, "a-" * 31 + "a").returncode == 0


def test_namespaces_labeled_before_the_installation_can_still_be_changed() -> None:
    with ControlPlane.start() as it:
        before = {"joined": HOME, "invalid": "Team_A"}
        for name, account in before.items():
            create_namespace(it, {ACCOUNT: account}, name)
        install(it)
        create_role(it)
        stranger = Person.new(it)
        for name, account in before.items():
            for way in CHANGES.values():
                assert way(stranger, name, {ACCOUNT: account, "team": "red"}).returncode == 0
        delete_and_wait(stranger, *before)


def test_the_policy_applies_to_every_namespace_and_fails_closed(controlplane: ControlPlane) -> None:
    policy = get(controlplane, "validatingadmissionpolicy", POLICY)
    binding = get(controlplane, "validatingadmissionpolicybinding", POLICY)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["status"]["typeChecking"] == {}
    assert binding["spec"] == {"policyName": POLICY, "validationActions": ["Deny"]}
