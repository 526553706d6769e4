"""Computes the JSON patch that injects secrets into a devbox's pod. Pure.

The rules are those of the chart's injection policy: the tests run the same table of cases through both. The policy
devbox-secrets-annotations rejects invalid annotations; here they only add nothing.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from devbox_secrets.api.names import (
    ACCOUNT_SECRET,
    ENV_ANNOTATION,
    FILES_PATH,
    INJECT_ANNOTATION,
    MOUNT_ANNOTATION,
)

Operation = dict[str, Any]
"""One operation of a JSON patch (RFC 6902); all of ours are `add`."""

# CEL's whitespace; Python's \s matches more.
_SPACE = r"[\t\n\f\r ]*"
_NAME = rf"{_SPACE}[A-Za-z_][A-Za-z0-9_]{{0,252}}{_SPACE}"
_ENTRIES = re.compile(rf"{_NAME}(={_NAME})?(,{_NAME}(={_NAME})?)*")
# The policy's limits; the chart's helpers explain them.
_MOST_ENTRIES = 100
_MOST_CHARACTERS = 60_000
_MOST_ADDED = 300
_MOST_OF_PATH = 4095
_MOST_CONTAINERS = 100
_MOST_ANNOTATIONS = 1_000
_MOST_ITEMS = 500
_PATH = re.compile(r"(/[^/: \x00-\x1f\x7f]+)+")
#: Devboxes run as any user, and without an fsGroup files belong to root, so every user in the pod may read them.
_FILE_MODE = 0o444


class _Part(BaseModel):
    # Fields that aren't declared, above all variables' values, aren't kept.
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, hide_input_in_errors=True)


class _Named(_Part):
    name: str = ""


class _EnvFrom(_Part):
    secret_ref: _Named = _Named()


class _VolumeMount(_Part):
    mount_path: str


class _Container(_Part):
    env: Sequence[_Named] | None = None
    env_from: Sequence[_EnvFrom] | None = None
    volume_mounts: Sequence[_VolumeMount] | None = None


class _Metadata(_Part):
    annotations: dict[str, str] = {}


class _Spec(_Part):
    containers: Sequence[_Container]
    init_containers: Sequence[_Container] = ()
    volumes: Sequence[_Named] | None = None


class Pod(_Part):
    """The fields of a pod that the rules use."""

    metadata: _Metadata
    spec: _Spec

    @property
    def containers(self) -> Iterator[tuple[str, _Container]]:
        """Every container and init container, with its path."""
        for kind, containers in (("containers", self.spec.containers), ("initContainers", self.spec.init_containers)):
            for number, container in enumerate(containers):
                yield f"/spec/{kind}/{number}", container


def patch(pod: Pod, *, optional: bool, as_files: bool) -> list[Operation]:
    """Return the operations that inject secrets into a pod.

    With `optional`, the pod also starts without its secrets. With `as_files`, it gets files instead of all variables,
    unless its annotations say otherwise.

    Nothing is added twice: a container may already have it, because its author added it or another selector matched.
    """
    annotations = pod.metadata.annotations
    as_files = as_files and ENV_ANNOTATION not in annotations
    mount_path = annotations.get(MOUNT_ANNOTATION, FILES_PATH if as_files else None)
    if annotations.get(INJECT_ANNOTATION) == "false" or not _fits(pod, has_files=mount_path is not None):
        return []
    added: list[Operation] = []
    if ENV_ANNOTATION in annotations:
        entries = _entries(annotations[ENV_ANNOTATION], optional=optional)
        if len(entries) * len(list(pod.containers)) > _MOST_ADDED:
            entries = []
        added = [each for path, own in pod.containers for each in _chosen(path, own, entries)]
    elif not as_files:
        added = [each for path, own in pod.containers for each in _all(path, own, optional=optional)]
    if mount_path and len(mount_path) <= _MOST_OF_PATH and _PATH.fullmatch(mount_path):
        added += _files(pod, mount_path, optional=optional)
    return added


def _fits(pod: Pod, *, has_files: bool) -> bool:
    """Return whether a pod is within the limits of a devbox; otherwise it is rejected."""
    annotations, containers = pod.metadata.annotations, [own for _, own in pod.containers]
    lists: list[Sequence[object] | None] = [
        own.env if ENV_ANNOTATION in annotations else own.env_from for own in containers
    ]
    if has_files:
        lists += [pod.spec.volumes, *(own.volume_mounts for own in containers)]
    return (
        len(annotations) <= _MOST_ANNOTATIONS
        and len(containers) <= _MOST_CONTAINERS
        and sum(len(each or ()) for each in lists) <= _MOST_ITEMS
    )


def _all(path: str, own: _Container, *, optional: bool) -> Iterator[Operation]:
    """Add all variables, at the start of envFrom, so that the pod's own envFrom and env take precedence."""
    if all(each.secret_ref.name != ACCOUNT_SECRET for each in own.env_from or ()):
        entry = {"secretRef": {"name": ACCOUNT_SECRET, "optional": optional}}
        yield _into(f"{path}/envFrom", own.env_from, entry, "0")


def _entries(text: str, *, optional: bool) -> list[dict[str, Any]]:
    """Return the entries of env that an annotation requests; none if it is malformed."""
    if len(text) > _MOST_CHARACTERS or not _ENTRIES.fullmatch(text):
        return []
    parts = [[part.strip() for part in entry.split("=")] for entry in text.split(",")]
    names = [part[0] for part in parts]
    if len(names) > _MOST_ENTRIES or len(set(names)) < len(names):
        return []
    return [
        {
            "name": part[0],
            "valueFrom": {"secretKeyRef": {"name": ACCOUNT_SECRET, "key": part[-1], "optional": optional}},
        }
        for part in parts
    ]


def _chosen(path: str, own: _Container, entries: list[dict[str, Any]]) -> Iterator[Operation]:
    """Add some variables, at the start of env, so that the container's own can refer to them and take precedence."""
    names = {each.name for each in own.env or ()}
    new = [entry for entry in entries if entry["name"] not in names]
    if own.env is None and new:
        yield _add(f"{path}/env", new)
    else:
        yield from (_add(f"{path}/env/{number}", entry) for number, entry in enumerate(new))


def _files(pod: Pod, mount_path: str, *, optional: bool) -> Iterator[Operation]:
    """Add the files to every container that has no mount at that path."""
    mount = {"name": ACCOUNT_SECRET, "mountPath": mount_path, "readOnly": True}
    for path, own in pod.containers:
        if all(each.mount_path != mount_path for each in own.volume_mounts or ()):
            yield _into(f"{path}/volumeMounts", own.volume_mounts, mount, "-")
    if all(each.name != ACCOUNT_SECRET for each in pod.spec.volumes or ()):
        secret = {"secretName": ACCOUNT_SECRET, "defaultMode": _FILE_MODE, "optional": optional}
        yield _into("/spec/volumes", pod.spec.volumes, {"name": ACCOUNT_SECRET, "secret": secret}, "-")


def _into(path: str, present: Sequence[object] | None, entry: object, place: str) -> Operation:
    """Add an entry to a list, which must be created if it doesn't exist."""
    return _add(path, [entry]) if present is None else _add(f"{path}/{place}", entry)


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}
