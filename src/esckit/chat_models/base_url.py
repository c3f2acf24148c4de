"""The base URL of a chat server: what may stand in it, because it is recorded, and what stands on the way to it."""

import os
import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass

from esckit.errors import ChatError

__all__ = ["OPENAI_URL", "BaseUrl", "read_url"]

OPENAI_URL: Final = "https://api.openai.com/v1"

_AZURE: Final = re.compile(r"\.(azure|microsoft)\.(com|us|cn)$|\.azure-api\.net$")
_VERSION: Final = re.compile(r"[\w.-]{1,30}")


class BaseUrl(NamedTuple):
    """A base URL.

    Attributes:
        given: as it is recorded.
        root: what paths such as ``/chat/completions`` follow.
        api_version: Azure's ``api-version``, sent with every call; None where there is none.
    """

    given: str
    root: str
    api_version: str | None = None

    @property
    def is_azure(self) -> bool:
        """Whether the host is Azure's own, which takes a key as ``api-key`` alone."""
        return bool(_AZURE.search(urlsplit(self.root).hostname or ""))

    @property
    def proxy(self) -> str:
        """What to say of the proxy that the environment puts in the way; empty where there is none."""
        parts = urlsplit(self.root)
        host = parts.hostname or ""
        proxies = getproxies()
        kind = next((kind for kind in (parts.scheme, "all") if kind in proxies), None)
        if kind is None or proxy_bypass(host):
            return ""
        name = next(
            (name for name in (f"{kind}_proxy", f"{kind}_PROXY".upper()) if os.environ.get(name)), f"{kind}_proxy"
        )
        advice = f"unset it, or add {host} to NO_PROXY, if that is not wanted"
        return f" (through the proxy {_place(proxies[kind])} of {name}: {advice})"


def _place(proxy: str) -> str:
    """Host and port of a proxy; never its user and password."""
    try:
        parts = urlsplit(proxy)
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "without a host"
    except ValueError:
        return "that is no URL"


def read_url(url: str) -> BaseUrl:
    """Check a base URL.

    Raises:
        ChatError: it is none, or it holds what might be a secret; the sentence does not repeat that.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        usable = False
    if not usable:
        raise ChatError(f"{url!r} is no base URL: give one like {OPENAI_URL}.")
    query = parse_qsl(parts.query, keep_blank_values=True)
    version = query[0][1] if [name for name, _ in query] == ["api-version"] else None
    if parts.username or parts.password or parts.fragment or (parts.query and not _VERSION.fullmatch(version or "")):
        raise ChatError(
            "the base URL has a user, a password or a query, and it is recorded: give the key by environment, and "
            "leave the query out (of Azure, ?api-version=... alone may stand there)."
        )
    root = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return BaseUrl(f"{root}?api-version={version}" if version else root, root, version)
