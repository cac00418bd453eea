"""The floor and a secret read with boto3."""

import os
from typing import Any

import boto3
import httpx
import pydantic
from aws_lambda_powertools import Logger

logger = Logger(service="secret")
IMPORTED = (httpx, pydantic)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["BACKEND_SECRET_ID"])
    return {}
