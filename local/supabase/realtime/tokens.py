"""Who a connection acts for: API keys of the project, and access tokens of its Auth server."""

import time
from dataclasses import dataclass

import jwt

from local.types import Json

_YEARS = 10 * 365 * 24 * 3600


class Rejected(Exception):
    """A join or a token that is not accepted. `code` and `message` are those of the real server."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.message = message


@dataclass(frozen=True)
class Keys:
    """The keys of a project. Tokens are signed with HS256, as Supabase Lite does."""

    publishable: str
    secret: str
    jwt_secret: str

    def of_api_key(self, key: str) -> Json:
        """The claims that an API key stands for. As the hosted gateway, it turns sb_ keys into a token of a role.

        Raises Rejected.
        """
        roles = {self.publishable: "anon", self.secret: "service_role"}
        if key in roles:
            return {"role": roles[key], "exp": int(time.time()) + _YEARS}
        return self.claims(key)

    def claims(self, token: str, *, not_before: float = 0) -> Json:
        """The claims of a token. Raises Rejected, also if the token was issued before `not_before`."""
        try:
            claims = jwt.decode(
                token,
                self.jwt_secret,
                ["HS256"],
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError as error:
            raise Rejected("JwtSignatureError", "Failed to validate JWT signature") from error
        except jwt.InvalidTokenError as error:
            raise Rejected("MalformedJWT", "The token provided is not a valid JWT") from error
        if not {"role", "exp"} <= claims.keys():
            raise Rejected("InvalidJWTToken", "Fields `role` and `exp` are required in JWT")
        expired = time.time() - claims["exp"]
        if expired >= 0 or claims.get("iat", not_before) < not_before:
            raise Rejected("InvalidJWTToken", f"Token has expired {max(0, int(expired))} seconds ago")
        return claims
