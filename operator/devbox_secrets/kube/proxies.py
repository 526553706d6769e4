"""Chooses the proxy for a server from the environment, as Go's net/http and kubectl do."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from devbox_secrets.errors import ConfigError

_PORTS = {"http": 80, "https": 443}
_Address = IPv4Address | IPv6Address


def proxy_for(server: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the proxy's URL, or None for a direct connection, which local servers always get.

    Raises:
        ConfigError: a proxy of that kind isn't supported.
    """
    url = urlsplit(server)
    variable = f"{url.scheme}_proxy"
    proxy, host = _read(environ, variable), (url.hostname or "").rstrip(".")
    address = _address(host)
    if not proxy or host == "localhost" or (address and address.is_loopback):
        return None
    port = str(url.port or _PORTS[url.scheme])
    if any(_matches(each.strip().lower(), host, address, port) for each in _read(environ, "no_proxy").split(",")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not is_http_url(proxy):
        raise ConfigError(f"the proxy in {variable.upper()} isn't supported; only http:// and https:// are")
    return proxy


def is_http_url(text: str) -> bool:
    """Return whether a text is an http or https URL that one can connect to."""
    if " " in text or not text.isprintable():  # urlsplit ignores some of them
        return False
    try:
        url = urlsplit(text)
        return url.scheme in _PORTS and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _read(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper()) or environ.get(name, "")


def _matches(pattern: str, host: str, address: _Address | None, port: str) -> bool:
    """Match an entry of NO_PROXY: `*`, an address, a CIDR, a domain or `.subdomains`; all but CIDRs may have a port."""
    if not pattern or pattern == "*":
        return bool(pattern)
    if "/" in pattern:
        return address is not None and _in_network(address, pattern)
    if _address(pattern) is None:  # otherwise ::1 would be a host with a port
        pattern, _, wanted = pattern.rpartition(":") if ":" in pattern else (pattern, "", "")
        if wanted and wanted != port:
            return False
    if (exact := _address(pattern.strip("[]"))) is not None or address is not None:
        return exact == address
    suffix = pattern.removeprefix("*")
    return host.endswith(suffix if suffix.startswith(".") else f".{suffix}") or host == suffix


def _address(host: str) -> _Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _in_network(address: _Address, pattern: str) -> bool:
    try:
        return address in ip_network(pattern, strict=False)
    except ValueError:
        return False
