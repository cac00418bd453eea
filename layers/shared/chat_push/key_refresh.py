"""Keys that are rotated while they are cached."""

from collections.abc import Callable

import httpx

from chat_push.secrets import SecretUnavailable

_REFUSED = (401, 403)


class RefreshKeyOnUnauthorized(httpx.BaseTransport):
    """Repeats a request once, with the key read anew, if the one in `header` is refused and has changed by now.

    Else a rotated key would be sent for as long as its secret is cached. Who refuses a key has done nothing else, so
    that any request can be repeated. `read` gives the header's value as the secret has it now, None for no header.
    """

    def __init__(self, header: str, read: Callable[[], str | None], transport: httpx.BaseTransport) -> None:
        self._header = header
        self._read = read
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer; if the key is refused, that to the key that is valid now."""
        answer = self._transport.handle_request(request)
        if answer.status_code not in _REFUSED:
            return answer
        try:
            key = self._read()
        except SecretUnavailable:
            return answer
        if key == request.headers.get(self._header):
            return answer
        answer.close()
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
