"""Pulsar's admin REST, as far as walplane needs it. Layer: backends.

Every call is idempotent and tried again for some seconds while the service is away or moves a
topic, so that neither a broker's restart nor an unload fails an open that comes early.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from walplane.backends.pulsar.config import PulsarConfig
from walplane.rpc.errors import ErrorCode, WalError

TRY_FOR = 5.0
_ONE_TRY = 4.0
_PAUSE = 0.1
_AWAY = {412, 500, 502, 503, 504}  # 412: the subscription is busy with another opener


class Admin:
    """The admin service of one Pulsar, seen from one namespace."""

    def __init__(self, config: PulsarConfig) -> None:
        """Connects to nothing yet."""
        self._config = config
        self._http = httpx.AsyncClient(
            base_url=f"{config.admin_url}/admin/v2",
            timeout=httpx.Timeout(_ONE_TRY),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
            follow_redirects=True,  # to the broker that owns the topic
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """The JSON found at `path`; None when there is nothing (404)."""
        answer = await self._call("GET", path, None, {404})
        if answer.status_code != 200 or not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise WalError(
                ErrorCode.INNER,
                f"{self._config.admin_url} answers GET {path} with what is no JSON, so it is no "
                "admin service of a Pulsar: name that with admin= in the backend URL",
            ) from error

    async def put(self, path: str, body: object = None) -> bool:
        """Makes what `path` names; False when it was there already (409)."""
        return (await self._call("PUT", path, body, {409})).status_code != 409

    async def post(self, path: str, body: object = None) -> None:
        """Changes what `path` names."""
        await self._call("POST", path, body, set())

    async def _call(
        self, method: str, path: str, body: object, accepted: set[int]
    ) -> httpx.Response:
        """One request, tried again while the service is away.

        Raises:
            WalError: CHANNEL_NOT_EXIST for 404, ON_SHUTDOWN once it is closed, INNER for every
                other failure.
        """
        deadline = time.monotonic() + TRY_FOR
        while True:
            if self._http.is_closed:  # which httpx tells by a bare RuntimeError
                raise WalError(ErrorCode.ON_SHUTDOWN, "the Pulsar backend is closed")
            trouble = ""
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + _ONE_TRY):
                    answer = await self._http.request(method, path, json=body)
            except (httpx.HTTPError, TimeoutError) as error:
                trouble = f"does not answer ({type(error).__name__})"
            else:
                if answer.is_success or answer.status_code in accepted:
                    return answer
                if answer.status_code not in _AWAY:
                    raise self._refused(method, path, answer)
                trouble = f"answers {answer.status_code}: {_reason(answer)}"
            if time.monotonic() + _PAUSE > deadline:
                raise WalError(
                    ErrorCode.INNER,
                    f"the admin service of {self._config.service_url}, which should be at "
                    f"{self._config.admin_url}, {trouble}: is Pulsar running there? admin= in the "
                    "backend URL names it",
                )
            await asyncio.sleep(_PAUSE)

    def _refused(self, method: str, path: str, answer: httpx.Response) -> WalError:
        code = ErrorCode.CHANNEL_NOT_EXIST if answer.status_code == 404 else ErrorCode.INNER
        return WalError(
            code,
            f"Pulsar's admin service at {self._config.admin_url} refused {method} {path} with "
            f"{answer.status_code}: {_reason(answer)}",
        )


def _reason(answer: httpx.Response) -> str:
    try:
        reason = answer.json().get("reason", "")
    except (ValueError, AttributeError):
        reason = answer.text
    return str(reason).strip().splitlines()[0][:200] if str(reason).strip() else "no reason given"
