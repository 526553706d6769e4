"""The webhook's rules without an API server: the tables that it shares with the policy, and cases of its own."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from devbox_secrets.webhook.injection import Operation, Pod, patch
from integration.support.chart import Json, container, pod
from integration.support.pod_cases import CASES, ENV, FILES_CASES, INJECT, MOUNT, Case
from integration.support.pod_rejections import FILES_REJECTED, REJECTED, Rejection

CANARY = "canary-7d21"


def patched(manifest: Json, *, optional: bool, as_files: bool) -> Json:
    """Apply the patch for a manifest, which contains only the operation `add` of RFC 6902."""
    result: Json = json.loads(json.dumps(manifest))
    for operation in patch(Pod.model_validate(manifest), optional=optional, as_files=as_files):
        assert operation.keys() == {"op", "path", "value"}
        assert operation["op"] == "add"
        _add(result, operation)
    return result


def _add(document: Any, operation: Operation) -> None:  # noqa: ANN401 - any JSON
    *parents, last = operation["path"].removeprefix("/").split("/")
    for name in parents:
        document = document[int(name)] if isinstance(document, list) else document[name]
    if isinstance(document, list):
        document.insert(len(document) if last == "-" else int(last), operation["value"])
    else:
        assert last not in document, "an existing list would be replaced"
        document[last] = operation["value"]


def manifest_of(case: Case | Rejection) -> Json:
    """Return the pod with lists that can be added to; as the API server, without those that are empty."""
    spec = {kind: [dict(each) for each in found] for kind, found in case.spec.items() if found}
    return pod(spec, case.labels, case.annotations)


TABLES = [
    pytest.param(case, as_files, id=f"{'files' if as_files else 'env'}: {case.name}")
    for as_files, cases in ((False, CASES), (True, FILES_CASES))
    for case in cases
]


@pytest.mark.parametrize("optional", [True, False], ids=["optional", "required"])
@pytest.mark.parametrize(("case", "as_files"), TABLES)
def test_a_devbox_gets_what_it_should_and_is_otherwise_unchanged(case: Case, as_files: bool, optional: bool) -> None:
    manifest = manifest_of(case)
    expected = manifest | {"spec": case.applied_to(manifest["spec"], optional=optional)}
    assert patched(manifest, optional=optional, as_files=as_files) == expected


@pytest.mark.parametrize(("case", "as_files"), TABLES)
def test_injecting_a_second_time_adds_nothing(case: Case, as_files: bool) -> None:
    once = patched(manifest_of(case), optional=True, as_files=as_files)
    assert patch(Pod.model_validate(once), optional=True, as_files=as_files) == []


#: The other rejections concern files, or only the policy makes them.
NOTHING_FOR = [
    (case, as_files)
    for as_files, cases in ((False, REJECTED), (True, FILES_REJECTED))
    for case in cases
    if case.annotations.keys() == {ENV} or case.message.startswith("a devbox can have at most")
]
NO_PATHS = [
    "",
    "/",
    "run/secrets",
    "/run/secrets/",
    "//run",
    "/a:b",
    "/a b",
    " /a",
    "/a\n",
    "/a\x1f",
    "C:\\secrets",
    "/a" * 2_048,
]


@pytest.mark.parametrize(("case", "as_files"), NOTHING_FOR, ids=lambda it: getattr(it, "name", ""))
def test_nothing_is_added_for_a_malformed_env_or_too_many_entries(case: Rejection, as_files: bool) -> None:
    assert patch(Pod.model_validate(manifest_of(case)), optional=True, as_files=as_files) == []


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_without_a_valid_path_in_mount_there_are_no_files(path: str) -> None:
    annotated = Pod.model_validate(pod({"containers": [container("a")]}, {}, {MOUNT: path}))
    added = patch(annotated, optional=True, as_files=False)
    assert [each["path"] for each in added] == ["/spec/containers/0/envFrom"]
    assert patch(annotated, optional=True, as_files=True) == []


def test_white_space_that_the_policy_rejects_is_malformed() -> None:
    for space in ("\v", "\x1c", "\u00a0", "\u2003"):
        annotated = pod({"containers": [container("a")]}, {}, {ENV: f"A,{space}B"})
        assert patch(Pod.model_validate(annotated), optional=True, as_files=False) == []


def test_a_pod_s_values_are_neither_kept_nor_repeated_in_an_error() -> None:
    env = [{"name": "OWN", "value": CANARY}]
    good = pod({"containers": [container("a", env=env, command=[CANARY])]}, {"label": CANARY})
    assert CANARY not in repr(Pod.model_validate(good))
    for bad in (good | {"spec": CANARY}, good | {"metadata": {"annotations": {INJECT: [CANARY]}}}, CANARY):
        with pytest.raises(ValidationError) as error:
            Pod.model_validate(bad)
        assert CANARY not in str(error.value)
