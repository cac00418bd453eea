"""Imports the packages that each of our functions needs, and does nothing."""

from typing import Any

import httpx
import pydantic
from aws_lambda_powertools import Logger

logger = Logger(service="floor")
IMPORTED = (httpx, pydantic)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    return {}
