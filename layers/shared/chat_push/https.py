"""HTTPS connections. The certificates are read once, on import, so that SnapStart's snapshot contains them.

Reading them takes 50 ms of processor time, more than everything else that a client needs. httpx imports httpcore with
its first client, and httpcore imports h2, which is there for FCM and APNs. The snapshot contains them, too.
"""

import httpcore  # noqa: F401
import httpx

_certificates = httpx.create_ssl_context()


def transport() -> httpx.HTTPTransport:
    """A transport with connections of its own. It retries a failed connect once, and never sends a request twice."""
    return httpx.HTTPTransport(verify=_certificates, retries=1)
