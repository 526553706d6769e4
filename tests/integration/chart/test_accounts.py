"""Who may put a namespace into an account: the chart's policy, by every kind of person and every way in."""

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
    denied,
    labels_of,
    make,
    make_role,
    sentence,
)

# The home that is joined, another one, and a namespace that wants to join.
HOME, OTHER, MEMBER = (f"accounts-{name}" for name in ("home", "other", "member"))


@dataclass(frozen=True)
class Row:
    """What someone has been given beside the right to change namespaces, and whether they may join the home."""

    about: str
    roles: Sequence[Role]
    may: bool


ROWS = [
    Row("nothing", [], may=False),
    Row("share in the home", [Role(SHARE, HOME, "share")], may=True),
    Row("share in another home", [Role(SHARE, OTHER, "share")], may=False),
    Row("share in the namespace that joins", [Role(SHARE, MEMBER, "share")], may=False),
    Row("share in every namespace", [Role(SHARE, EVERYWHERE, "share")], may=True),
    Row("admin of the home", [Role("admin", HOME, "share")], may=True),
    Row("admin of the namespace that joins", [Role("admin", MEMBER, "share")], may=False),
    Row("edit of the home", [Role("edit", HOME, "create")], may=False),
    Row("view of the home", [Role("view", HOME, "get")], may=False),
    Row("our edit of the home", [Role("devbox-secrets-edit", HOME, "create")], may=False),
    Row("cluster-admin in the home", [Role("cluster-admin", HOME, "share")], may=True),
    Row("cluster-admin", [Role("cluster-admin", EVERYWHERE, "share")], may=True),
]

NO_NAMES = ["Team-A", "TEAM", "team.a", "team_a", "a.b.c", "A"]
OWN_ACCOUNT = ["", "{}"]


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> Iterator[None]:
    install(controlplane)
    make_role(controlplane)
    for name in (HOME, OTHER, MEMBER):
        make(controlplane, {}, name)
    yield
    controlplane.kubectl("delete", "namespace", HOME, OTHER, MEMBER, "--wait=false")


@pytest.fixture(scope="module")
def stranger(controlplane: ControlPlane, _installed: None) -> Person:
    """Someone who may change every namespace and share no account."""
    return Person.new(controlplane)


@pytest.fixture(scope="module")
def sharer(controlplane: ControlPlane, _installed: None) -> Person:
    """Someone who may change every namespace and share every account."""
    return Person.new(controlplane, Role(SHARE, EVERYWHERE, "share"))


@pytest.fixture
def box(controlplane: ControlPlane) -> Iterator[str]:
    """A namespace without labels."""
    name = make(controlplane, {})
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def new(controlplane: ControlPlane) -> Iterator[str]:
    """A name that no namespace has."""
    name = f"test-{uuid4().hex[:8]}"
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def is_gone(person: Person, *names: str) -> None:
    """Delete namespaces, and wait until the controller that finalizes them has done so without any right to share."""
    done = person("delete", "namespace", *names, "--timeout=30s")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.about)
def test_joining_needs_the_right_to_share_in_the_home(row: Row, controlplane: ControlPlane) -> None:
    controlplane.kubectl("label", "namespace", MEMBER, f"{ACCOUNT}-")
    person = Person.new(controlplane, *row.roles)
    done = person.labels(MEMBER, HOME)
    if row.may:
        assert (done.returncode, labels_of(controlplane, MEMBER)) == (0, {ACCOUNT: HOME})
    else:
        assert (sentence(done), labels_of(controlplane, MEMBER)) == (denied(person.user, HOME), {})


@pytest.mark.parametrize("way", CHANGES)
def test_a_stranger_brings_no_namespace_in_by(way: str, controlplane: ControlPlane, stranger: Person, box: str) -> None:
    assert sentence(CHANGES[way](stranger, box, {ACCOUNT: HOME})) == denied(stranger.user, HOME)
    assert labels_of(controlplane, box) == {}


@pytest.mark.parametrize("way", CHANGES)
def test_who_may_share_brings_one_in_by(way: str, controlplane: ControlPlane, sharer: Person, box: str) -> None:
    done = CHANGES[way](sharer, box, {ACCOUNT: HOME})
    assert (done.returncode, labels_of(controlplane, box)) == (0, {ACCOUNT: HOME}), done.stderr


@pytest.mark.parametrize("way", CREATIONS)
def test_a_stranger_makes_none_in_it_by(way: str, controlplane: ControlPlane, stranger: Person, new: str) -> None:
    assert sentence(CREATIONS[way](stranger, new, {ACCOUNT: HOME})) == denied(stranger.user, HOME)
    assert "NotFound" in controlplane.kubectl("get", "namespace", new, check=False).stderr


@pytest.mark.parametrize("way", CREATIONS)
def test_who_may_share_makes_one_in_it_by(way: str, controlplane: ControlPlane, sharer: Person, new: str) -> None:
    done = CREATIONS[way](sharer, new, {ACCOUNT: HOME})
    assert (done.returncode, labels_of(controlplane, new)) == (0, {ACCOUNT: HOME}), done.stderr


def test_nor_with_a_generated_name(stranger: Person, sharer: Person) -> None:
    body = namespace("", {ACCOUNT: HOME})
    body["metadata"]["generateName"] = "test-"
    create = ("create", "--dry-run=server", "--filename=-")
    assert sentence(stranger(*create, body=body)) == denied(stranger.user, HOME)
    assert sharer(*create, body=body).returncode == 0


def test_a_label_that_the_cluster_itself_adds_counts_as_the_persons(
    controlplane: ControlPlane, stranger: Person, sharer: Person, new: str
) -> None:
    asks = {"platform": new}
    metadata = {"metadata": {"name": new}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["namespaces"]}]
    adds = f'Object{{metadata: Object.metadata{{labels: {{"{ACCOUNT}": "{HOME}"}}}}}}'
    policy = {
        "matchConstraints": {"resourceRules": rules, "objectSelector": {"matchLabels": asks}},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": adds}}],
        "reinvocationPolicy": "Never",
    }
    kinds = {"MutatingAdmissionPolicy": policy, "MutatingAdmissionPolicyBinding": {"policyName": new}}
    for kind, spec in kinds.items():
        created(controlplane, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "spec": spec, **metadata})

    create = ("create", "--dry-run=server", "--output=json", "--filename=-")
    body = namespace(new, asks)
    until("the label is added", lambda: HOME in sharer(*create, body=body).stdout)
    assert sentence(stranger(*create, body=body)) == denied(stranger.user, HOME)
    for kind in kinds:
        controlplane.kubectl("delete", kind, new)


def test_what_kubectl_prints(stranger: Person, box: str) -> None:
    assert stranger.labels(box, HOME).stderr == (
        f'Error from server (Forbidden): namespaces "{box}" is forbidden:'
        f" ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request: {denied(stranger.user, HOME)}\n"
    )


def test_an_admin_of_the_home_can_do_what_the_sentence_says(controlplane: ControlPlane, box: str) -> None:
    admin, person = Person.new(controlplane, Role("admin", HOME, "share")), Person.new(controlplane)
    assert sentence(person.labels(box, HOME)) == denied(person.user, HOME)
    role = ("create", "rolebinding", person.user, f"--clusterrole={SHARE}", f"--user={person.user}")
    done = admin(*role, f"--namespace={HOME}")
    assert done.returncode == 0, done.stderr
    person.can("share", "accountsecrets", HOME)
    assert person.labels(box, HOME).returncode == 0


def test_an_editor_of_the_home_cannot(controlplane: ControlPlane) -> None:
    editor = Person.new(controlplane, Role("edit", HOME, "create"))
    done = editor("create", "rolebinding", "mine", f"--clusterrole={SHARE}", "--user=me", f"--namespace={HOME}")
    assert "forbidden" in done.stderr


def test_a_service_account_needs_it_like_everyone(controlplane: ControlPlane, box: str) -> None:
    without = Person.service_account(controlplane, OTHER, Role(SHARE, OTHER, "share"))
    assert sentence(without.labels(box, HOME)) == denied(without.user, HOME)
    assert Person.service_account(controlplane, OTHER, Role(SHARE, HOME, "share")).labels(box, HOME).returncode == 0


def test_it_is_the_right_of_whom_one_impersonates(
    controlplane: ControlPlane, stranger: Person, sharer: Person, box: str
) -> None:
    label = ("label", "namespace", box, f"{ACCOUNT}={HOME}")
    done = controlplane.kubectl(*label, f"--as={stranger.user}", check=False)
    assert sentence(done) == denied(stranger.user, HOME)
    controlplane.kubectl(*label, f"--as={sharer.user}")


def test_a_group_can_have_it(controlplane: ControlPlane, stranger: Person, box: str) -> None:
    controlplane.kubectl(
        "create", "rolebinding", box, f"--clusterrole={SHARE}", f"--group={box}", f"--namespace={HOME}"
    )
    label = ("label", "namespace", box, f"{ACCOUNT}={HOME}", f"--as={stranger.user}", f"--as-group={box}")
    until("the group may", lambda: controlplane.kubectl(*label, check=False).returncode == 0)


def test_a_home_that_is_not_there_yet_is_joined_by_who_may_share_everywhere(
    stranger: Person, sharer: Person, box: str, new: str
) -> None:
    assert sentence(stranger.labels(box, new)) == denied(stranger.user, new)
    assert sharer.labels(box, new).returncode == 0


def test_moving_needs_it_in_the_new_home_alone(controlplane: ControlPlane, box: str) -> None:
    of_home = Person.new(controlplane, Role(SHARE, HOME, "share"))
    of_other = Person.new(controlplane, Role(SHARE, OTHER, "share"))
    assert of_home.labels(box, HOME).returncode == 0
    assert sentence(of_home.labels(box, OTHER)) == denied(of_home.user, OTHER)
    assert of_other.labels(box, OTHER).returncode == 0


@pytest.mark.parametrize("account", OWN_ACCOUNT)
def test_leaving_for_its_own_account_needs_nothing(
    account: str, controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    assert stranger.labels(box, account.format(box)).returncode == 0
    assert labels_of(controlplane, box) == {ACCOUNT: account.format(box)}


@pytest.mark.parametrize("way", CREATIONS)
@pytest.mark.parametrize("account", OWN_ACCOUNT)
def test_nor_does_a_new_namespace_of_its_own_account(way: str, account: str, stranger: Person, new: str) -> None:
    assert CREATIONS[way](stranger, new, {ACCOUNT: account.format(new)}).returncode == 0


def test_taking_the_label_away_needs_nothing_and_is_not_undone_without_the_right(
    controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    before = get(controlplane, "namespace", box)
    del before["metadata"]["resourceVersion"]
    assert stranger("label", "namespace", box, f"{ACCOUNT}-").returncode == 0
    assert sentence(stranger("replace", "--filename=-", body=before)) == denied(stranger.user, HOME)
    assert labels_of(controlplane, box) == {}


def test_a_member_that_was_deleted_is_not_made_anew_without_the_right(
    controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    is_gone(stranger, box)
    done = stranger("create", "--filename=-", body=namespace(box, {ACCOUNT: HOME}))
    assert sentence(done) == denied(stranger.user, HOME)


@pytest.mark.parametrize("way", CHANGES)
def test_a_member_is_changed_without_the_right_by(
    way: str, controlplane: ControlPlane, stranger: Person, box: str
) -> None:
    controlplane.kubectl("label", "namespace", box, f"{ACCOUNT}={HOME}")
    done = CHANGES[way](stranger, box, {ACCOUNT: HOME, "team": "red"})
    assert (done.returncode, labels_of(controlplane, box)) == (0, {ACCOUNT: HOME, "team": "red"}), done.stderr


@pytest.mark.parametrize("account", NO_NAMES)
def test_a_name_that_no_namespace_can_have_is_refused_to_everyone(
    account: str, stranger: Person, sharer: Person, box: str
) -> None:
    told = (
        f"label {ACCOUNT}: \"{account}\" isn't a valid namespace name; use the name of the account's home namespace:"
        ' lowercase letters, digits and "-"'
    )
    assert [sentence(person.labels(box, account)) for person in (stranger, sharer)] == [told, told]


def test_the_longest_name_is_a_name(sharer: Person, box: str) -> None:
    assert sharer.labels(box, "a-" * 31 + "a").returncode == 0


def test_what_was_labelled_before_the_installation_stays_and_can_be_changed() -> None:
    with ControlPlane.start() as it:
        before = {"joined": HOME, "impossible": "Team_A"}
        for name, account in before.items():
            make(it, {ACCOUNT: account}, name)
        install(it)
        make_role(it)
        stranger = Person.new(it)
        for name, account in before.items():
            for way in CHANGES.values():
                assert way(stranger, name, {ACCOUNT: account, "team": "red"}).returncode == 0
        is_gone(stranger, *before)


def test_the_policy_is_bound_to_every_namespace_and_fails_closed(controlplane: ControlPlane) -> None:
    policy = get(controlplane, "validatingadmissionpolicy", POLICY)
    binding = get(controlplane, "validatingadmissionpolicybinding", POLICY)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["status"]["typeChecking"] == {}
    assert binding["spec"] == {"policyName": POLICY, "validationActions": ["Deny"]}
