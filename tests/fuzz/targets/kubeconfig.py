"""Kubeconfigs: an accepted one names an API server and a user, and no error repeats a credential."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig import Kubeconfig, Target

#: The credentials in the corpus.
CANARY = "canary-1234"
#: What YAML reads as a line break, also in a name that an error repeats.
_LINE_BREAK = re.compile(rb"[\n\r\\]|\xc2\x85")
#: A file in memory, so that no files are left behind.
_FILE = os.memfd_create("kubeconfig")
_PATH = Path(f"/proc/self/fd/{_FILE}")


def check(data: bytes) -> None:
    """Check one file."""
    os.ftruncate(_FILE, 0)
    os.pwrite(_FILE, data, 0)
    try:
        found = Kubeconfig.read(_PATH)
    except ConfigError as error:
        _check_message(str(error), data)
        return
    for name in found.contexts:
        try:
            chosen = found.choose(name)
            if chosen:
                _check_target(found.target(*chosen))
        except ConfigError as error:
            _check_message(str(error), data)


def _check_message(message: str, data: bytes) -> None:
    assert "\n" not in message or _LINE_BREAK.search(data)
    if CANARY not in message:
        return
    content = next(iter(yaml.safe_load_all(data)), None)
    assert CANARY in _names(content), "an error repeats a credential"


def _names(content: object) -> str:
    """Return what an error may repeat: the names of entries and fields."""
    if not isinstance(content, dict):
        return ""
    entries = [each for kind in ("clusters", "users", "contexts") for each in content.get(kind) or ()]
    contexts = [each.get("context") or {} for each in entries if isinstance(each, dict)]
    named = [each.get("name") for each in entries if isinstance(each, dict)]
    return repr([content.get("current-context"), named, contexts, _keys(content)])


def _keys(content: object) -> list[object]:
    if isinstance(content, dict):
        return [*content, *(key for value in content.values() for key in _keys(value))]
    return [key for each in content for key in _keys(each)] if isinstance(content, list) else []


def _check_target(target: Target) -> None:
    cluster, user = target.cluster, target.user
    url = urlsplit(cluster.server)
    assert url.scheme in {"http", "https"}
    assert url.hostname
    assert url.username is None
    assert not (cluster.insecure_skip_tls_verify and cluster.certificate_authority_data)
    credentials = [
        bool(user.token or user.token_file),
        bool(user.username),
        bool(user.client_certificate or user.client_certificate_data),
        user.exec is not None,
    ]
    assert any(credentials) is (url.scheme == "https"), "credentials for cleartext, or none for TLS"
    assert sum(credentials[:2]) < 2
    assert user.as_ or not (user.as_uid or user.as_groups or user.as_user_extra)
    paths = [user.token_file, user.client_certificate, user.client_key, cluster.certificate_authority]
    assert all(os.path.isabs(path) for path in paths if path)  # noqa: PTH117 - a string
