"""Generates docs/openapi.json, the API of register_device for apps, from the code of the function."""

import json
import os
import sys
from typing import Any

from local.packages import PROJECT

DOCUMENT = PROJECT / "docs" / "openapi.json"


def openapi() -> str:
    """The content of docs/openapi.json. Imports the function as Lambda does, so call it in a separate process."""
    os.environ |= {
        "SUPABASE_URL": "-",
        "APP_SECRET_ID": "-",
        "POWERTOOLS_METRICS_NAMESPACE": "-",
        "POWERTOOLS_LOG_LEVEL": "ERROR",
    }
    sys.path[:0] = [str(PROJECT / "functions" / "register_device"), str(PROJECT / "layers" / "shared")]
    from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer

    from app import app

    document: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title="Chat Push",
            version="1",
            description="Which phones get the push notifications of the signed-in person.",
            security_schemes={"session": HTTPBearer(bearerFormat="JWT", description="Supabase's access token")},
            security=[{"session": []}],
        )
    )
    # Powertools adds its own error format to every operation. This API has another one.
    for schema in ("HTTPValidationError", "ResponseValidationError", "ValidationError"):
        del document["components"]["schemas"][schema]
    del document["paths"]["/api/push/devices"]["get"]["responses"]["422"]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
