"""Connections over HTTPS. The certificates are read once, on import, so that SnapStart's snapshot holds them.

Reading them takes 50 ms of a processor, longer than all else that a client needs.
"""

import httpx

_certificates = httpx.create_ssl_context()


def transport() -> httpx.HTTPTransport:
    """A transport with connections of its own. It tries twice to connect, and never sends anything twice."""
    return httpx.HTTPTransport(verify=_certificates, retries=1)
