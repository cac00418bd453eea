"""The floor and a secret read by httpx, with only the signature of the request made by AWS's library."""

import json
import os
from typing import Any

import httpx
import pydantic
from aws_lambda_powertools import Logger
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

logger = Logger(service="signature")
http = httpx.Client()
IMPORTED = (pydantic,)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    url = os.environ["AWS_ENDPOINT_URL"]
    request = AWSRequest(
        method="POST",
        url=url,
        data=json.dumps({"SecretId": os.environ["BACKEND_SECRET_ID"]}),
        headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "secretsmanager.GetSecretValue"},
    )
    credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(credentials, "secretsmanager", os.environ["AWS_REGION"]).add_auth(request)
    http.post(url, content=request.data, headers=dict(request.headers)).raise_for_status()
    return {}
