"""The requests that the steps stand for."""

from urllib.parse import quote

import msgspec
from lxml import etree

from ...codec import encode
from ...negotiation import Format
from .operations import Operation
from .scene import Made
from .steps import Step


def headers_of(step: Step, operation: Operation, made: Made, fmt: Format) -> dict[str, str] | None:
    """None where it needs a token that there is not, or an address that only a token could have got."""
    headers = {"Accept": fmt.value, **step.headers(made)}
    if step.body is not None:
        headers["Content-Type"] = step.media_type or fmt.value
    who = step.who or ("nobody" if operation.public else "admin")
    if who == "nobody":
        return None if step.url and not step.url(made) and made.run.token is None else headers
    token = made.run.token if who == "admin" else made.token
    return None if token is None else {**headers, "Authorization": f"Bearer {token}"}


def body_of(step: Step, operation: Operation, made: Made, fmt: Format) -> bytes | None:
    if step.body is None:
        return None
    properties = step.body(made)
    if isinstance(properties, bytes):
        return properties
    assert operation.request is not None
    if step.bad is None:
        return encode(msgspec.convert(properties, operation.request), fmt)
    if fmt is Format.JSON:
        return msgspec.json.encode(properties)
    root = etree.Element(operation.request.__name__)
    for name, value in properties.items():
        etree.SubElement(root, name).text = msgspec.json.encode(value).decode()
    return etree.tostring(root)


def url_of(step: Step, operation: Operation, made: Made) -> str:
    if step.url is not None and (url := step.url(made)):
        return url
    path = operation.path
    for name, value in step.path(made).items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    return path + step.query(made)
