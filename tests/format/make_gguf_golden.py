#!/usr/bin/env python3
"""Writes golden/quants.gguf (random blocks of every type, and metadata of every kind) with gguf-py, and
golden/quants.f32 (what gguf-py dequantizes them to, tensor after tensor in the order of TYPES, float32);
and golden/split-0000N-of-00003.gguf, five tensors t0 .. t4 in three files, t<i> four times the number i.

    python tests/format/make_gguf_golden.py        needs: pip install gguf numpy
"""
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFValueType as V

TYPES = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K]
HALVES = {  # byte offsets of a block's half-precision scales
    T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.Q2_K: [80, 82],
}  # fmt: skip
SHAPE = (3, 512)  # rows, columns


def random_bytes(rng, kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = SHAPE
    if kind == T.F32:
        return rng.standard_normal(SHAPE).astype(np.float32).view(np.uint8)
    if kind == T.F16:  # every exponent, subnormals, zeros and infinities, but no NaN
        bits = rng.integers(0, 1 << 16, SHAPE, dtype=np.uint16)
        bits[0, :4] = [0x0001, 0x83FF, 0x7C00, 0x8000]
        return np.where(np.isnan(bits.view(np.float16)), np.uint16(0x3C00), bits).view(np.uint8)
    if kind == T.BF16:
        return (rng.standard_normal(SHAPE).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    for at in HALVES[kind]:
        scales = rng.standard_normal((len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, columns // block * size)


def write_split(folder):
    out = gguf.GGUFWriter(folder / "split.gguf", "test", split_max_tensors=2)
    out.add_key_value("a.string", "in the first one", V.STRING)
    for i in range(5):
        out.add_tensor(f"t{i}", np.full(4, i, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    folder = pathlib.Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    write_split(folder)
    rng = np.random.default_rng(2402)
    out = gguf.GGUFWriter(folder / "quants.gguf", "test")
    for key, value, kind in [
        ("a.u8", 200, V.UINT8), ("a.i8", -100, V.INT8), ("a.u16", 60000, V.UINT16), ("a.i16", -30000, V.INT16),
        ("a.u32", 4000000000, V.UINT32), ("a.i32", -2000000000, V.INT32), ("a.f32", 0.1, V.FLOAT32),
        ("a.bool", True, V.BOOL), ("a.string", "Grüße\n", V.STRING), ("a.u64", 5, V.UINT64),
        ("a.u64_large", (1 << 64) - 1, V.UINT64), ("a.i64", -(1 << 62), V.INT64), ("a.f64", 0.1, V.FLOAT64),
    ]:  # fmt: skip
        out.add_key_value(key, value, kind)
    out.add_array("a.strings", ["", "a", "Ġ b"])
    out.add_array("a.ints", [1, -2, 3])
    out.add_array("a.floats", [0.5, -1.5])
    out.add_array("a.bools", [True, False])
    expected = []
    for kind in TYPES:
        data = random_bytes(rng, kind)
        out.add_tensor(kind.name.lower(), data, raw_shape=data.shape, raw_dtype=kind)
        expected.append(gguf.quants.dequantize(data, kind).reshape(SHAPE))
    out.add_tensor("cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    data = random_bytes(rng, T.Q2_K)
    out.add_tensor("unsupported", data, raw_shape=data.shape, raw_dtype=T.Q2_K)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    np.stack(expected).astype(np.float32).tofile(folder / "quants.f32")


if __name__ == "__main__":
    main()
