"""What files of each allowed type look like, and what is refused of them. Hostile ones come in as uploads elsewhere."""

import struct
from base64 import b64decode

import pytest

from services.media.src import formats
from services.media.src.formats.content import MAX_PIXELS

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x01\x01\x11\x00"
    b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xd2\xff\x00\xcf\xff\xd0\x20\xff\xd9"
)


def riff(kind: bytes, content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + kind + content


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHH", 40, width, height, 1, 24) + bytes(24)
    return b"BM" + struct.pack("<IHHI", 14 + len(head), 0, 0, 54) + head


def tiff(order: str, width: int, height: int) -> bytes:
    entries = struct.pack(f"{order}HHIHH", 256, 3, 1, width, 0) + struct.pack(f"{order}HHII", 257, 4, 1, height)
    begin = b"II*\0" if order == "<" else b"MM\0*"
    return begin + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def ftyp(major: bytes, *others: bytes) -> bytes:
    return box(b"ftyp", major + bytes(4) + b"".join(others)) + box(b"free", b"")


VP8X = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x0f\x00\x00" + b"\x0f\x00\x00"
VP8L = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", 15 | 15 << 14)
VP8 = b"VP8 " + struct.pack("<I", 10) + b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 16, 16)
EDF = (b"0       " + b" " * 176 + b"512     " + b" " * 44 + b"10      1       1   " + b" " * 256)[:512]
TABLES = [
    begin + b",age\n22,40\n"
    for begin in (
        b"BMI",
        b"BMP",
        b"PKU",
        b"ID3",
        b"ID",
        b"RIFF",
        b"GIF8",
        b"OggS",
        b"fLaC",
        b"#!",
        b"0       ",
        b"%!PS",
    )
]
"""What these begin with begins other files too, but there it goes on otherwise."""
EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm"

GOOD = {
    "image/png": [PNG, b"\x89PNG\r\n\x1a\n damaged", PNG[:40]],
    "image/jpeg": [JPEG, JPEG + JPEG, JPEG + bytes(100), JPEG[:40], b"\xff\xd8\xff\xe0" + bytes(30)],
    "image/gif": [GIF, b"GIF87a" + GIF[6:]],
    "image/webp": [riff(b"WEBP", VP8X), riff(b"WEBP", VP8L), riff(b"WEBP", VP8), riff(b"WEBP", b"what?")],
    "image/bmp": [bmp(5, 5), bmp(5, -5)],
    "image/tiff": [tiff("<", 5, 5), tiff(">", 5, 5)],
    "image/heic": [ftyp(b"heic"), ftyp(b"mif1", b"heic")],
    "image/avif": [ftyp(b"avif")],
    "application/pdf": [b"%PDF-1.7\n1 0 obj\n<</JS (alert)>>\n%%EOF\n"],
    "text/csv": [
        b"a,b\r\n1,2\r\n",
        b"\xef\xbb\xbft;bpm\n1;72\n",
        "año,ñ\n".encode(),
        b"a<b\n<1>\n",
        b"x" * 3_000_000,
        *TABLES,
    ],
    "application/dicom": [bytes(128) + b"DICM" + bytes(10), tiff("<", 1, 1).ljust(128, b"x") + b"DICM"],
    "application/edf": [EDF],
    "audio/wav": [riff(b"WAVE", b"fmt "), b"RIFF\xff\xff\xff\xffWAVEfmt ", b"RIFF\0\0\0\0WAVEfmt "],
    "audio/mpeg": [b"\xff\xfb\x90\x64" + bytes(400), b"ID3\x04\0\0\0\0\x01\x00" + bytes(200)],
    "audio/aac": [b"\xff\xf1\x50\x80\x01\x20\xfc\x00\x00", b"\xff\xf1\x50\x80\x01\x20\xfc\0\0\xff\xf1\x50\x80"],
    "audio/ogg": [b"OggS\0\x02"],
    "audio/flac": [b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"],
    "audio/mp4": [ftyp(b"M4A ")],
    "video/mp4": [ftyp(b"isom", b"mp41"), b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"],
    "video/quicktime": [ftyp(b"qt  "), box(b"moov", b"")],
    "video/webm": [EBML],
    "video/x-matroska": [EBML.replace(b"webm", b"matroska")],
    "video/mpeg": [b"\0\0\1\xba\x44", b"\0\0\1\xb3\x44"],
    "video/x-msvideo": [riff(b"AVI ", b"LIST")],
}


@pytest.mark.parametrize(("type_", "content"), [(type_, each) for type_, all_ in GOOD.items() for each in all_])
def test_good_files(type_: str, content: bytes) -> None:
    assert formats.matches(type_, content)


@pytest.mark.parametrize("type_", GOOD)
def test_no_file_is_taken_for_one_of_another_type(type_: str) -> None:
    kin = [{"image/heic", "image/avif"}, {"video/webm", "video/x-matroska"}, {"audio/mp4", "video/mp4"}]
    alike = {type_}.union(*(kind for kind in kin if type_ in kind))
    if type_ in {"audio/mp4", "video/mp4"}:
        alike |= {"image/heic", "image/avif"}  # boxes too
    if type_ == "image/tiff":
        alike |= {"application/dicom"}  # which may be both, by its standard
    if type_ == "video/quicktime":
        alike |= {"audio/mp4", "video/mp4", "image/heic", "image/avif"}
    for other, contents in GOOD.items():
        if other not in alike:
            assert not any(formats.matches(type_, content) for content in contents), other


@pytest.mark.parametrize("type_", GOOD)
def test_hardly_anything_is_too_short_to_be_judged(type_: str) -> None:
    content = GOOD[type_][0]
    for length in range(min(40, len(content))):
        formats.matches(type_, content[:length])
    assert not formats.matches(type_, b"") or type_ == "text/csv"
    assert not formats.matches(type_, b"\0")


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        ("image/png", PNG + b"x"),
        ("image/png", PNG[:16] + struct.pack(">II", MAX_PIXELS, 2) + PNG[24:]),
        ("image/gif", GIF + b"\0"),
        ("image/gif", GIF[:-1]),
        ("image/gif", GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:]),
        ("image/gif", GIF.replace(b"\x2c", b"\x2d", 1)),
        ("image/jpeg", JPEG + b"*/=1;alert(1)"),
        ("image/jpeg", JPEG.replace(b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01", b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff")),
        ("image/jpeg", b"\xff\xd8\xff\xe0=1;alert(1)//"),
        ("image/jpeg", b"\xff\xd8\xff\xe0/*\0\0" + JPEG[8:-2] + b"*/=1" + JPEG[-2:]),
        ("image/webp", b"RIFF=1;aWEBP" + VP8),
        ("image/webp", riff(b"WEBP", VP8X[:12] + b"\xff" * 6)),
        ("image/bmp", bmp(5, 5) + b"x"),
        ("image/bmp", bmp(100_000, 100_000)),
        ("image/tiff", tiff("<", 0, 5)),
        ("image/png", PNG[:8] + b"<?php system('id') ?>"),
        ("text/csv", b"a\0b"),
        ("text/csv", b"\xff\xfe"),
        ("text/csv", b"a" * 1_048_575 + "é".encode()[:1]),
        ("text/csv", b"\xef\xbb\xbf<html>"),
        ("text/csv", b"\n\n <script>alert(1)</script>"),
        ("text/csv", b"%PDF-1.7"),
        ("text/csv", b"PK\x03\x04"),
        ("text/csv", b"BM" + struct.pack("<IHHI", 0x20202020, 0, 0, 54) + b" " * 40),
        ("text/csv", b"ID3\x04 flags"),
        ("text/csv", b"RIFF    WAVEfmt \x10\0\0\0"),
        ("text/csv", b"#!/bin/sh\n"),
        ("text/csv", b"#! /bin/sh\n"),
        ("text/csv", b"%!PS-Adobe-3.0"),
        ("text/csv", GIF[:6] + b"  ,"),
        ("application/dicom", b"<script>".ljust(128) + b"DICM"),
        ("application/edf", EDF[:100] + b"\0" + EDF[101:]),
        ("application/edf", EDF[:200]),
        ("audio/mpeg", b"\xff\xfb\xf0\x64"),
        ("audio/mpeg", b"ID3\x04\0\0\xff\xff\xff\xff"),
        ("video/mp4", ftyp(b"qt  ")),
        ("application/zip", b"PK\x03\x04"),
        ("image/svg+xml", b"<svg/>"),
        ("", b"x"),
    ],
)
def test_bad_files(type_: str, content: bytes) -> None:
    assert not formats.matches(type_, content)


def test_what_is_said_of_a_type_beside_its_name_does_not_matter() -> None:
    assert formats.media_type("Image/PNG ; q=1") == "image/png"
