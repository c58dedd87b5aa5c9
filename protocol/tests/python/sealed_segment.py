"""Writes a sealed segment with nothing but struct and zlib: how any language submits without our library.

Usage: sealed_segment.py STORE_HEX STREAM_HEX EPOCH OUTPUT
docs/format.md, sections 2, 3 and 7, is what this follows.
"""

import struct
import sys
import zlib


def text(value):
    encoded = value.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def value(v):
    if v is None:
        return struct.pack("<I", 0)
    if isinstance(v, int):
        return struct.pack("<Iq", 1, v)
    if isinstance(v, float):
        return struct.pack("<Id", 2, v)
    if isinstance(v, str):
        return struct.pack("<I", 3) + text(v)
    return struct.pack("<IQ", 4, len(v)) + v


def option(packed):
    return b"\0" if packed is None else b"\1" + packed


def statement(text_id, params, expect_rows=None):
    expected = None if expect_rows is None else struct.pack("<Q", expect_rows)
    packed = b"".join(value(v) for v in params)
    return struct.pack("<I", text_id) + option(expected) + struct.pack("<Q", len(params)) + packed


def command(statements, key=None):
    return option(key) + struct.pack("<Q", len(statements)) + b"".join(statements)


def frame(salt, offset, kind, count, sequence, payload, flags=0, submitted_ns=0):
    length = struct.pack("<I", 32 + len(payload))
    body = struct.pack("<BBHIQQ", kind, flags, 0, count, sequence, submitted_ns) + payload
    crc = zlib.crc32(struct.pack("<QQ", salt, offset) + length + body)
    return length + struct.pack("<I", crc) + body


def header(store, stream, epoch, salt):
    fields = b"\x89PNH\r\n\x1a\n" + struct.pack("<HHIII", 1, 128, 0, 0, 1) + store + stream
    fields += struct.pack("<QQQ", epoch, 1, salt) + bytes(16) + struct.pack("<Q", 0) + bytes(20)
    return fields + struct.pack("<I", zlib.crc32(fields))


def segment(store, stream, epoch, salt, definitions, commands):
    data = header(store, stream, epoch, salt)
    for text_id, (database, sql) in enumerate(definitions, start=1):
        payload = struct.pack("<I", text_id) + text(database) + text(sql)
        data += frame(salt, len(data), 1, 0, 1, payload)
    payload = struct.pack("<Q", len(commands)) + b"".join(commands)
    return data + frame(salt, len(data), 2, len(commands), 1, payload)


if __name__ == "__main__":
    store, stream, epoch, output = sys.argv[1:]
    data = segment(
        bytes.fromhex(store),
        bytes.fromhex(stream),
        int(epoch),
        0x0102030405060708,  # in earnest: int.from_bytes(os.urandom(8), "little")
        [("activity", "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5)"), ("config", "UPDATE p SET n = 1")],
        [
            command([statement(1, [None, -7, 0.5, "na\u00efve", b"\x00\xff"])]),
            command([statement(2, [], expect_rows=1), statement(1, [1, 2, 3, 4, 5])], key=b"sixteen bytes ok"),
        ],
    )
    with open(output, "wb") as file:
        file.write(data)
