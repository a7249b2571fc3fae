"""The backend URL, taken apart and judged. Layer: backends.

pulsar://host[:6650][?admin=http://host:8080][&namespace=tenant/namespace]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

from walplane.rpc.errors import ErrorCode, WalError

DEFAULT_NAMESPACE = "public/walplane"
_HOST = r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)"
_NAMESPACE = re.compile(r"[A-Za-z0-9=:._-]+/[A-Za-z0-9=:._-]+")


@dataclass(frozen=True)
class PulsarConfig:
    """Where a Pulsar is and which namespace of it is walplane's.

    Attributes:
        service_url: `pulsar://host:port`, what pulsar-client takes.
        admin_url: `http://host:port`, without a trailing slash.
        namespace: `tenant/namespace`.
    """

    service_url: str
    admin_url: str
    namespace: str

    @classmethod
    def parse(cls, url: str) -> PulsarConfig:
        """The configuration that `url` names.

        Raises:
            WalError: INVALID_ARGUMENT, with the form that is expected.
        """
        scheme, _, rest = url.partition("://")
        hosts, _, query = rest.partition("?")
        hosts = hosts.rstrip("/")
        if scheme != "pulsar" or not re.fullmatch(rf"{_HOST}(:\d+)?(,{_HOST}(:\d+)?)*", hosts):
            _refuse(url, "no host is named")
        try:
            options = dict(parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True))
        except ValueError:
            _refuse(url, f"{query!r} are no options")
        if unknown := sorted(options.keys() - {"admin", "namespace"}):
            _refuse(url, f"unknown option {unknown[0]!r}")
        first = re.sub(r":\d+$", "", hosts.split(",")[0])
        admin = options.get("admin", f"http://{first}:8080").rstrip("/")
        if urlsplit(admin).scheme not in ("http", "https") or not urlsplit(admin).hostname:
            _refuse(url, f"admin {admin!r} is no http URL")
        namespace = options.get("namespace", DEFAULT_NAMESPACE)
        if not _NAMESPACE.fullmatch(namespace):
            _refuse(url, f"namespace {namespace!r} is not tenant/namespace")
        servers = ",".join(
            host if re.search(r":\d+$", host) else f"{host}:6650" for host in hosts.split(",")
        )
        return cls(f"pulsar://{servers}", admin, namespace)

    def topic_url(self, topic: str) -> str:
        """The full name of `topic`, as pulsar-client takes it."""
        return f"persistent://{self.namespace}/{topic}"


def _refuse(url: str, reason: str) -> NoReturn:
    raise WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"backend {url!r}: {reason}; expected "
        "pulsar://host:6650?admin=http://host:8080&namespace=tenant/namespace",
    )
