#!/usr/bin/env python3
"""Fails when a room includes a header of a room that its line in src/CMakeLists.txt does not allow."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
rooms = {}
for line in (root / "src/CMakeLists.txt").read_text().splitlines():
    match = re.match(r"ee_room\((\w+)\s*(.*)\)", line)
    if match:
        words = match.group(2).split()
        direct = []
        if "DEPS" in words:
            for word in words[words.index("DEPS") + 1 :]:
                if word.isupper():
                    break
                direct.append(word)
        unknown = [d for d in direct if d not in rooms]
        if unknown:
            sys.exit(f"src/CMakeLists.txt: room {match.group(1)} names {unknown}, which do not stand above it")
        rooms[match.group(1)] = {match.group(1), *direct, *(r for d in direct for r in rooms[d])}

problems = []
for room, allowed in rooms.items():
    files = [*(root / "src" / room).glob("**/*.[ch]*"), *(root / "include/ee" / room).glob("**/*.h")]
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = re.match(r'\s*#include [<"]ee/(\w+)/', line)
            if match and match.group(1) not in allowed:
                problems.append(f"{file.relative_to(root)}:{number}: room {room} may not include room {match.group(1)}")
print("\n".join(problems) or f"includes of {len(rooms)} rooms go one way")
sys.exit(1 if problems or not rooms else 0)
