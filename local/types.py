"""Types that the packages of the local cloud share."""

from typing import Any

type Json = Any  # a JSON value
