"""Packed files of records and what Python's own readers (gzip, zstandard, json) find in them."""
import gzip
import io
import json
import pathlib
import struct

import zstandard

golden = pathlib.Path(__file__).parent / "golden"
rows = [{"text": "one \u00e9\U0001f600\r\n"}, {"text": None}, {"tokens": [1, 2, 3], "prompt_tokens": 1}, {"text": "x" * 300, "meta": {"a": [1, {"b": "}]\\\""}]}}]
lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
pretty = b"\xef\xbb\xbf" + json.dumps(rows, indent=1, ensure_ascii=False).encode()


def gzip_member(text: bytes) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(text)
    return packed.getvalue()


def zstd_frame(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(text)


skippable = struct.pack("<II", 0x184D2A50, 5) + b"extra"
files = {
    "members.jsonl.gz": b"".join(gzip_member(line) for line in lines) + bytes(7),  # padded with zeros
    "list.json.gz": gzip_member(pretty),
    "frames.jsonl.zst": skippable + zstd_frame(b"".join(lines[:2])) + skippable + zstd_frame(b"".join(lines[2:])),
    "list.json.zst": zstd_frame(pretty),
}
for name, packed in files.items():
    (golden / name).write_bytes(packed)
    unpacked = gzip.decompress(packed) if name.endswith(".gz") else zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True).read()
    text = unpacked.decode("utf-8-sig")
    found = json.loads(text) if ".json." in name else [json.loads(line) for line in text.split("\n") if line]
    assert found == rows, name
(golden / "packed.json").write_text(json.dumps(rows) + "\n")
