"""The one way to fail on purpose, and how every failure becomes the contract's error body."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from .models.base import UNSET
from .models.common import Detail, Error

MESSAGES: Mapping[int, str] = {
    400: "The request is malformed",
    401: "The token is missing, malformed, expired or revoked",
    403: "You may not do this",
    404: "There is nothing here",
    405: "This method is not allowed here",
    406: "Ask for application/json or application/xml",
    411: "Send the body with a Content-Length, not in chunks",
    412: "It has changed since you read it",
    413: "The body is too large",
    415: "Send application/json or application/xml, in UTF-8",
    422: "The request breaks the schema",
    429: "Too many requests",
    500: "Something went wrong here; the log has it under the request id",
    502: "The service behind the gateway cannot be reached",
    503: "The service is unavailable for now",
    504: "The service behind the gateway did not answer in time",
}

_INFLUX_CODES: Mapping[int, str] = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}


def influx_code(status: int) -> str:
    """What InfluxDB 2 calls an error of that status; those that it does not have go by the nearest that it has."""
    return _INFLUX_CODES.get(status, "invalid" if status < 500 else "internal error")


class ServiceError(Exception):
    """A failure that the client shall hear of.

    ``code`` is the particular code of section 9 of the contract; without it the answering
    service's general one (``TS_404``) is used. ``headers`` go out with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        code: str | None = None,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.message = message or MESSAGES.get(status) or HTTPStatus(status).phrase
        self.code = code
        self.details = list(details)
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def body(self, prefix: str, request_id: str) -> Error:
        """The contract's error, named by the service whose ``prefix`` this is."""
        return Error(
            code=self.code or f"{prefix}_{self.status}",
            message=self.message,
            request_id=request_id,
            details=self.details or UNSET,
        )


class Invalid(ServiceError):
    """The body is well formed but breaks the schema or a rule; names every violation."""

    def __init__(self, details: Sequence[Detail], message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(422, message, code=code, details=details)


class Malformed(ServiceError):
    """The body cannot be read at all."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Unauthorized(ServiceError):
    """No token, or none that is good."""

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ServiceError):
    def __init__(self, message: str | None = None, *, code: str | None = None, details: Sequence[Detail] = ()) -> None:
        super().__init__(403, message, code=code, details=details)


class NotFound(ServiceError):
    def __init__(self, message: str | None = None) -> None:
        super().__init__(404, message)


class Unavailable(ServiceError):
    """A dependency does not answer; ``retry_after`` is in seconds."""

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(503, message, headers={"Retry-After": str(retry_after)})
