"""What files of each allowed type look like, and what is refused of them. Hostile ones come in as uploads elsewhere."""

import io
import random
import struct
import zipfile
import zlib
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from services.media.src import formats
from services.media.src.formats.content import MAX_PIXELS
from services.media.src.formats.jpeg import MAX_PADDING

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


def meta(width: int, height: int) -> bytes:
    size = box(b"ispe", struct.pack(">III", 0, width, height))
    return box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", box(b"pixi", bytes(8)) + size)))


def moov(width: int, height: int) -> bytes:
    head = box(b"tkhd", bytes(76) + struct.pack(">II", width << 16, height << 16))
    return box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", head) + box(b"trak", box(b"tkhd", bytes(84))))


def archive(comment: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("run.js", "alert(1)")
        made.comment = comment
    return packed.getvalue()


def far_archive() -> bytes:
    """ZIP64: what does not fit into the end's record is in another one before it."""
    near = archive()
    return near[:-22] + b"PK\6\7" + bytes(16) + near[-22:-10] + b"\xff" * 8 + near[-2:]


FAR = struct.pack(">I4sQ", 1, b"free", 20) + bytes(4)
"""A box of 64-bit length."""
LAST = b"\0\0\0\0mdat and so on"
PROGRAM = b"\x7fELF\2\1\1" + bytes(57)
DOS_PROGRAM = b"MZ\x90\0\3\0\0\0" + bytes(56)
PDF = b"%PDF-1.7\n1 0 obj\n<</JS (alert)>>\nendobj\nstartxref\n0\n%%EOF\n"
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
    "image/png": [PNG, PNG[:-1], PNG[:40]],
    "image/jpeg": [JPEG, JPEG + JPEG, JPEG + bytes(100), JPEG[:-1], JPEG[:40]],
    "image/gif": [GIF, b"GIF87a" + GIF[6:]],
    "image/webp": [riff(b"WEBP", VP8X), riff(b"WEBP", VP8L), riff(b"WEBP", VP8), riff(b"WEBP", VP8 + bytes(9))[:-5]],
    "image/bmp": [bmp(5, 5), bmp(5, -5)],
    "image/tiff": [tiff("<", 5, 5), tiff(">", 5, 5)],
    "image/heic": [ftyp(b"heic") + meta(5, 5), ftyp(b"mif1", b"heic") + meta(5, 5) + b"\0\0\1\0mdat cut short"],
    "image/avif": [ftyp(b"avif") + meta(5, 5), ftyp(b"avis") + moov(5, 5), ftyp(b"avif") + meta(5, 5) + FAR + LAST],
    "application/pdf": [PDF, PDF + b"\r\n\0\0", PDF + PDF, PDF[:30]],
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


SHORT = PNG[:33]
"""A picture whose size alone there is."""


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        *(("image/png", PNG[:8] + more) for more in (PROGRAM, b" damaged", PDF)),
        *(("image/png", SHORT + more) for more in (archive(), PROGRAM, DOS_PROGRAM, PDF, b"#!/bin/sh\n", JPEG, GIF)),
        ("image/jpeg", b"\xff\xd8\xff\xe0" + bytes(30)),
        ("image/jpeg", JPEG[:20] + JPEG[33:]),  # without SOF
        *(("image/jpeg", JPEG[:33] + more) for more in (archive(), PROGRAM, DOS_PROGRAM, PDF)),
        *(("image/jpeg", JPEG + more) for more in (archive(), PROGRAM, DOS_PROGRAM, PDF)),
        *(("image/webp", riff(b"WEBP", more)) for more in (b"what?" + DOS_PROGRAM, b"VP8 " + bytes(30))),
        ("image/webp", riff(b"WEBP", VP8L.replace(b"\x2f", b"\x2e"))),
        *(("image/webp", riff(b"WEBP", VP8) + more) for more in (archive(), PROGRAM, DOS_PROGRAM, PDF)),
        *(("image/avif", ftyp(b"avif") + more) for more in (b"", LAST, meta(100_000, 100_000), meta(0, 1))),
        ("image/avif", ftyp(b"avis") + moov(60_000, 60_000)),
        ("image/heic", ftyp(b"heic") + meta(5, 5) + box(b"meta", bytes(4)) + meta(100_000, 100_000)),
        *(("image/heic", ftyp(b"heic") + meta(5, 5) + more) for more in (archive(), PROGRAM, DOS_PROGRAM, PDF)),
        ("image/heic", ftyp(b"heic") + meta(5, 5) + b"\0\0\0\7free"),
        *(("application/pdf", PDF + more) for more in (archive(), archive(b"%%EOF"), PROGRAM, DOS_PROGRAM, b"<html>")),
        *(("application/pdf", b"%PDF-1.4 %%EOF" + more) for more in (archive(), PROGRAM)),
        ("application/pdf", b"%PDF-1.4" + PROGRAM),
        ("audio/mpeg", b"ID3\n\n\n=1;alert(1)//"),
        ("video/mp4", b"MZ\x90\0ftypisom" + DOS_PROGRAM),
        ("video/quicktime", b"#!/bmoov\necho"),
    ],
)
def test_a_damaged_file_is_not_taken_for_whatever_it_may_be(type_: str, content: bytes) -> None:
    assert not formats.matches(type_, content)


CARRIERS = [(type_, content) for type_, all_ in GOOD.items() if type_ != "text/csv" for content in (all_[0], all_[-1])]


@pytest.mark.parametrize(("type_", "content"), CARRIERS)
@pytest.mark.parametrize(
    "more", [archive(), archive(b"x" * 65_535), far_archive(), archive() + bytes(1000)], ids=range(4)
)
def test_no_file_is_an_archive_too(type_: str, content: bytes, more: bytes) -> None:
    assert not formats.matches(type_, content + more)


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        ("image/gif", GIF[:-1] + b"\x21\xfe" + bytes([len(archive())]) + archive() + b"\0;"),
        ("image/tiff", tiff("<", 5, 5).ljust(257, b"\0") + b"ustar\x0000"),
        ("image/tiff", tiff("<", 5, 5) + b"Rar!\x1a\x07\x01\0"),
        ("audio/wav", riff(b"WAVE", b"fmt ") + b"7z\xbc\xaf\x27\x1c"),
        ("audio/ogg", b"OggS\0\2" + bytes(100) + PDF),
    ],
)
def test_what_is_within_a_file_is_no_other_one(type_: str, content: bytes) -> None:
    assert not formats.matches(type_, content)


def test_a_scan_may_hold_a_document() -> None:
    assert formats.matches("application/dicom", bytes(128) + b"DICM" + bytes(60) + PDF)


# Honest files, of whatever bytes: what begins other files may come up in them by chance


def png_of(packed: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return PNG[:33] + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def jpeg_of(packed: bytes) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(packed[:5000])) + packed[:5000]
    return JPEG[:20] + exif + JPEG[20:43] + packed.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def gif_of(packed: bytes) -> bytes:
    blocks = (packed[begin : begin + 255] for begin in range(0, len(packed), 255))
    begin, end = GIF.split(b"\x02\x02D\x01", 1)
    return begin + b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + end


def webp_of(packed: bytes) -> bytes:
    return riff(b"WEBP", b"VP8 " + struct.pack("<I", 10 + len(packed)) + VP8[8:] + packed + bytes(len(packed) % 2))


HONEST: dict[str, Callable[[bytes], bytes]] = {
    "image/png": png_of,
    "image/jpeg": jpeg_of,
    "image/gif": gif_of,
    "image/webp": webp_of,
    "image/tiff": lambda packed: tiff("<", 5, 5) + packed,
    "image/heic": lambda packed: ftyp(b"heic") + meta(5, 5) + box(b"mdat", packed),
    "application/pdf": lambda packed: PDF[:30] + b"stream\n" + packed + b"\nendstream\nendobj\n%%EOF\r\n",
    "application/dicom": lambda packed: bytes(128) + b"DICM" + packed,
    "application/edf": lambda packed: EDF + packed,
    "audio/wav": lambda packed: riff(b"WAVE", b"fmt " + bytes(20) + b"data" + packed),
    "audio/mpeg": lambda packed: b"\xff\xfb\x90\x64" + packed,
    "audio/ogg": lambda packed: b"OggS\0\2" + packed,
    "audio/flac": lambda packed: b"fLaC\0\0\0\x22" + packed,
    "video/mp4": lambda packed: ftyp(b"isom") + box(b"mdat", packed) + moov(5, 5),
    "video/webm": lambda packed: EBML + packed,
    "video/x-msvideo": lambda packed: riff(b"AVI ", b"LIST" + packed),
}
SIGNATURES = [b"PK\3\4", b"PK\1\2", b"PK\5\6", b"\x7fELF", b"MZ\x90\0", b"%PDF", b"#!/b", b"Rar!", b"7z\xbc\xaf"]


@pytest.mark.parametrize("type_", HONEST)
def test_no_honest_file_is_refused_for_what_its_bytes_look_like(type_: str) -> None:
    chance = random.Random(type_)
    for _ in range(100):
        packed = bytearray(chance.randbytes(chance.randrange(100, 20_000)))
        for signature in SIGNATURES:
            position = chance.randrange(len(packed))
            packed[position : position + 4] = signature
        assert formats.matches(type_, HONEST[type_](bytes(packed)))


# What phones put behind a JPEG's end


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def jpeg_with(*segments: bytes) -> bytes:
    return JPEG[:20] + b"".join(segments) + JPEG[20:]


def mpf(first: int, second: int) -> bytes:
    """The index of two pictures, whose lengths are given (CIPA DC-007)."""
    head = struct.pack(">2sHIH", b"MM", 42, 8, 3)
    head += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")
    head += struct.pack(">HHII", 0xB001, 4, 1, 2) + struct.pack(">HHIII", 0xB002, 7, 32, 50, 0)
    pictures = struct.pack(">IIIHH", 0x030000, first, 0, 0, 0) + struct.pack(">IIIHH", 0, second, first - 28, 0, 0)
    return segment(0xE2, b"MPF\0" + head + pictures)


def xmp(said: str) -> bytes:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {said}/></x:xmpmeta>'
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet.encode())


def sef(*blocks: tuple[int, bytes, bytes]) -> bytes:
    """Samsung's trailer. The directory says how far before it each block is."""
    made = [struct.pack("<HHI", 0, kind, len(name)) + name + value for kind, name, value in blocks]
    entries = b"".join(
        struct.pack("<HHII", 0, block[0], len(b"".join(made[index:])), len(made[index]))
        for index, block in enumerate(blocks)
    )
    directory = b"SEFH" + struct.pack("<II", 107, len(blocks)) + entries
    return b"".join(made) + directory + struct.pack("<I", len(directory)) + b"SEFT"


GAIN_MAP = jpeg_with(xmp('hdrgm:Version="1.0"'))
ULTRA_HDR = jpeg_with(xmp('hdrgm:Version="1.0"'), mpf(300, len(GAIN_MAP)))
MOTION = jpeg_with(xmp('GCamera:MotionPhoto="1"'))
MICRO_VIDEO = jpeg_with(xmp('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="200"'))
FILM = box(b"ftyp", b"mp42" + bytes(4) + b"isommp42") + box(b"mdat", bytes(range(256))) + moov(5, 5)
LONG_HEAD = box(b"ftyp", b"isom" + bytes(4) + b"mp41" * 60) + moov(5, 5) + box(b"mdat", b"x" * 99)
UTC = (0x0A01, b"Image_UTC_Data", b"1700000000000")
MOTION_BLOCK = (0x0A30, b"MotionPhoto_Data", FILM)
VERSION = (0x0A31, b"MotionPhoto_Version", b"mpv3")
SAMSUNG = sef(UTC, (0x0C61, b"Camera_Capture_Mode_Info", b"1"), (0x0001, b"DualShot_1", JPEG))

PHONES = {
    "padding": JPEG + bytes(70_000),
    "white padding": JPEG + b"\r\n \t\0",
    "Ultra HDR": ULTRA_HDR + GAIN_MAP,
    "pictures at the begin of sectors": (ULTRA_HDR.ljust(512, b"\0") + GAIN_MAP).ljust(1024, b"\0") + JPEG + bytes(9),
    "a second picture that is cut short": ULTRA_HDR + GAIN_MAP[:-5],
    "a motion photo": MOTION + FILM,
    "a motion photo, its film first": MOTION + LONG_HEAD,
    "an old motion photo": MICRO_VIDEO + FILM,
    "a motion photo that is cut short": MOTION + FILM[:100],
    "a motion photo, padded": MOTION + bytes(16) + FILM + bytes(16),
    "a motion photo of a head as long as a space": MOTION + bytes(5) + ftyp(b"isom", *[b"mp41"] * 4) + FILM[24:],
    "a motion photo in Ultra HDR": ULTRA_HDR + GAIN_MAP + FILM,
    "a motion photo with a film of 64-bit length": MOTION + ftyp(b"isom") + FAR + moov(5, 5),
    "Samsung's": JPEG + SAMSUNG,
    "Samsung's in Ultra HDR": ULTRA_HDR + GAIN_MAP + SAMSUNG,
    "Samsung's motion photo": JPEG + sef(MOTION_BLOCK, VERSION, UTC),
    "Samsung's behind a film and padding": MOTION + FILM + bytes(100) + SAMSUNG,
    "Samsung's without blocks": JPEG + sef(),
}


@pytest.mark.parametrize("name", PHONES)
def test_pictures_of_phones(name: str) -> None:
    assert formats.matches("image/jpeg", PHONES[name])


OTHERS = {
    "an archive": archive(),
    "a program": PROGRAM,
    "a DOS program": DOS_PROGRAM,
    "a document": PDF,
    "a script": b"#!/bin/sh\nid\n",
    "a script for browsers": b"*/=1;alert(1)",
    "a page": b"<html><body onload=alert(1)>",
    "another picture": PNG,
    "a recording": EBML,
    "a short one": b"x",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", [name for name in PHONES if "cut short" not in name])
def test_nothing_else_is_behind_a_picture_of_a_phone(name: str, other: str) -> None:
    assert not formats.matches("image/jpeg", PHONES[name] + OTHERS[other])
    assert not formats.matches("image/jpeg", PHONES[name] + OTHERS[other] + SAMSUNG)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("begin", [JPEG, JPEG + bytes(9), ULTRA_HDR + GAIN_MAP, MOTION + FILM])
@pytest.mark.parametrize("end", [JPEG, FILM, SAMSUNG, bytes(9)])
def test_nothing_else_is_between_the_parts(begin: bytes, other: str, end: bytes) -> None:
    assert not formats.matches("image/jpeg", begin + OTHERS[other] + end)


@pytest.mark.parametrize("other", [other for other in OTHERS if other not in {"another picture", "a recording"}])
def test_no_block_of_a_trailer_is_something_else(other: str) -> None:
    if other not in {"a short one", "a script for browsers"}:  # text, which is what most blocks are
        assert not formats.matches("image/jpeg", JPEG + sef(UTC, (1, b"DualShot_1", OTHERS[other])))
    assert not formats.matches("image/jpeg", JPEG + sef((0x0A30, b"MotionPhoto_Data", OTHERS[other]), VERSION))
    assert not formats.matches("image/jpeg", JPEG + sef((0x0A30, b"MotionPhoto_Data", FILM + OTHERS[other]), VERSION))


HUGE = JPEG.replace(b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01", b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff")
DIRECTORY = SAMSUNG.index(b"SEFH")


def altered(position: int, *bytes_: int) -> bytes:
    return SAMSUNG[:position] + bytes(bytes_) + SAMSUNG[position + len(bytes_) :]


@pytest.mark.parametrize(
    "content",
    [
        JPEG + bytes(MAX_PADDING + 1),
        JPEG + bytes(MAX_PADDING // 2) + JPEG + bytes(MAX_PADDING // 2 + 1),
        JPEG + HUGE,
        JPEG + JPEG[:20] + JPEG[33:],  # without SOF
        JPEG + JPEG[:20],
        JPEG + b"\xff\xd8\xff\xd9",
        JPEG + b"\xff\xd8\xff\xe0" + PROGRAM,
        JPEG + FILM + FILM,
        JPEG + FILM[24:],  # without ftyp
        JPEG + ftyp(b"qt  ") + moov(5, 5),
        JPEG + ftyp(b"isom") + b"\0\0\0\0free" + PROGRAM,
        JPEG + ftyp(b"isom") + b"\0\0\0\7free" + PROGRAM,
        JPEG + ftyp(b"isom") + b"\0\1\0\0free" + PROGRAM,
        JPEG + sef((0x0A30, b"MotionPhoto_Data", FILM[:-1])),
        JPEG + sef((0x0A30, b"MotionPhoto_Data", b"")),
        JPEG + sef((1, b"", b"1")),
        JPEG + sef((1, b"\0\1", b"1")),
        JPEG[:-1] + SAMSUNG,
        JPEG + SAMSUNG[:-1],
        JPEG + SAMSUNG[:DIRECTORY],
        JPEG + SAMSUNG[1:],
        JPEG + SAMSUNG[:DIRECTORY] + b"x" + SAMSUNG[DIRECTORY:],
        JPEG + altered(2, 9),  # the kind of the first block
        JPEG + altered(4, 0xFF),  # the length of its name
        JPEG + altered(7, 0xFF),
        JPEG + altered(DIRECTORY, 0),
        JPEG + altered(DIRECTORY + 8, 2),  # the number of blocks
        JPEG + altered(DIRECTORY + 8, 0xFF, 0xFF, 0xFF, 0xFF),
        JPEG + altered(DIRECTORY + 16, 0),  # where the first block begins
        JPEG + altered(DIRECTORY + 19, 0xFF),
        JPEG + altered(DIRECTORY + 20, 0xFF),  # its length
        JPEG + altered(len(SAMSUNG) - 8, 0xFF, 0xFF),  # the directory's
        b"\xff\xd8\xff" + SAMSUNG,
    ],
)  # fmt: skip
def test_altered_pictures_of_phones(content: bytes) -> None:
    assert not formats.matches("image/jpeg", content)


@pytest.mark.parametrize("name", PHONES)
def test_altered_pictures_of_phones_never_break_it(name: str) -> None:
    chance = random.Random(name)
    for _ in range(300):
        content = bytearray(PHONES[name][:3000])
        content[chance.randrange(len(content))] = chance.randrange(256)
        formats.matches("image/jpeg", bytes(content))


# Files of tiny pieces


class Watched(bytes):
    """Counts how often it is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


SIZE = 10 * 1024 * 1024
PIECES: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "chunks": ("image/png", PNG[:33], b"\0\0\0\0tEXt\0\0\0\0", PNG[-12:]),
    "blocks": ("image/gif", GIF[:-1] + b"\x21\xfe", b"\1x", b"\0;"),
    "extensions": ("image/gif", GIF[:-1], b"\x21\xfe\0", b";"),
    "frames": ("image/gif", GIF[:19], GIF[27:-1], b";"),
    "segments": ("image/jpeg", JPEG[:20], b"\xff\xfe\0\2", JPEG[20:]),
    "scans": ("image/jpeg", JPEG[:-2], b"\xff\xda\0\2", JPEG[-2:]),
    "pictures": ("image/jpeg", JPEG, b"\xff\xd8\xff\xc0\0\7\10\0\1\0\1\xff\xd9", b""),
    "boxes of a film": ("image/jpeg", JPEG + ftyp(b"isom"), box(b"free", b""), b""),
    "boxes": ("image/heic", ftyp(b"heic") + meta(5, 5), box(b"free", b""), b""),
    "tracks": ("image/avif", ftyp(b"avis"), box(b"moov", box(b"trak", b"")), moov(5, 5)),
    "properties": ("image/heic", ftyp(b"heic"), box(b"meta", bytes(4) + box(b"iprp", b"")), meta(5, 5)),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_file_of_tiny_pieces_is_soon_refused(name: str) -> None:
    type_, begin, piece, end = PIECES[name]
    assert formats.matches(type_, begin + piece * 3000 + end)
    content = Watched(begin + piece * (SIZE // len(piece)) + end)
    assert not formats.matches(type_, content)
    assert content.looks < 800_000


def test_a_directory_of_tiny_entries_is_soon_refused() -> None:
    pages = Watched(b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535))
    assert not formats.matches("image/tiff", pages)
    directory = b"SEFH" + struct.pack("<II", 107, 600_000) + bytes(12 * 600_000)
    blocks = Watched(JPEG + directory + struct.pack("<I", len(directory)) + b"SEFT")
    assert not formats.matches("image/jpeg", blocks)
    assert pages.looks + blocks.looks < 100


def test_fill_bytes_are_not_counted_one_by_one() -> None:
    content = Watched(JPEG[:20] + b"\xff" * SIZE + JPEG[20:])
    assert formats.matches("image/jpeg", content)
    assert content.looks < 100


def test_large_honest_files_are_far_from_the_limit() -> None:
    """As encoders cut them: blocks of 255 bytes (GIF), chunks of 8 KiB (PNG), a scan with restart markers (JPEG)."""
    assert formats.matches("image/gif", gif_of(bytes(SIZE)))
    chunk = struct.pack(">I", 8192) + b"IDAT" + bytes(8196)
    assert formats.matches("image/png", PNG[:33] + chunk * (SIZE // len(chunk)) + PNG[-12:])
    assert formats.matches("image/jpeg", JPEG[:-2] + b"restart\xff\xd0" * (SIZE // 9) + JPEG[-2:])


def test_what_is_said_of_a_type_beside_its_name_does_not_matter() -> None:
    assert formats.media_type("Image/PNG ; q=1") == "image/png"
