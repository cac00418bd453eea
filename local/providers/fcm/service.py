"""Starts the fake FCM, which stands in for https://fcm.googleapis.com and https://oauth2.googleapis.com."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from local.providers.certificates import server_tls
from local.providers.fcm import push_api
from local.providers.fcm.connections import Connection, Server
from local.providers.fcm.faults import ConnectionFault
from local.providers.fcm.state import FcmService
from local.providers.push_service import Clock


@asynccontextmanager
async def fcm_service(
    port: int = 0, clock: Clock = lambda: datetime.now(UTC), *, tls: bool = False
) -> AsyncIterator[FcmService]:
    """A fake FCM with the token endpoint on 127.0.0.1, ready to be used; port 0 takes a free one.

    With `tls`, clients have to trust `ca_file`. Without it, HTTP/2 is for clients that begin with it ("prior
    knowledge"). `clock` (aware datetimes) decides about grants, access tokens and quotas; latency takes real time.
    Raises OSError: the port is taken.
    """
    fcm = FcmService(clock)

    def on_connect(connection: Connection) -> None:
        fault = fcm.faults.take("connect")
        if isinstance(fault, ConnectionFault):
            fault.strike_connection(connection)

    server = Server(partial(push_api.answer, fcm), on_connect)
    fcm.connections = server.connections
    with ExitStack() as stack:
        context = None
        if tls:
            context, fcm.ca_file = stack.enter_context(server_tls(["fcm.googleapis.com", "oauth2.googleapis.com"]))
        async with server.serving(port, context) as chosen_port:
            fcm.url = f"{'https' if tls else 'http'}://127.0.0.1:{chosen_port}"
            yield fcm
