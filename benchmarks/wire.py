"""Just enough HTTP to ask the same question again and again without spending time on it."""

import re

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def request(path: str, port: int, bearer: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()


def whole(answer: bytes) -> bool:
    """Whether that is all of an answer. One that is no 200, or without a length, is a ValueError."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = LENGTH.search(answer, 0, end + 2)
    if answer[9:12] != b"200" or length is None:
        raise ValueError(f"answered {answer[:300].decode(errors='replace')}")
    return len(answer) >= end + 4 + int(length[1])
