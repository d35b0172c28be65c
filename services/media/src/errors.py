"""How a request to this service can fail in ways of its own."""

from heartguard.errors import Forbidden, NotFound, ServiceError

WRONG_TYPE = "MEDIA_001"


class WrongType(ServiceError):
    def __init__(self) -> None:
        super().__init__(415, "The content is not of the declared or an allowed type", code=WRONG_TYPE)


class NoSuchItem(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such item")


class BadSignature(Forbidden):
    def __init__(self) -> None:
        super().__init__("The link is not one that was given out, or it has expired")
