"""Requests with a key that may be rotated while its secret is cached."""

from collections.abc import Callable

import httpx

from chat_push.secrets import SecretUnavailable

_UNAUTHORIZED = (401, 403)


class RefreshKeyOnUnauthorized(httpx.BaseTransport):
    """Repeats a refused request once, with the current key, if that differs from the key that was sent.

    Without it, a rotated key would be used for as long as its secret is cached. A service that refuses a key has not
    processed the request, so repeating is safe for every request. `header` carries the key; `fetch_current_key` returns
    its current value, or None for no header.
    """

    def __init__(
        self, header: str, fetch_current_key: Callable[[], str | None], transport: httpx.BaseTransport
    ) -> None:
        self._header = header
        self._fetch_current_key = fetch_current_key
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The response, to the second request if there was one."""
        response = self._transport.handle_request(request)
        if response.status_code not in _UNAUTHORIZED:
            return response
        try:
            key = self._fetch_current_key()
        except SecretUnavailable:
            return response
        if key == request.headers.get(self._header):
            return response
        response.close()
        headers = httpx.Headers(request.headers)
        headers.pop(self._header, None)
        if key is not None:
            headers[self._header] = key
        return self._transport.handle_request(
            httpx.Request(
                request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
            )
        )

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()
