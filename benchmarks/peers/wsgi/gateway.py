"""The Flask gateway itself. Runs in a virtual environment of its own, with what flask.txt pins."""

import os
import threading
import time

import jwt
import redis
import requests
from flask import Flask, Response, abort, request

UPSTREAM, SECRET = os.environ["UPSTREAM"], os.environ["JWT_SECRET"]
LIMIT = 1_000_000
DROPPED = {"host", "connection", "keep-alive", "te", "transfer-encoding", "upgrade", "content-length"}

app = Flask(__name__)
valkey = redis.Redis.from_url(os.environ["REDIS_URL"])
local = threading.local()


def session() -> requests.Session:
    """One for each thread."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
    found: requests.Session = local.session
    return found


def limit() -> None:
    """A window of a second in Valkey, in one round trip."""
    key = f"flask:{request.remote_addr}:{int(time.time())}"
    with valkey.pipeline(transaction=False) as both:
        both.incr(key)
        both.expire(key, 2)
        count, _ = both.execute()
    if count > LIMIT:
        abort(429)


def check_token() -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme != "Bearer":
            raise jwt.InvalidTokenError
        jwt.decode(token, SECRET, algorithms=["HS256"], audience="heartguard", issuer="heartguard")
    except jwt.InvalidTokenError:
        abort(401)


@app.route("/auth/<path:_>", methods=["GET", "POST", "PUT", "DELETE"])
def proxy(_: str) -> Response:
    limit()
    check_token()
    headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
    answer = session().request(
        request.method, UPSTREAM + request.full_path, headers=headers, data=request.get_data(), timeout=20,
        allow_redirects=False,
    )  # fmt: skip
    kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in DROPPED]
    return Response(answer.content, answer.status_code, kept)
