"""The floor, a secret read with boto3, and the clients of the database and of Expo: the packages of a worker."""

import os
from typing import Any

import boto3
import exponent_server_sdk
import httpx
import postgrest
import pydantic
from aws_lambda_powertools import Logger, Metrics

logger = Logger(service="packages")
metrics = Metrics(namespace="bench", service="packages")
http = httpx.Client()
IMPORTED = (exponent_server_sdk, postgrest, pydantic)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["BACKEND_SECRET_ID"])
    return {}
