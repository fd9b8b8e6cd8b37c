"""Makes corpus/austen.txt.zst of the folder of the R package janeaustenr: make.py FOLDER OUT (see README.md)."""

import re
import struct
import subprocess
import sys
import zlib

NOVELS = ["prideprejudice", "persuasion"]


def index(raw):
    """Where each object lies in the database, by its name: a serialized list of pairs of integers, and the list's names."""
    names = [n.decode() for n in re.findall(rb"\x00\x04\x00\x09\x00\x00\x00.([a-z]+)", raw, re.S)]
    pairs = [struct.unpack(">ii", p) for p in re.findall(rb"\x00\x00\x00\x0d\x00\x00\x00\x02(.{8})", raw, re.S)]
    first = names.index("names") + 1
    return dict(zip(names[first:], pairs))


def lines(data):
    """A serialized vector of texts."""
    at = 14
    (version,) = struct.unpack_from(">i", data, 2)
    if version == 3:
        at += 4 + struct.unpack_from(">i", data, at)[0]
    flags, count = struct.unpack_from(">ii", data, at)
    assert flags & 0xFF == 16, "not a vector of texts"
    at += 8
    for _ in range(count):
        flags, length = struct.unpack_from(">ii", data, at)
        at += 8
        yield data[at : at + length].decode("latin-1" if flags & 1 << 14 else "utf-8")
        at += length


def chapters(text):
    """The chapters, each from its heading on, without what stands before the first, between volumes and at the end."""
    text = re.sub(r"(?m)^\(End of volume \w+\.\)$", "", text)
    parts = re.split(r"(?m)^(?=Chapter \d+$)", text)[1:]
    parts[-1] = re.sub(r"\s*Finis\s*$", "", parts[-1])
    return [re.sub(r"\n{3,}", "\n\n", p).strip() + "\n" for p in parts]


def main(folder, out):
    with open(f"{folder}/data/Rdata.rdx", "rb") as file:
        places = index(zlib.decompressobj(47).decompress(file.read()))
    with open(f"{folder}/data/Rdata.rdb", "rb") as file:
        database = file.read()
    documents = []
    for novel in NOVELS:
        at, length = places[novel]
        (size,) = struct.unpack_from(">I", database, at)
        data = zlib.decompress(database[at + 4 : at + length])
        assert len(data) == size
        found = chapters("\n".join(line.rstrip() for line in lines(data)))
        print(novel, len(found), "chapters")
        documents += found
    text = "<|endoftext|>\n".join(documents).encode()
    subprocess.run(["zstd", "--ultra", "-22", "-q", "-f", "-o", out], input=text, check=True)
    print(len(text), "bytes")


main(*sys.argv[1:])
