"""A table of injection cases, for all methods of injection."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, SANDBOX, Json, container, dry_run, pod

SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name
INJECT, ENV, MOUNT = (f"devbox-secrets.dev/{name}" for name in ("inject", "env", "mount"))
PATH = "/run/secrets/account"
DEFAULT_PATH = "/var/run/secrets/devbox-secrets.dev"

OURS: Json = {"secretRef": {"name": SECRET, "optional": True}}
ALL: Json = {"envFrom": [OURS]}
SETTINGS: Json = {"configMapRef": {"name": "settings"}}
OWN: list[Json] = [SETTINGS, {"prefix": "DB_", "secretRef": {"name": "db"}}]
BY_HAND: list[Json] = [SETTINGS, {"secretRef": {"name": SECRET}}]
OWN_ENV: list[Json] = [{"name": "GITHUB_TOKEN", "value": "the pod's own"}, {"name": "OTHER", "value": "$(DB)"}]
MANY: list[Json] = [{"configMapRef": {"name": f"settings-{number}"}} for number in range(16)]
MANY_ENV_FROM: list[Json] = [{"configMapRef": {"name": f"settings-{number}"}} for number in range(500)]
TOO_MUCH_ENV: list[Json] = [{"name": f"OWN_{number}", "value": "x"} for number in range(501)]
MANY_ENV: list[Json] = [{"name": f"OWN_{number}", "value": "x"} for number in range(30)]
LARGE_ENV: list[Json] = [{"name": f"OWN_{number}", "value": "x" * 100_000} for number in range(12)]

VOLUME: Json = {"name": SECRET, "secret": {"secretName": SECRET, "defaultMode": 0o444, "optional": True}}
FILES: Json = {"name": SECRET, "mountPath": PATH, "readOnly": True}
CACHE: Json = {"name": "cache", "mountPath": "/cache"}
CACHE_VOLUME: Json = {"name": "cache", "emptyDir": {}}
#: A pod's own volume of the Secret, with only one of the files.
VOLUME_BY_HAND: Json = {
    "name": SECRET,
    "secret": {"secretName": SECRET, "defaultMode": 0o400, "items": [{"key": "TOKEN", "path": "token"}]},
}
FILES_BY_HAND: Json = {"name": SECRET, "mountPath": "/mine"}


def one(name: str, key: str | None = None) -> Json:
    """Return an entry of env that refers to a variable of the account."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key or name, "optional": True}}}


TWO = {ENV: "GITHUB_TOKEN, DB=PROD_DATABASE_URL"}
BOTH = [one("GITHUB_TOKEN"), one("DB", "PROD_DATABASE_URL")]
#: The maximum for a devbox.
MANY_ANNOTATIONS = {f"example.org/{number}": "" for number in range(999)}
MANY_MOUNTS: list[Json] = [{"name": "cache", "mountPath": f"/{number}"} for number in range(498)]
LONGEST_NAME = "A" * 253
LONGEST_PATH = "/a" * 2_047
A_HUNDRED = [f"VARIABLE_{number}" for number in range(100)]


@dataclass(frozen=True)
class Case:
    """A pod in an account's home, and the fields of the pod and its containers that injection changes."""

    name: str
    after: Sequence[Json]
    annotations: dict[str, str] = field(default_factory=dict)
    containers: Sequence[Json] = (container("a"),)
    init: Sequence[Json] = ()
    init_after: Sequence[Json] = ()
    volumes: Sequence[Json] = ()
    volumes_after: Sequence[Json] = ()
    labels: dict[str, str] = field(default_factory=lambda: DEVBOX)

    @property
    def spec(self) -> Json:
        return {"containers": self.containers, "initContainers": self.init, "volumes": self.volumes}

    def applied_to(self, spec: Json, *, optional: bool = True) -> Json:
        """Apply the case's changes to the spec of the pod, as the API server returns it without injection."""
        afters = {"containers": self.after, "initContainers": self.init_after}
        changed = {
            kind: [before | after for before, after in zip(spec.get(kind, []), afters[kind], strict=True)]
            for kind in afters
            if kind in spec
        }
        volumes = {"volumes": list(self.volumes_after)} if self.volumes_after else {}
        made: Json = spec | changed | volumes
        return made if optional else {key: _required(each) for key, each in made.items()}


def pods(case: Case, controlplane: ControlPlane, namespace: str = "default") -> tuple[Json, Json]:
    """Return a case's pod as the API server would store it, without and with the labels of a devbox."""
    stranger = dry_run(controlplane, pod(case.spec, {}, case.annotations), namespace)
    return stranger, dry_run(controlplane, pod(case.spec, case.labels, case.annotations), namespace)


def _required(value: object) -> object:
    if isinstance(value, list):
        return [_required(each) for each in value]
    if not isinstance(value, dict):
        return value
    ours = SECRET in (value.get("name"), value.get("secretName")) and value.get("optional")
    return {key: _required(each) for key, each in value.items()} | ({"optional": False} if ours else {})


ALL_VARIABLES = [
    Case("one container", [ALL]),
    Case(
        "two containers and an init container",
        [ALL, ALL],
        containers=[container("a"), container("b")],
        init=[container("setup")],
        init_after=[ALL],
    ),
    Case(
        "a sidecar among the init containers",
        [ALL],
        init=[container("proxy", restartPolicy="Always"), container("setup")],
        init_after=[ALL, ALL],
    ),
    Case(
        "the pod's own envFrom comes after ours and wins",
        [{"envFrom": [OURS, *OWN]}],
        containers=[container("a", envFrom=OWN)],
        init=[container("setup", envFrom=OWN)],
        init_after=[{"envFrom": [OURS, *OWN]}],
    ),
    Case("an empty envFrom", [ALL], containers=[container("a", envFrom=[])]),
    Case("the pod's own env is kept", [ALL], containers=[container("a", env=OWN_ENV)]),
    Case(
        "a container that already refers to the Secret is unchanged",
        [{}, ALL],
        containers=[container("a", envFrom=BY_HAND), container("b")],
    ),
    Case(
        "thirty containers with sixteen envFrom entries each",
        [{"envFrom": [OURS, *MANY]}] * 30,
        containers=[container(f"c{number}", envFrom=MANY) for number in range(30)],
    ),
    Case("a pod larger than one mebibyte", [ALL], containers=[container("a", env=LARGE_ENV)]),
    *(
        Case(f"the label's value is {value!r}", [ALL], labels={"devbox-secrets.dev/devbox": value})
        for value in ("TRUE", "yes", "1", "", "False", "no")
    ),
    Case("a pod of agent-sandbox", [ALL], labels=SANDBOX),
    Case(
        "a pod that one label excludes and the other selects",
        [ALL],
        labels={"devbox-secrets.dev/devbox": "false"} | SANDBOX,
    ),
    Case(
        "a pod that both selectors match gets the secrets once",
        [ALL, {"envFrom": [OURS, *OWN]}],
        containers=[container("a"), container("b", envFrom=OWN)],
        init=[container("setup")],
        init_after=[ALL],
        labels=DEVBOX | SANDBOX,
    ),
    Case("a thousand annotations", [ALL], {**MANY_ANNOTATIONS, INJECT: "true"}),
    Case(
        "five hundred envFrom entries, and more env entries than the limit",
        [{"envFrom": [OURS, *MANY_ENV_FROM]}],
        containers=[container("a", envFrom=MANY_ENV_FROM, env=TOO_MUCH_ENV)],
    ),
    Case("other projects' annotations are ignored", [ALL], {"example.org/devbox-secrets.dev": "x", "env": "A"}),
    Case("inject: true is the default", [ALL], {INJECT: "true"}),
]

NOTHING = [
    Case("inject: false", [{}], {INJECT: "false"}, init=[container("setup")], init_after=[{}]),
    Case("inject: false with all other annotations", [{}], {INJECT: "false", MOUNT: PATH, **TWO}),
    Case("inject: false in a pod of agent-sandbox", [{}], {INJECT: "false"}, labels=SANDBOX),
    Case(
        "inject: false in a pod that exceeds a devbox's limits",
        [{}] * 101,
        {INJECT: "false"},
        [container(f"c{number}") for number in range(101)],
    ),
    Case(
        "inject: false keeps the pod's own reference to the Secret",
        [{}],
        {INJECT: "false"},
        [container("a", envFrom=BY_HAND)],
    ),
]

CHOSEN = [
    Case("env selects one variable", [{"env": [one("TOKEN")]}], {ENV: "TOKEN"}),
    Case("env renames a variable", [{"env": [one("DB", "PROD_DATABASE_URL")]}], {ENV: "DB=PROD_DATABASE_URL"}),
    Case(
        "env applies to every container, in the order of the annotation",
        [{"env": BOTH}, {"env": BOTH}],
        TWO,
        [container("a"), container("b")],
        init=[container("proxy", restartPolicy="Always"), container("setup")],
        init_after=[{"env": BOTH}, {"env": BOTH}],
    ),
    Case("env without spaces", [{"env": BOTH}], {ENV: "GITHUB_TOKEN,DB=PROD_DATABASE_URL"}),
    Case(
        "env with spaces and line breaks around names",
        [{"env": BOTH}],
        {ENV: "  GITHUB_TOKEN ,\n DB =\tPROD_DATABASE_URL \n"},
    ),
    Case("env: one variable under two names", [{"env": [one("A"), one("B", "A")]}], {ENV: "A, B=A"}),
    Case("env: two variables that swap names", [{"env": [one("A", "B"), one("B", "A")]}], {ENV: "A=B, B=A"}),
    Case("env: lowercase letters, digits and _", [{"env": [one("_a1", "b_2")]}], {ENV: "_a1=b_2"}),
    Case("env with inject: true", [{"env": BOTH}], {INJECT: "true", **TWO}),
    Case("env and an empty env", [{"env": BOTH}], TWO, [container("a", env=[])]),
    Case(
        "env: variables that the container defines aren't added; the others precede its own",
        [{"env": [BOTH[1], *OWN_ENV]}, {"env": BOTH}],
        TWO,
        [container("a", env=OWN_ENV), container("b")],
        init=[container("setup", env=OWN_ENV)],
        init_after=[{"env": [BOTH[1], *OWN_ENV]}],
    ),
    Case("env: the container defines every variable", [{}], {ENV: "GITHUB_TOKEN"}, [container("a", env=OWN_ENV)]),
    Case(
        "env: a renamed variable is compared by its new name",
        [{"env": [one("MINE", "GITHUB_TOKEN"), *OWN_ENV]}],
        {ENV: "MINE=GITHUB_TOKEN, OTHER=DB"},
        [container("a", env=OWN_ENV)],
    ),
    Case("env and the container's own envFrom", [{"env": BOTH}], TWO, [container("a", envFrom=OWN)]),
    Case("env and the container's reference to the Secret", [{"env": BOTH}], TWO, [container("a", envFrom=BY_HAND)]),
    Case("env in a pod of agent-sandbox", [{"env": BOTH}], TWO, labels=SANDBOX),
    Case(
        "env in a pod that both selectors match",
        [{"env": BOTH}, {"env": [BOTH[1], *OWN_ENV]}],
        TWO,
        [container("a"), container("b", env=OWN_ENV)],
        labels=DEVBOX | SANDBOX,
    ),
    Case(
        "env: the longest name", [{"env": [one(LONGEST_NAME, LONGEST_NAME)]}], {ENV: f"{LONGEST_NAME}={LONGEST_NAME}"}
    ),
    Case("env: the maximum number of spaces", [{"env": [one("A")]}], {ENV: "A" + " " * 59_999}),
    Case(
        "env: a container with five hundred entries, some of them with one of the annotation's names",
        [{"env": [one("B"), *TOO_MUCH_ENV[:490], *[{"name": "A", "value": "own"}] * 10]}],
        {ENV: "A, B"},
        [container("a", env=[*TOO_MUCH_ENV[:490], *[{"name": "A", "value": "own"}] * 10])],
    ),
    Case(
        "env: a hundred entries for three containers with thirty each",
        [{"env": [*map(one, A_HUNDRED), *MANY_ENV]}] * 3,
        {ENV: ",".join(A_HUNDRED)},
        [container(f"c{number}", env=MANY_ENV) for number in range(3)],
    ),
]

MOUNTED = [
    Case(
        "mount adds files to the variables",
        [ALL | {"volumeMounts": [FILES]}],
        {MOUNT: PATH},
        volumes_after=[VOLUME],
    ),
    Case(
        "mount and env",
        [{"env": BOTH, "volumeMounts": [FILES]}],
        {MOUNT: PATH, **TWO},
        volumes_after=[VOLUME],
    ),
    Case(
        "mount and an empty env: only files",
        [{"volumeMounts": [FILES]}, {"volumeMounts": [FILES]}],
        {MOUNT: PATH, ENV: " "},
        [container("a"), container("b", env=OWN_ENV)],
        volumes_after=[VOLUME],
    ),
    Case(
        "mount in every container, beside its own mounts",
        [ALL | {"volumeMounts": [CACHE, FILES]}, ALL | {"volumeMounts": [FILES]}],
        {MOUNT: PATH},
        [container("a", volumeMounts=[CACHE]), container("b", volumeMounts=[])],
        init=[container("proxy", restartPolicy="Always"), container("setup", volumeMounts=[CACHE])],
        init_after=[ALL | {"volumeMounts": [FILES]}, ALL | {"volumeMounts": [CACHE, FILES]}],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "mount below another mount's path",
        [ALL | {"volumeMounts": [CACHE, FILES | {"mountPath": "/cache/account"}]}],
        {MOUNT: "/cache/account"},
        [container("a", volumeMounts=[CACHE])],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "mount at a path whose characters start another mount's path",
        [ALL | {"volumeMounts": [CACHE, FILES | {"mountPath": "/cac"}]}],
        {MOUNT: "/cac"},
        [container("a", volumeMounts=[CACHE])],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "mount at a path with dots in its names",
        [ALL | {"volumeMounts": [FILES | {"mountPath": "/.a/b..c/...d"}]}],
        {MOUNT: "/.a/b..c/...d"},
        volumes_after=[VOLUME],
    ),
    Case(
        "mount at the longest path, with the maximum number of volumes and mounts",
        [ALL | {"volumeMounts": [*MANY_MOUNTS, FILES | {"mountPath": LONGEST_PATH}]}],
        {MOUNT: LONGEST_PATH},
        [container("a", volumeMounts=MANY_MOUNTS)],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "mount in a pod that mounts the Secret itself",
        [ALL | {"volumeMounts": [FILES_BY_HAND, FILES]}, ALL | {"volumeMounts": [FILES]}],
        {MOUNT: PATH},
        [container("a", volumeMounts=[FILES_BY_HAND]), container("b")],
        volumes=[VOLUME_BY_HAND],
        volumes_after=[VOLUME_BY_HAND],
    ),
    Case(
        "mount at a path where the container mounts the Secret itself",
        [ALL],
        {MOUNT: "/mine"},
        [container("a", volumeMounts=[FILES_BY_HAND])],
        volumes=[VOLUME_BY_HAND],
    ),
    Case(
        "mount in a pod of agent-sandbox",
        [ALL | {"volumeMounts": [FILES]}],
        {MOUNT: PATH},
        volumes_after=[VOLUME],
        labels=SANDBOX,
    ),
    Case(
        "mount in a pod that both selectors match",
        [ALL | {"volumeMounts": [CACHE, FILES]}],
        {MOUNT: PATH},
        [container("a", volumeMounts=[CACHE])],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
        labels=DEVBOX | SANDBOX,
    ),
    Case(
        "mount in thirty containers of a pod with thirty volumes",
        [ALL | {"volumeMounts": [FILES]}] * 30,
        {MOUNT: PATH},
        [container(f"c{number}") for number in range(30)],
        volumes=[{"name": f"v{number}", "emptyDir": {}} for number in range(30)],
        volumes_after=[*({"name": f"v{number}", "emptyDir": {}} for number in range(30)), VOLUME],
    ),
]

CASES = [*ALL_VARIABLES, *NOTHING, *CHOSEN, *MOUNTED]
"""With `injection.as: env`."""

MOUNT_THERE: Json = FILES | {"mountPath": DEFAULT_PATH}
THERE: Json = {"volumeMounts": [MOUNT_THERE]}
RUN: Json = {"name": "cache", "mountPath": "/var/run"}
PART_BY_HAND: Json = {"name": SECRET, "mountPath": "/mine/token", "subPath": "TOKEN"}

FILES_CASES = [
    Case("one container", [THERE], volumes_after=[VOLUME]),
    Case(
        "every container, init container and sidecar, beside their own mounts",
        [{"volumeMounts": [CACHE, MOUNT_THERE]}, THERE],
        containers=[container("a", volumeMounts=[CACHE]), container("b", volumeMounts=[])],
        init=[container("proxy", restartPolicy="Always"), container("setup", volumeMounts=[CACHE])],
        init_after=[THERE, {"volumeMounts": [CACHE, MOUNT_THERE]}],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "the pod's own env and envFrom are kept",
        [THERE, THERE],
        containers=[container("a", env=OWN_ENV, envFrom=[SETTINGS]), container("b", envFrom=BY_HAND)],
        volumes_after=[VOLUME],
    ),
    Case("mount sets another path", [{"volumeMounts": [FILES]}], {MOUNT: PATH}, volumes_after=[VOLUME]),
    Case("env selects variables instead of files", [{"env": BOTH}], TWO),
    Case("env and mount", [{"env": BOTH, "volumeMounts": [FILES]}], {MOUNT: PATH, **TWO}, volumes_after=[VOLUME]),
    Case("inject: true is the default", [THERE], {INJECT: "true"}, volumes_after=[VOLUME]),
    Case("inject: false", [{}], {INJECT: "false"}, init=[container("setup")], init_after=[{}]),
    Case(
        "inject: false, and another mount and volume instead of the files",
        [{}],
        {INJECT: "false"},
        containers=[container("a", volumeMounts=[CACHE | {"mountPath": DEFAULT_PATH}])],
        volumes=[CACHE_VOLUME, {"name": SECRET, "emptyDir": {}}],
    ),
    Case(
        "a pod that mounts the Secret itself",
        [{"volumeMounts": [FILES_BY_HAND, PART_BY_HAND, MOUNT_THERE]}, THERE],
        containers=[container("a", volumeMounts=[FILES_BY_HAND, PART_BY_HAND]), container("b")],
        volumes=[VOLUME_BY_HAND],
        volumes_after=[VOLUME_BY_HAND],
    ),
    Case(
        "a container that mounts the Secret at that path itself",
        [{}],
        containers=[container("a", volumeMounts=[FILES_BY_HAND | {"mountPath": DEFAULT_PATH}])],
        volumes=[VOLUME_BY_HAND],
    ),
    Case(
        "another mount above the files",
        [{"volumeMounts": [RUN, MOUNT_THERE]}],
        containers=[container("a", volumeMounts=[RUN])],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case(
        "the maximum number of mounts and volumes",
        [{"volumeMounts": [*MANY_MOUNTS, MOUNT_THERE]}],
        containers=[container("a", volumeMounts=MANY_MOUNTS)],
        volumes=[CACHE_VOLUME],
        volumes_after=[CACHE_VOLUME, VOLUME],
    ),
    Case("a pod of agent-sandbox", [THERE], volumes_after=[VOLUME], labels=SANDBOX),
    Case("a pod that both selectors match", [THERE], volumes_after=[VOLUME], labels=DEVBOX | SANDBOX),
]
"""With `injection.as: files`."""
