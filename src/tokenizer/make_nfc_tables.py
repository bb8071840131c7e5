#!/usr/bin/env python3
"""Writes nfc_tables.inc: what canonical composition (Unicode's NFC) needs of the Unicode Character Database."""
import pathlib
import sys
import unicodedata

codes = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF and not 0xAC00 <= c <= 0xD7A3]


def rows(values, width=8):
    for i in range(0, len(values), width):
        yield "    " + " ".join(f"{value}," for value in values[i : i + width])


decompositions = []
for code in codes:
    parts = unicodedata.decomposition(chr(code)).split()
    if not parts or parts[0].startswith("<"):
        continue
    first, second = ([int(p, 16) for p in parts] + [0])[:2]
    # Excluded from composition: singletons, and what NFC of its own decomposition does not give back.
    composes = second != 0 and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code)
    decompositions.append(f"{{0x{code:X}, 0x{first:X}, 0x{second:X}, {int(composes)}}}")

classes = []  # [first, last, class]
for code in codes:
    value = unicodedata.combining(chr(code))
    if value == 0:
        continue
    if classes and classes[-1][1] == code - 1 and classes[-1][2] == value:
        classes[-1][1] = code
    else:
        classes.append([code, code, value])

lines = [
    f"// Unicode {unicodedata.unidata_version}. Written by make_nfc_tables.py: do not edit.",
    f"constexpr Decomposition kDecompositions[] = {{",
    *rows(decompositions, 4),
    "};",
    "constexpr CombiningClass kCombiningClasses[] = {",
    *rows([f"{{0x{a:X}, 0x{b:X}, {c}}}" for a, b, c in classes], 5),
    "};",
]
pathlib.Path(__file__).with_name("nfc_tables.inc").write_text("\n".join(lines) + "\n")
print(len(decompositions), "decompositions,", len(classes), "ranges of combining classes")
