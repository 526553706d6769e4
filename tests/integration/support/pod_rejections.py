"""A table of pods that are rejected, with the messages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from integration.support.chart import DEVBOX, SANDBOX, Json, container
from integration.support.pod_cases import (
    A_HUNDRED,
    CACHE,
    CACHE_VOLUME,
    DEFAULT_PATH,
    ENV,
    INJECT,
    LONGEST_NAME,
    LONGEST_PATH,
    MANY_ANNOTATIONS,
    MANY_ENV_FROM,
    MANY_MOUNTS,
    MOUNT,
    OWN_ENV,
    PATH,
    SECRET,
    TOO_MUCH_ENV,
    TWO,
)


@dataclass(frozen=True)
class Rejection:
    """A rejected pod, and the message for its author."""

    name: str
    annotations: dict[str, str]
    message: str
    containers: Sequence[Json] = (container("a"),)
    init: Sequence[Json] = ()
    volumes: Sequence[Json] = ()
    labels: dict[str, str] = field(default_factory=lambda: DEVBOX)

    @property
    def spec(self) -> Json:
        return {"containers": self.containers, "initContainers": self.init, "volumes": self.volumes}


_INJECT = f'annotation {INJECT} must be "true" (the default) or "false"'
_EMPTY = (
    f'annotation {ENV} is empty; list variables, such as "GITHUB_TOKEN, DB=PROD_DATABASE_URL",'
    f' or set {INJECT}: "false" to get no secrets, or add {MOUNT} to get only files'
)
_PATH = (
    f"annotation {MOUNT} must be an absolute path, such as {PATH},"
    ' without "." or ".." segments, ":", spaces or a trailing "/"'
)

_VOLUME = f"the pod has a volume named {SECRET} that isn't the Secret of that name; rename the volume"
_MANY = f"annotation {ENV} has more than 100 entries; remove it to get all variables of the account"
_LONG = f"annotation {ENV} has more than 60000 characters; remove it to get all variables of the account"
_LARGE = (
    "a devbox can have at most 100 containers, 1000 annotations, and in total 500 entries in envFrom (in env, with the"
    f" annotation {ENV}) and, if files are added, in volumeMounts and volumes; reduce them, or set the annotation"
    f' {INJECT}: "false" to get no secrets'
)
_ADDED = (
    f"annotation {ENV}: 100 entries for each of {{}} containers are more than 300; list fewer, or remove the"
    " annotation to get all variables of the account"
)


def denial_message(text: str) -> str:
    """Return the API server's message after the names of the policy and of its binding."""
    policy = "devbox-secrets-annotations"
    start = rf"pods \"box\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}-[0-9a-f]{{8}}'"
    found = re.fullmatch(rf"{start} denied request: (.*)", text)
    assert found, text
    return found[1]


def _unknown(name: str) -> str:
    return f"unknown annotation {name}; supported are {INJECT}, {ENV} and {MOUNT}"


def _blank(place: int) -> str:
    return (
        f"annotation {ENV}: entry {place} is empty; separate entries with one comma, without a leading or trailing"
        " comma"
    )


def _malformed(place: int) -> str:
    return (
        f"annotation {ENV}: entry {place} is malformed; write VARIABLE or NAME=VARIABLE, such as GITHUB_TOKEN or"
        " DB=PROD_DATABASE_URL, with letters, digits and _, not starting with a digit"
    )


def _twice(name: str) -> str:
    return f"annotation {ENV} contains the name {name} twice; remove one, or rename one with NAME=VARIABLE"


def _taken(name: str, path: str) -> str:
    return f'annotation {MOUNT}: container "{name}" already has a mount at {path} or below it; choose another path'


REJECTED = [
    Rejection("a misspelled annotation", {"devbox-secrets.dev/envs": "A"}, _unknown("devbox-secrets.dev/envs")),
    Rejection("a capital letter", {"devbox-secrets.dev/Env": "A"}, _unknown("devbox-secrets.dev/Env")),
    Rejection("the name of our label", {"devbox-secrets.dev/devbox": "true"}, _unknown("devbox-secrets.dev/devbox")),
    Rejection(
        "a misspelled annotation beside a correct one",
        {"devbox-secrets.dev/mounts": "/a", **TWO},
        _unknown("devbox-secrets.dev/mounts"),
    ),
    *(
        Rejection(f"inject: {value!r}", {INJECT: value}, _INJECT)
        for value in ("", "no", "False", "TRUE", "0", " true", "false\n")
    ),
    *(Rejection(f"env: {value!r}", {ENV: value}, _EMPTY) for value in ("", "  ", "\n")),
    *(
        Rejection(f"env: {value!r}", {ENV: value}, _blank(place))
        for value, place in {",": 1, "A,": 2, ",A": 1, "A,,B": 2, "A, \n,B": 2}.items()
    ),
    *(
        Rejection(f"env: {value!r}", {ENV: value}, _malformed(place))
        for value, place in {
            "1A": 1,
            "A-B": 1,
            "A B": 1,
            "A;B": 1,
            "A, B C": 2,
            "=A": 1,
            "A=": 1,
            "A=B=C": 1,
            "A==B": 1,
            "A: B": 1,
            "A, B, c.d": 3,
            "Ä": 1,
            "A\u00a0": 1,
            '"A"': 1,
            "A=ghp_abc$": 1,
            "A" * 254: 1,
            f"B, A={LONGEST_NAME}_": 2,
            "A" * 60_000: 1,
            "=" * 60_000: 1,
        }.items()
    ),
    Rejection("env: a hundred and one entries", {ENV: ",".join([*A_HUNDRED, "ONE_MORE"])}, _MANY),
    Rejection("env: a hundred commas", {ENV: "A" + "," * 100}, _MANY),
    Rejection("env: 25,000 commas", {ENV: "," * 25_000}, _MANY),
    Rejection("env: 30,000 entries", {ENV: ",".join("A" * 30_000)}, _MANY),
    *(
        Rejection(f"env: a quarter of a megabyte of {character!r}", {ENV: character * 250_000}, _LONG)
        for character in ", A="
    ),
    Rejection("env: one space more than the maximum", {ENV: "A" + " " * 60_000}, _LONG),
    Rejection(
        "env: a hundred entries for four containers",
        {ENV: ",".join(A_HUNDRED)},
        _ADDED.format(4),
        [container(f"c{number}") for number in range(3)],
        [container("setup", env=OWN_ENV)],
    ),
    Rejection(
        "env: a hundred entries for a hundred containers with fifty each",
        {ENV: ",".join(A_HUNDRED)},
        _LARGE,
        [container(f"c{number}", env=TOO_MUCH_ENV[:50]) for number in range(100)],
    ),
    Rejection("env: a repeated name", {ENV: "A, B, A"}, _twice("A")),
    Rejection("env: a repeated new name", {ENV: "A=B,A = C"}, _twice("A")),
    Rejection("env: a new name that another entry has", {ENV: "B, B=C"}, _twice("B")),
    *(
        Rejection(f"mount: {value!r}", {MOUNT: value}, _PATH)
        for value in (
            "",
            "/",
            "run/secrets",
            "./run",
            "~/secrets",
            "/run/secrets/",
            "//run",
            "/run//secrets",
            "/run/../etc",
            "/..",
            "/run/.",
            "/./run",
            "/a:b",
            "/a b",
            " /a",
            "/a\n",
            "C:\\secrets",
        )
    ),
    *(
        Rejection(
            f"mount: {path} of {who} is in use",
            {MOUNT: "/cache"},
            _taken(who, "/cache"),
            [container("a"), container("b", volumeMounts=[CACHE | {"mountPath": path}] if who == "b" else [])],
            [container("setup", volumeMounts=[CACHE | {"mountPath": path}] if who == "setup" else [])],
            [CACHE_VOLUME],
        )
        for who, path in (("b", "/cache"), ("b", "/cache/"), ("b", "/cache/pip"), ("setup", "/cache"))
    ),
    Rejection(
        "mount: another volume with our name",
        {MOUNT: PATH},
        _VOLUME,
        volumes=[{"name": SECRET, "emptyDir": {}}],
    ),
    *(
        Rejection(f"mount: a quarter of a megabyte of {part!r}", {MOUNT: part * (250_000 // len(part))}, _PATH)
        for part in ("/", "/a", "a")
    ),
    Rejection("mount: one character more than the maximum", {MOUNT: f"{LONGEST_PATH}aa"}, _PATH),
    Rejection("1,001 annotations", {**MANY_ANNOTATIONS, INJECT: "true", MOUNT: PATH}, _LARGE),
    Rejection("101 containers", {}, _LARGE, [container(f"c{n}") for n in range(100)], [container("setup")]),
    Rejection("501 envFrom entries", {}, _LARGE, [container("a", envFrom=[*MANY_ENV_FROM, MANY_ENV_FROM[0]])]),
    Rejection(
        "env, and 501 env entries",
        TWO,
        _LARGE,
        [container("a", env=TOO_MUCH_ENV[:250]), container("b", env=TOO_MUCH_ENV[250:])],
    ),
    Rejection(
        "mount, and 501 mounts, volumes and envFrom entries",
        {MOUNT: PATH},
        _LARGE,
        [container("a", volumeMounts=MANY_MOUNTS, envFrom=MANY_ENV_FROM[:2])],
        volumes=[CACHE_VOLUME],
    ),
    Rejection("a malformed annotation beside inject: false", {INJECT: "false", MOUNT: "here"}, _PATH),
    Rejection("a pod of agent-sandbox", {ENV: "A,"}, _blank(2), labels=SANDBOX),
    Rejection("a pod that both selectors match", {ENV: "A,"}, _blank(2), labels=DEVBOX | SANDBOX),
]
"""With `injection.as: env`."""

FILES_REJECTED = [
    Rejection("a misspelled annotation", {"devbox-secrets.dev/envs": "A"}, _unknown("devbox-secrets.dev/envs")),
    Rejection("an empty env", {ENV: ""}, _EMPTY),
    Rejection("a malformed path", {MOUNT: "here"}, _PATH),
    *(
        Rejection(
            f"{path} is in use",
            {},
            _taken("a", DEFAULT_PATH),
            [container("a", volumeMounts=[CACHE | {"mountPath": path}])],
            volumes=[CACHE_VOLUME],
        )
        for path in (DEFAULT_PATH, f"{DEFAULT_PATH}/", f"{DEFAULT_PATH}/pip")
    ),
    Rejection("another volume with our name", {}, _VOLUME, volumes=[{"name": SECRET, "emptyDir": {}}]),
    Rejection(
        "501 mounts and volumes",
        {},
        _LARGE,
        [container("a", volumeMounts=MANY_MOUNTS[:250]), container("b", volumeMounts=MANY_MOUNTS[250:])],
        [container("setup", volumeMounts=[CACHE, CACHE | {"mountPath": "/other"}])],
        [CACHE_VOLUME],
    ),
    Rejection("101 containers", {}, _LARGE, [container(f"c{n}") for n in range(100)], [container("setup")]),
]
"""With `injection.as: files`."""
