"""What must not come in gets the contract's error, and leaves nothing behind: no row, no object, no file."""

import io
import struct
import zipfile
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from heartguard.database import Database
from heartguard.streaming.base64_text import MAX_REST

from .conftest import PNG, Caller, form, mender_of, objects_of, rows_of

GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
MB = 1024 * 1024


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20 * MB))
    return packed.getvalue()


def small_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("run.js", "alert(1)")
    return packed.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A picture that is a few bytes long, whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_js() -> bytes:
    """A picture of 10,799 pixels in width, which a browser can also run."""
    return b"GIF89a/*" + GIF[8:] + b"*/=1;alert(document.domain)//"


JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc0000b080001000101011100ffda0008010100003f00d2ff00cfffd020ffd9"
)
FILM = b"\0\0\0\x10ftypisom\0\0\0\0"
TRAILER = b"SEFHk\0\0\0\0\0\0\0\x0c\0\0\0SEFT"
"""Samsung's, without blocks."""


CONTENTS = {
    "a page as a picture": (b"<html><script>alert(1)</script></html>", "image/png", 415),
    "a page as a table": (b"  <!DOCTYPE html><script>alert(1)</script>", "text/csv", 415),
    "a picture as a document": (PNG, "application/pdf", 415),
    "a picture as a table": (GIF, "text/csv", 415),
    "a program as a picture": (b"\x7fELF" + bytes(100), "image/jpeg", 415),
    "a program as a table": (b"MZ\x90\0" + bytes(100), "text/csv", 415),
    "a drawing with a script": (b"<svg onload='alert(1)'/>", "image/svg+xml", 415),
    "a page": (b"<html></html>", "text/html", 415),
    "anything": (b"anything", "application/octet-stream", 415),
    "a zip bomb": (zip_bomb(), "application/zip", 415),
    "a zip bomb as a picture": (zip_bomb(), "image/png", 415),
    "a picture that unpacks to gigabytes": (png_of(100_000, 100_000), "image/png", 415),
    "a picture without a size": (png_of(0, 1), "image/png", 415),
    "a picture and a script, behind its end": (GIF + b"*/=1;alert(1)", "image/gif", 415),
    "a picture and a script": (gif_js(), "image/gif", 415),
    "a picture and a script, within a comment": (
        b"GIF89a/*" + GIF[8:13] + GIF[13:-1] + b"\x21\xfe\x0d*/=1;alert(1)/\x00;", "image/gif", 415
    ),
    "a picture of a phone and a program": (JPEG + JPEG + FILM + b"\x7fELF\2\1\1" + bytes(57), "image/jpeg", 415),
    "a picture of a phone and a hidden program": (JPEG + b"\x7fELF\2\1\1" + bytes(57) + TRAILER, "image/jpeg", 415),
    "a picture of a phone and an archive": (JPEG + JPEG + zip_bomb() + TRAILER, "image/jpeg", 415),
    "a picture of tiny pieces": (JPEG[:20] + b"\xff\xfe\0\2" * (2 * MB) + JPEG[20:], "image/jpeg", 415),
    "a picture and an archive": (PNG + zip_bomb(), "image/png", 415),
    "a picture without its end and an archive": (PNG[:33] + zip_bomb(), "image/png", 415),
    "a picture's first bytes and a program": (PNG[:8] + b"\x7fELF\2\1\1" + bytes(100), "image/png", 415),
    "a picture of no known kind and a program": (
        b"RIFF\x44\0\0\0WEBPwhat\4\0\0\0MZ\x90\0" + bytes(52), "image/webp", 415
    ),
    "a picture that says no size": (b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\x08mdat", "image/avif", 415),
    "a picture within which is an archive": (
        GIF[:-1] + b"\x21\xfe" + bytes([len(small_zip())]) + small_zip() + b"\0;", "image/gif", 415
    ),
    "a document and an archive": (b"%PDF-1.4 %%EOF" + zip_bomb(), "application/pdf", 415),
    "a document and a program": (b"%PDF-1.4 %%EOF\n\x7fELF\2\1\1" + bytes(100), "application/pdf", 415),
    "a recording and an archive": (b"OggS\0\2" + bytes(100) + zip_bomb(), "audio/ogg", 415),
    "a film and an archive": (b"\0\0\0\x10ftypisom\0\0\0\0" + zip_bomb(), "video/mp4", 415),
    "a film that begins as a program": (b"MZ\x90\0ftypisom" + bytes(100), "video/mp4", 415),
    "a picture and a page": (PNG[:-12] + b"\0\0\0\x08tEXt<script>\0\0\0\0" + PNG[-12:], "image/png", 415),
    "a recording and a script": (b"RIFF=1;aWAVE=1;alert(1)", "audio/wav", 415),
    "a scan and a program": (b"MZ" + bytes(126) + b"DICM" + bytes(100), "application/dicom", 415),
    "nothing": (b"", "image/png", 422),
    "more than there may be": (PNG + bytes(10 * MB), "image/png", 413),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(admin: Caller, database: Database, name: str) -> None:
    content, content_type, status = CONTENTS[name]
    answer = admin.upload(content, "a", content_type)
    assert answer.status_code == status, answer.text
    as_form = admin.send("POST", "/media/upload", **form({"file": ("a", content, content_type)}))
    assert as_form.status_code == status
    for refused in (answer, as_form):
        assert refused.json is not None
        assert refused.json["error"]["code"] == {415: "MEDIA_001"}.get(status, f"MEDIA_{status}")
    assert nothing_is_left(admin, database)


def test_what_phones_put_behind_a_picture_is_none_the_worse(admin: Caller) -> None:
    content = JPEG + bytes(9) + JPEG + FILM + TRAILER
    id_ = admin.stored(content, content_type="image/jpeg")
    assert admin.fetch(admin.link(id_)["url"]).data == content


NAMES = [
    "../../etc/passwd",
    "..\\..\\windows\\system.ini",
    "/etc/passwd",
    "a/b.png",
    "..",
    ".",
    " ",
    ". .",
    "a\0.png",
    "a\n.png",
    "a\u0085.png",
    "a\x7f.png",
    "gnp.\u202eexe",  # shown as exe.png
    "a\u200b.png",
    "a\ufeff.png",
    "a\u2028.png",
    "\uff0e\uff0e\uff0fpasswd",  # what looks like ../
    "\u2025\uff3cpasswd",
    "\u2025",
    "tag\U000e0041.png",
    "a" * 256,
    "a" * 100_000,
    "",
]


@pytest.mark.parametrize("file_name", NAMES, ids=lambda name: ascii(name)[:40])
def test_names(admin: Caller, database: Database, file_name: str) -> None:
    answer = admin.upload(file_name=file_name)
    assert answer.status_code == 422, answer.text
    assert [detail["path"] for detail in details(answer)] == ["/file_name"]
    if file_name.isprintable() and len(file_name) < 1000 and "\\" not in file_name:  # which escapes there
        answer = admin.send("POST", "/media/upload", **form({"file": (file_name, PNG, "image/png")}))
        assert answer.status_code == 422
    assert nothing_is_left(admin, database)


@pytest.mark.parametrize(
    "file_name",
    ["a", "a.b.c", ".hidden", "日本.png", "con.png", "a" * 255, "é" * 255, "\U0001f600.png", "'\";<>|?*:%.png"],
)
def test_unusual_names_that_are_none_the_worse(admin: Caller, file_name: str) -> None:
    id_ = admin.stored(file_name=file_name)
    item = admin.send("GET", f"/media/items/{id_}").json
    assert item is not None
    assert item["file_name"] == file_name
    [name] = objects_of(admin.app, admin.org_id)
    assert name.rpartition("/")[2].isascii()
    assert admin.fetch(admin.link(id_)["url"]).data == PNG


TEXT = b64encode(PNG).decode()

BODIES = {
    "no base64": ({"data_base64": "#not base64#"}, 422, ["/data_base64"]),
    "base64 without padding": ({"data_base64": TEXT.rstrip("=")}, 422, ["/data_base64"]),
    "base64 with a line break": ({"data_base64": TEXT[:40] + "\n" + TEXT[40:]}, 422, ["/data_base64"]),
    "base64 for URLs": ({"data_base64": "_-_-"}, 422, ["/data_base64"]),
    "base64 that goes on behind its end": ({"data_base64": "QQ==QQ=="}, 422, ["/data_base64"]),
    "a number": ({"data_base64": 5}, 422, ["/data_base64"]),
    "no data": ({"data_base64": None}, 422, ["/data_base64"]),
    "no type": ({"content_type": "png"}, 422, ["/content_type"]),
    "all wrong": (
        {"file_name": 1, "content_type": 2, "data_base64": "#", "more": 3},
        422,
        ["/content_type", "/data_base64", "/file_name", "/more"],
    ),
    "too much besides": ({"more": "x" * (MAX_REST + 1)}, 413, []),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(admin: Caller, database: Database, name: str) -> None:
    change, status, paths = BODIES[name]
    body = {"file_name": "a.png", "content_type": "image/png", "data_base64": TEXT, **change}
    answer = admin.send("POST", "/media/upload", body)
    assert answer.status_code == status, answer.text
    assert sorted(detail["path"] for detail in details(answer)) == paths
    assert nothing_is_left(admin, database)


@pytest.mark.parametrize(
    ("fields", "status", "paths"),
    [
        ({}, 422, ["/file"]),
        ({"other": ("a.png", PNG, "image/png")}, 422, ["/other"]),
        ({"file": "text"}, 422, ["/file"]),
        ({"file": ("a.png", PNG, "image/png"), "more": "x"}, 422, ["/more"]),
        ({"file": ("a.png", PNG, "")}, 422, ["/content_type"]),
        ({"file": ("a.png", b"", "image/png")}, 422, ["/file"]),
        ({f"f{n}": "x" for n in range(20)}, 413, []),
    ],
)
def test_forms(admin: Caller, database: Database, fields: dict[str, Any], status: int, paths: list[str]) -> None:
    answer = admin.send("POST", "/media/upload", **form(fields))
    assert answer.status_code == status, answer.text
    assert [detail["path"] for detail in details(answer)] == paths
    assert nothing_is_left(admin, database)


def test_a_form_with_two_files(admin: Caller, database: Database) -> None:
    sent = form({"file": ("a.png", PNG, "image/png")})
    boundary = sent["content_type"].partition("boundary=")[2].encode()
    [part] = sent["data"].split(b"--" + boundary)[1:2]
    sent["data"] = sent["data"].replace(b"--" + boundary + b"--", b"--" + boundary + part + b"--" + boundary + b"--")
    answer = admin.send("POST", "/media/upload", **sent)
    assert (answer.status_code, details(answer)) == (422, [{"path": "/file", "message": "must be given once"}])
    assert nothing_is_left(admin, database)


@pytest.mark.parametrize("cut", [5, 30, 100])
def test_a_form_that_is_cut_short(admin: Caller, database: Database, cut: int) -> None:
    sent = form({"file": ("a.png", PNG, "image/png")})
    answer = admin.send("POST", "/media/upload", **{**sent, "data": sent["data"][:-cut]})
    assert answer.status_code == 400
    assert nothing_is_left(admin, database)


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"", "application/xml", 400),
        (b"<MediaUpload>", "application/xml", 400),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><MediaUpload/>", "application/xml", 400),
        (b"<MediaUpload><?php x?></MediaUpload>", "application/xml", 400),
        (b"<MediaUpload>" + b"<a/>" * 2000 + b"</MediaUpload>", "application/xml", 413),
        (b"<Upload/>", "application/xml", 422),
        (PNG, "image/png", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=\xc3\xa9", 400),
        (b"x", "multipart/form-data; boundary=b", 400),
    ],
)
def test_what_is_no_upload(admin: Caller, database: Database, data: bytes, content_type: str, status: int) -> None:
    answer = admin.send("POST", "/media/upload", data=data, content_type=content_type)
    assert answer.status_code == status, answer.text
    assert nothing_is_left(admin, database)


def details(answer: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = answer.json["error"].get("details", [])
    return found


def nothing_is_left(caller: Caller, database: Database) -> bool:
    incoming: Path = mender_of(caller.app)._incoming
    left = [*objects_of(caller.app, caller.org_id), *rows_of(database, caller.org_id), *incoming.glob("*")]
    return left == []
