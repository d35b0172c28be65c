"""What can go wrong with accounts and sessions, named and with the contract's codes."""

from heartguard.errors import Forbidden, Invalid, ServiceError, Unauthorized, Unavailable
from heartguard.models.common import Detail


class InvalidCredentials(Unauthorized):
    """Address and password do not belong together; which of them is wrong is not said."""

    def __init__(self) -> None:
        super().__init__("Invalid credentials", code="AUTH_001")


class WrongCurrentPassword(Invalid):
    """A 422 and no 401: the token is good, and a client must not take this for an expired one and refresh it."""

    def __init__(self) -> None:
        message = "This is not the current password"
        super().__init__([Detail(path="/current_password", message=message)], message)


class TooManyFailures(ServiceError):
    """``retry_after`` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            429,
            "Too many failed attempts on this account",
            code="AUTH_004",
            headers={"Retry-After": str(retry_after)},
        )


class EmailTaken(ServiceError):
    def __init__(self) -> None:
        super().__init__(409, "The e-mail address is registered already", code="AUTH_002")


class RefreshTokenReused(Unauthorized):
    """A retired refresh token came back: one of the two who hold it stole it."""

    def __init__(self) -> None:
        super().__init__("The refresh token was used twice; the session was ended", code="AUTH_003")


class UnacceptablePassword(Invalid):
    def __init__(self, problem: str, path: str = "/password") -> None:
        super().__init__(
            [Detail(path=path, message=f"The password {problem}")],
            "The password is too common or of the wrong length",
            code="AUTH_005",
        )


class RoleNotAllowed(Forbidden):
    def __init__(self) -> None:
        super().__init__("That role cannot be chosen here", code="AUTH_006")


class RegistrationClosed(Forbidden):
    def __init__(self) -> None:
        super().__init__("Only an administrator can register people here")


class OrganizationSignupClosed(Forbidden):
    def __init__(self) -> None:
        super().__init__("Organizations cannot be signed up here")


class OrganizationNotChosen(Invalid):
    def __init__(self) -> None:
        message = "An administrator registers people in the own organization"
        super().__init__([Detail(path="/organization_name", message=message)], message)


class NotSetUp(Unavailable):
    """The first organization and its admin are not there yet."""

    def __init__(self) -> None:
        super().__init__("The service is starting up")
