"""The service as a command line sees it: HTTP with the operator token, errors as exceptions.

An answer that carries an error becomes the same `EdgekitError` the service raised, so that exit codes
are those of the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from edgekit.errors import OperationTimeout, UnavailableError
from edgekit_fleet.errors import error_from_body


class FleetClient:
    """Talks to one service.

    Args:
        url: base address, for example ``http://127.0.0.1:8420``.
        token: operator token.
        seconds: time for one answer.
        transport: httpx transport, for tests.
    """

    def __init__(
        self, url: str, token: str, *, seconds: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=seconds,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """GET JSON.

        Raises:
            EdgekitError: the service's error.
            UnavailableError: the service is not reached.
            OperationTimeout: it did not answer in time.
        """
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST JSON; errors as in `get`."""
        return self._json("POST", path, body=body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT JSON; errors as in `get`."""
        return self._json("PUT", path, body=body)

    def delete(self, path: str) -> Any:
        """DELETE; errors as in `get`."""
        return self._json("DELETE", path)

    def stream(self, path: str) -> Iterator[str]:
        """Lines of a Server-Sent Events answer, without end; errors as in `get`."""
        try:
            with self._client.stream("GET", path, timeout=None) as answer:
                if answer.is_error:
                    answer.read()
                    self._raise(answer, path)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            answer = self._client.request(method, path, params=params, json=body)
        except httpx.TimeoutException as error:
            raise OperationTimeout("the service did not answer in time", where=self._url) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            self._raise(answer, path)
        return answer.json() if answer.content else None

    def _raise(self, answer: httpx.Response, path: str) -> None:
        try:
            body = answer.json()
        except ValueError:
            body = {}
        raise error_from_body(
            answer.status_code, body if isinstance(body, dict) else {}, where=f"{self._url}{path}"
        )

    def _unreachable(self, error: httpx.TransportError) -> UnavailableError:
        return UnavailableError(
            f"the service is not reached: {error}",
            where=self._url,
            remedy="start it with: edgekit fleet serve",
            code="service_down",
        )
