"""The API server and the user: from the kubeconfig, from options or from the pod, and the errors without them."""

from pathlib import Path

import pytest
import yaml

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube import config
from devbox_secrets.kube.config import ClientConfig

KUBECONFIG = {
    "current-context": "dev",
    "contexts": [
        {"name": "dev", "context": {"cluster": "one", "user": "me", "namespace": "team-a"}},
        {"name": "prod", "context": {"cluster": "two", "user": "other"}},
    ],
    "clusters": [
        {"name": "one", "cluster": {"server": "https://one.example"}},
        {"name": "two", "cluster": {"server": "https://two.example"}},
    ],
    "users": [
        {"name": "me", "user": {"token": "t"}},
        {"name": "other", "user": {"token": "t", "as": "jane", "as-groups": ["dev"], "as-uid": "1"}},
    ],
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the kubeconfigs and the pod of this machine; return the path of the default kubeconfig."""
    path = tmp_path / ".kube" / "config"
    path.parent.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config, "_SERVICE_ACCOUNT", tmp_path / "serviceaccount")
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a pod; return the folder of its ServiceAccount."""
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("of-the-pod")
    (account / "namespace").write_text("its-namespace\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return account


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(KUBECONFIG | changes))
    return path


@pytest.mark.parametrize(
    ("context", "server", "namespace"),
    [(None, "https://one.example", "team-a"), ("prod", "https://two.example", "default")],
)
def test_the_context_determines_the_cluster_and_the_namespace(
    home: Path, context: str | None, server: str, namespace: str
) -> None:
    it = ClientConfig(write(home.with_name("other")), context)
    assert (it.target().cluster.server, it.namespace()) == (server, namespace)
    write(home)
    assert ClientConfig(context=context).target().cluster.server == server


def test_the_files_are_read_once(home: Path) -> None:
    # Some can't be read twice, such as a shell's <(…).
    it = ClientConfig(write(home))
    assert it.namespace() == "team-a"
    home.unlink()
    assert it.target().cluster.server == "https://one.example"


@pytest.mark.parametrize(
    ("context", "options", "want"),
    [
        ("dev", {}, ("", (), "")),
        ("dev", {"as_user": "joe"}, ("joe", (), "")),
        ("dev", {"as_user": "joe", "as_groups": ("a", "b"), "as_uid": "7"}, ("joe", ("a", "b"), "7")),
        ("prod", {}, ("jane", ("dev",), "1")),
        ("prod", {"as_user": "joe"}, ("joe", ("dev",), "1")),
        ("prod", {"as_groups": ("ops",)}, ("jane", ("ops",), "1")),
        ("prod", {"as_user": ""}, ("jane", ("dev",), "1")),
    ],
)
def test_options_for_impersonation_override_the_kubeconfig(
    home: Path, context: str, options: dict[str, object], want: tuple[object, ...]
) -> None:
    user = ClientConfig(write(home), context, **options).target().user  # type: ignore[arg-type]  # a table
    assert (user.as_, user.as_groups, user.as_uid) == want


@pytest.mark.parametrize("options", [{"as_groups": ("ops",)}, {"as_uid": "1"}])
def test_a_group_or_uid_without_a_user_is_an_error(home: Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        ClientConfig(write(home), **options).target()  # type: ignore[arg-type]  # a table
    assert str(caught.value) == "--as-group and --as-uid require --as"


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_inside_a_cluster_the_pod_s_own_account_is_used(
    pod: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    target = ClientConfig(as_user="jane").target()
    assert (target.name, target.cluster.server) == ("the pod's ServiceAccount", server)
    assert (target.user.token_file, target.user.as_) == (str(pod / "token"), "jane")
    assert target.cluster.certificate_authority == str(pod / "ca.crt")
    assert ClientConfig().namespace() == "its-namespace"
    (pod / "namespace").unlink()
    assert ClientConfig().namespace() == "default"
    monkeypatch.setenv("POD_NAMESPACE", "given")
    assert ClientConfig().namespace() == "given"


@pytest.mark.parametrize("content", ["", "apiVersion: v1\nkind: Config\n"])
def test_inside_a_cluster_an_empty_kubeconfig_is_ignored(pod: Path, home: Path, content: str) -> None:
    home.write_text(content)
    assert ClientConfig().target().name == "the pod's ServiceAccount"


def test_inside_a_cluster_a_kubeconfig_takes_precedence(pod: Path, home: Path) -> None:
    write(home)
    assert ClientConfig().target().cluster.server == "https://one.example"
    assert ClientConfig().namespace() == "team-a"
    # As with kubectl.
    assert ClientConfig(context="prod").namespace() == "its-namespace"
    with pytest.raises(ConfigError, match="no context gone"):
        ClientConfig(context="gone").target()


@pytest.mark.parametrize(
    ("variable", "tried_paths"),
    [
        (None, "{home}"),
        ("", "{home}"),
        ("/missing/a", "/missing/a (KUBECONFIG)"),
        ("/missing/a::/missing/b", "/missing/a, /missing/b (KUBECONFIG)"),
    ],
)
def test_the_error_without_any_kubeconfig_says_what_was_tried_and_what_to_pass(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, tried_paths: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("KUBECONFIG", variable)
    tried = f"there is no kubeconfig at {tried_paths.format(home=home)}, and this isn't a pod with a ServiceAccount"
    with pytest.raises(ConfigError) as caught:
        ClientConfig().target()
    assert str(caught.value) == f"no cluster to connect to: {tried}; pass --kubeconfig"
    with pytest.raises(ConfigError) as caught:
        ClientConfig().namespace()
    assert str(caught.value) == f"no account given: {tried}; pass --account or --kubeconfig"


def test_the_error_without_a_home_folder_names_the_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(ConfigError) as caught:
        ClientConfig().target()
    assert str(caught.value).startswith("no cluster to connect to: there is no kubeconfig at ~/.kube/config, and")


def test_a_kubeconfig_without_a_current_context_is_an_error(home: Path) -> None:
    write(home, **{"current-context": ""})
    with pytest.raises(ConfigError) as caught:
        ClientConfig().target()
    assert (
        str(caught.value)
        == f"no cluster to connect to: {home} has no current-context; pass --context, one of: dev, prod"
    )
    with pytest.raises(ConfigError) as caught:
        ClientConfig().namespace()
    assert (
        str(caught.value)
        == f"no account given: {home} has no current-context; pass --account or --context, one of: dev, prod"
    )


async def test_a_session_sends_credentials_and_a_user_agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    server, session = await config.session([])
    async with session:
        assert server == "https://one.example"
        assert session.headers["Authorization"] == "Bearer t"
        assert session.headers["User-Agent"] == "devbox-secrets"


async def test_a_session_does_not_support_tls_server_name(home: Path) -> None:
    write(home, clusters=[{"name": "one", "cluster": {"server": "https://one.example", "tls-server-name": "two"}}])
    with pytest.raises(ConfigError, match="tls-server-name"):
        await config.session([])
