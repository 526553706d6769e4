"""Kubeconfigs, merged as kubectl does: which files are read, what a context selects, and what is rejected."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig_file import Cluster, Context, ExecPlugin, Fields, User, read_file
from devbox_secrets.kube.proxies import is_http_url

_T = TypeVar("_T")
_VARIABLE = "KUBECONFIG"
_IMPERSONATION = ("as_", "as_uid", "as_groups", "as_user_extra")


@dataclass(frozen=True)
class Target:
    """An API server and a user; paths are absolute."""

    name: str
    """The source, for messages: `context dev`."""
    cluster: Cluster
    user: User


@dataclass(frozen=True)
class Kubeconfig:
    """The merged files."""

    files: tuple[Path, ...]
    """The files that exist."""
    looked_for: str
    """Where files were looked for, for messages."""
    current_context: str
    contexts: Mapping[str, Context]
    clusters: Mapping[str, Cluster]
    users: Mapping[str, User]

    @classmethod
    def read(cls, file: Path | None = None) -> Self:
        """Read the file, or those in the variable KUBECONFIG, or ~/.kube/config; missing ones are ignored.

        Of several entries with the same name, the first file's is used.

        Raises:
            ConfigError: a file can't be read or is invalid.
        """
        named = os.environ.get(_VARIABLE, "")
        paths = [Path(each) for each in named.split(os.pathsep) if each] or [_home() / ".kube" / "config"]
        found = [(path, read_file(path)) for path in ([file] if file else paths)]
        if file and found[0][1] is None:
            raise ConfigError(f"the kubeconfig {file} doesn't exist")
        read = {path: content for path, content in found if content is not None}
        where = ", ".join(map(str, paths)) + (f" ({_VARIABLE})" if named else "")
        backwards = list(reversed(read.items()))  # what comes later replaces what came before
        return cls(
            files=tuple(read),
            looked_for=str(file or where),
            current_context=next((each.current_context for each in read.values() if each.current_context), ""),
            contexts={each.name: each.context for _, content in backwards for each in content.contexts},
            clusters={
                each.name: _located(each.cluster, path) for path, content in backwards for each in content.clusters
            },
            users={each.name: _located_user(each.user, path) for path, content in backwards for each in content.users},
        )

    def choose(self, context: str | None) -> tuple[str, Context] | None:
        """Return the context with that name, or the current one; None if there is neither.

        Raises:
            ConfigError: there is no such context.
        """
        name = context or self.current_context
        if not name:
            return None
        if name not in self.contexts:
            known = f"pass --context, one of: {', '.join(sorted(self.contexts))}" if self.contexts else "it has none"
            raise ConfigError(f"there is no context {name} in {self._where}; {known}")
        return name, self.contexts[name]

    def target(self, name: str, context: Context) -> Target:
        """Return the context's API server and user.

        Raises:
            ConfigError: one of them is missing, or its fields are contradictory or unsupported.
        """
        cluster = self._entry(name, "cluster", context.cluster, self.clusters)
        if problem := _cluster_problem(cluster):
            raise ConfigError(f"the cluster {context.cluster} in {self._where} {problem}")
        # Credentials are never sent in cleartext; a server such as kubectl proxy has its own.
        is_secure = cluster.server.lower().startswith("https:")
        if is_secure:
            user = self._entry(name, "user", context.user, self.users)
        else:
            user = self.users.get(context.user, User())
        if problem := _user_problem(user, is_secure=is_secure):
            raise ConfigError(f"the user {context.user} in {self._where} {problem}")
        if not is_secure:
            user = User(**{field: getattr(user, field) for field in _IMPERSONATION})
        return Target(f"context {name}", cluster, user)

    def _entry(self, name: str, kind: str, wanted: str, found: Mapping[str, _T]) -> _T:
        if not wanted:
            raise ConfigError(f"the context {name} in {self._where} names no {kind}")
        if wanted not in found:
            raise ConfigError(f"the context {name} names the {kind} {wanted}, which isn't in {self._where}")
        return found[wanted]

    @property
    def _where(self) -> str:
        return ", ".join(map(str, self.files)) or self.looked_for


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry in /etc/passwd, as in a container
        return Path("~")


def _located(cluster: Cluster, file: Path) -> Cluster:
    return cluster.model_copy(update=_absolute(file, cluster, "certificate_authority"))


def _located_user(user: User, file: Path) -> User:
    update: dict[str, object] = {**_absolute(file, user, "client_certificate", "client_key", "token_file")}
    if user.exec and os.sep in user.exec.command:
        update["exec"] = user.exec.model_copy(update=_absolute(file, user.exec, "command"))
    return user.model_copy(update=update)


def _absolute(file: Path, fields: Fields, *names: str) -> dict[str, str]:
    """Resolve relative paths against the directory of the file that contains them."""
    folder = file.absolute().parent
    return {name: os.path.normpath(folder / path) for name in names if (path := getattr(fields, name))}


def _cluster_problem(cluster: Cluster) -> str | None:
    authority = cluster.certificate_authority or cluster.certificate_authority_data
    return _first(
        (
            not is_http_url(cluster.server) or bool(set("?#@") & set(cluster.server)),
            "has no valid server URL, such as https://example.com:6443",
        ),
        (
            bool(cluster.proxy_url) and not is_http_url(cluster.proxy_url),
            "has a proxy-url that isn't supported; only http:// and https:// are",
        ),
        (
            bool(cluster.certificate_authority and cluster.certificate_authority_data),
            "has both certificate-authority and certificate-authority-data",
        ),
        (
            bool(cluster.insecure_skip_tls_verify and authority),
            "has both insecure-skip-tls-verify and a certificate authority",
        ),
    )


def _user_problem(user: User, *, is_secure: bool) -> str | None:
    certificate, key = (user.client_certificate, user.client_certificate_data), (user.client_key, user.client_key_data)
    token, password = user.token or user.token_file, user.username or user.password
    impersonates = user.as_uid or user.as_groups or user.as_user_extra
    return _first(
        (user.auth_provider is not None, "uses an auth-provider, which isn't supported; use an exec plugin"),
        (bool(token and password), "has both a token and a password"),
        (all(certificate) or all(key), "has a client certificate or key both as a file and as data"),
        (any(certificate) and not any(key), "has a client certificate without its key"),
        (bool(impersonates and not user.as_), "has as-uid, as-groups or as-user-extra without as"),
        *(_exec_problems(user.exec) if user.exec else ()),
        (is_secure and not (token or user.username or any(certificate) or user.exec), "has no credentials"),
    )


def _exec_problems(plugin: ExecPlugin) -> tuple[tuple[bool, str], ...]:
    version = plugin.api_version.removeprefix("client.authentication.k8s.io/")
    return (
        (not plugin.command, "has an exec plugin without a command"),
        (
            version not in {"v1", "v1beta1"} or version == plugin.api_version,
            "has an exec plugin whose apiVersion isn't client.authentication.k8s.io/v1 or v1beta1",
        ),
        (version == "v1" and not plugin.interactive_mode, "has an exec plugin without interactiveMode"),
        (
            not all(re.fullmatch(r"[^=\0]+", each.name) for each in plugin.env),
            "has an exec plugin with an invalid environment variable name",
        ),
    )


def _first(*problems: tuple[bool, str]) -> str | None:
    return next((sentence for is_so, sentence in problems if is_so), None)
