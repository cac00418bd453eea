"""What functions hold after their start is what SnapStart's snapshot keeps, of which many environments are made."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.functions.invocation import ROOT

# In a process of its own: nothing but the start of the functions.
START = """
import gc, os, runpy, sys
started = [runpy.run_path(app) for app in sys.argv[1:]]

from botocore.credentials import Credentials
assert not any(isinstance(held, Credentials) for held in gc.get_objects()), "credentials are held"

from botocore.loaders import JSONFileLoader
from chat_push.secrets import provider
JSONFileLoader.load_file = None  # nobody may call it
os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
provider()
"""


class CredentialsEndpoint(HTTPServer):
    """Where functions with SnapStart get their credentials; counts how often somebody asks."""

    asked = 0


@pytest.fixture
def endpoint() -> Iterator[CredentialsEndpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1
            self.send_error(404)

    server = CredentialsEndpoint(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_function_looks_up_credentials_when_it_starts_and_all_else_is_read_from_disk(
    endpoint: CredentialsEndpoint,
) -> None:
    """Without credentials it can hold no secret either; and the first request does not wait for botocore's models."""
    apps = sorted(map(str, ROOT.glob("functions/*/app.py")))
    folders = [ROOT / "layers" / "shared", ROOT / "functions" / "register_device"]
    names = ("SUPABASE_URL", "BACKEND_SECRET_ID", "WEBHOOK_SECRET_ID", "APP_SECRET_ID", "PUSH_QUEUE_URL")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **dict.fromkeys(names, "x"),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{endpoint.server_port}/",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    subprocess.run([sys.executable, "-c", START, *apps], env=environment, check=True)
    assert len(apps) == 4
    assert endpoint.asked == 0
