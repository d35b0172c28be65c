"""What can be wrong with an answer."""

from typing import Any

import msgspec

from ...errors import ServiceError
from ...negotiation import Format
from ...services import SERVICES
from ..client import Exchange, decode_answer, error_of, reason
from .operations import ANYTHING, Operation
from .scene import Made
from .steps import Step
from .wrong import Wrong


def read(step: Step, operation: Operation, made: Made, fmt: Format, got: Exchange) -> Any:
    """The answer: of the operation's type, its bytes where it has none, None where nothing is said.

    Raises :class:`Wrong`.
    """
    if step.bad is not None:
        return _error(step.bad, operation, fmt, got)
    if got.status not in operation.answers:
        said = reason(got.body, fmt) if got.status >= 400 else "a status that is not documented"
        raise Wrong(f"{got.status}, {said}")
    answer = _answer(operation, fmt, got)
    if not _holds(step, made, answer):
        raise Wrong("the answer is well formed, but not what was to be expected")
    return answer


def _answer(operation: Operation, fmt: Format, got: Exchange) -> Any:
    if type_ := operation.answers[got.status]:
        _require_media_type(fmt.value, got)
        return _decoded(got.body, fmt, type_)
    if operation.produces is None:
        if got.body:
            raise Wrong("a body where there should be none")
        return None
    if operation.produces != ANYTHING:
        _require_media_type(operation.produces, got)
    return got.body


def _error(status: int, operation: Operation, fmt: Format, got: Exchange) -> Any:
    if got.status != status:
        raise Wrong(f"{got.status} where a wrong request should be {status}")
    _require_media_type(fmt.value, got)
    try:
        error = error_of(got.body, fmt)
    except ServiceError as problem:
        raise Wrong(f"not the shape of an error: {problem}") from None
    code = f"{SERVICES[operation.service].prefix}_{status}"
    if error.code != code:
        raise Wrong(f"the error's code is {error.code}, not {code}")
    if error.request_id != got.headers.get("X-Request-ID"):
        raise Wrong("the error names another request")
    return error


def _holds(step: Step, made: Made, answer: Any) -> bool:
    try:
        return step.check(made, answer)
    except ValueError:  # what should be JSON is none
        return False


def _require_media_type(wanted: str, got: Exchange) -> None:
    found = got.headers.get("Content-Type", "nothing").partition(";")[0].strip().lower()
    if found != wanted.partition(";")[0]:
        raise Wrong(f"Content-Type is {found}, not {wanted}")


def _decoded(body: bytes, fmt: Format, type_: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return decode_answer(body, fmt, type_)
    except ServiceError as problem:
        found = "; ".join(f"{detail.path} {detail.message}" for detail in list(problem.details or [])[:3])
        raise Wrong(f"not a {type_.__name__}: {found or problem}") from None


def difference(one: Any, other: Any, varies: frozenset[str]) -> str | None:
    """Where two answers do not mean the same, as a path; None where they do."""
    if one == other:  # the long way round takes seconds with a long answer
        return None
    return _differ(msgspec.to_builtins(one), msgspec.to_builtins(other), varies | {"request_id"}, "")


def _differ(one: Any, other: Any, varies: frozenset[str], path: str) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if key not in varies]
        pairs = [(key, one.get(key), other.get(key)) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else path or "/"
    found = (_differ(a, b, varies, f"{path}/{key}") for key, a, b in pairs)
    return next((where for where in found if where is not None), None)
