"""Which proxy the environment variables select, as with Go's net/http, which kubectl uses."""

import pytest

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.proxies import proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "server", "proxy"),
    [
        ({}, "https://a.example", None),
        ({"HTTPS_PROXY": PROXY}, "https://a.example", PROXY),
        ({"https_proxy": PROXY}, "https://a.example", PROXY),
        ({"HTTPS_PROXY": "", "https_proxy": PROXY}, "https://a.example", PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://other"}, "https://a.example", PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https://a.example", PROXY),
        ({"HTTPS_PROXY": "https://user:word@proxy"}, "https://a.example", "https://user:word@proxy"),
        ({"HTTP_PROXY": PROXY}, "https://a.example", None),
        ({"HTTP_PROXY": PROXY}, "http://a.example", PROXY),
        ({"ALL_PROXY": PROXY}, "https://a.example", None),
        # Servers on this machine.
        ({"HTTPS_PROXY": PROXY}, "https://localhost:6443", None),
        ({"HTTPS_PROXY": PROXY}, "https://127.0.0.1:6443", None),
        ({"HTTPS_PROXY": PROXY}, "https://127.9.9.9", None),
        ({"HTTPS_PROXY": PROXY}, "https://[::1]:6443", None),
        ({"HTTPS_PROXY": PROXY}, "https://localhost.example", PROXY),
    ],
)
def test_the_variable_of_the_scheme_selects_the_proxy(environ: dict[str, str], server: str, proxy: str | None) -> None:
    assert proxy_for(server, environ) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "server", "direct"),
    [
        ("*", "https://a.example", True),
        ("", "https://a.example", False),
        ("a.example", "https://a.example", True),
        ("A.Example", "https://a.EXAMPLE", True),
        ("a.example", "https://b.a.example", True),
        ("a.example", "https://ba.example", False),
        ("example", "https://a.example.", True),
        (".a.example", "https://b.a.example", True),
        (".a.example", "https://a.example", False),
        ("*.a.example", "https://b.a.example", True),
        ("*.a.example", "https://a.example", False),
        ("x, ,a.example", "https://a.example", True),
        ("a.example:443", "https://a.example", True),
        ("a.example:6443", "https://a.example:6443", True),
        ("a.example:443", "https://a.example:6443", False),
        ("10.0.0.1", "https://10.0.0.1:6443", True),
        ("10.0.0.1:6443", "https://10.0.0.1:6443", True),
        ("10.0.0.1:443", "https://10.0.0.1:6443", False),
        ("0.0.1", "https://10.0.0.1", False),
        ("10.0.0.0/8", "https://10.9.9.9:6443", True),
        ("10.0.0.7/8", "https://10.9.9.9:6443", True),
        ("10.0.0.0/16", "https://10.9.9.9", False),
        ("10.0.0.0/8", "https://a.example", False),
        ("10.0.0.0/8", "https://10.a.example", False),
        ("10.0.0.0/99", "https://10.0.0.1", False),
        ("fd00::/8", "https://[fd00::1]:6443", True),
        ("10.0.0.0/8", "https://[fd00::1]", False),
        ("fd00::1", "https://[fd00::1]:6443", True),
        ("[fd00::1]:6443", "https://[fd00::1]:6443", True),
        ("[fd00::1]:443", "https://[fd00::1]:6443", False),
        (":443", "https://a.example", False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    name: str, no_proxy: str, server: str, direct: bool
) -> None:
    assert proxy_for(server, {"HTTPS_PROXY": PROXY, name: no_proxy}) == (None if direct else PROXY)


@pytest.mark.parametrize(
    "proxy", ["socks5://user:canary@proxy", " http://canary", "http://[canary", "canary:99999", "://", "http://"]
)
def test_a_proxy_that_is_not_supported_is_rejected_without_showing_its_password(proxy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        proxy_for("https://a.example", {"HTTPS_PROXY": proxy})
    assert str(caught.value) == "the proxy in HTTPS_PROXY isn't supported; only http:// and https:// are"
