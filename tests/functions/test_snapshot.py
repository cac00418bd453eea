"""The start of the functions. SnapStart's snapshot contains the state after it, and many environments start from it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from chat_push import __version__

from tests.functions.invocation import ROOT

# This runs in a process of its own, which only starts the functions.
START = """
import gc, os, runpy, sys
started = [runpy.run_path(app) for app in sys.argv[1:]]

from botocore.credentials import Credentials
assert not any(isinstance(held, Credentials) for held in gc.get_objects()), "credentials are held"
assert {"httpcore", "h2"} <= sys.modules.keys(), "the first request would import them"

from botocore.loaders import JSONFileLoader
from chat_push.secrets import provider
JSONFileLoader.load_file = None  # a call would fail
os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
provider()
"""


class CredentialsEndpoint(HTTPServer):
    """The endpoint from which functions with SnapStart get their credentials. It counts the requests."""

    requests = 0


@pytest.fixture
def endpoint() -> Iterator[CredentialsEndpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests += 1
            self.send_error(404)

    server = CredentialsEndpoint(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def started(endpoint: CredentialsEndpoint) -> str:
    """What the four functions print while they start in one process."""
    apps = sorted(map(str, ROOT.glob("functions/*/app.py")))
    assert len(apps) == 4
    folders = [ROOT / "layers" / "shared", ROOT / "functions" / "register_device"]
    names = ("SUPABASE_URL", "BACKEND_SECRET_ID", "WEBHOOK_SECRET_ID", "APP_SECRET_ID", "PUSH_QUEUE_URL")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **dict.fromkeys(names, "x"),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{endpoint.server_port}/",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    command = [sys.executable, "-c", START, *apps]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.usefixtures("started")
def test_starting_a_function_reads_no_credentials_but_all_files_of_botocore(endpoint: CredentialsEndpoint) -> None:
    """Without credentials it can read no secret either. The first request does not wait for botocore's files."""
    assert endpoint.requests == 0


def test_each_function_logs_its_version_once_when_it_starts(started: str) -> None:
    lines = [json.loads(line) for line in started.splitlines()]
    assert [(line["message"], line["version"]) for line in lines] == [("started", __version__)] * 4
