"""What is kept: a row a step, the logs and files of a working folder, and the three files made of them, each whole at any moment."""

import csv
import io
import os
import tarfile
import time
from pathlib import Path

from . import report

COLUMNS = ["part", "step", "began_utc", "seconds", "limit_seconds", "exit_code", "command"]
# The most bytes of an archive, and of one file in it, tried in turn: of a longer log the beginning and the end are kept, and other files
# are left out, with a word.
ARCHIVE = 15 << 20
FILE = (2 << 20, 128 << 10, 8 << 10)
NOTE = "left-out.txt"
# Of the working folder, what is no result.
LEFT_OUT = {"bin"}


class Results:
    def __init__(self, folder, work, dry=False):
        self.folder, self.work, self.dry, self.rows = Path(folder), Path(work), dry, []
        # A dry run leaves no trace.
        if not dry:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.begin_with(self.folder)

    def begin_with(self, folder):
        """Takes over what earlier calls left; nothing there is fine."""
        try:
            with open(folder / "steps.csv", newline="") as file:
                rows = [r for r in csv.DictReader(file) if set(COLUMNS) <= set(r)]
        except (OSError, csv.Error, UnicodeDecodeError):
            rows = []
        known = {(r["part"], r["step"]) for r in rows}
        self.rows = [r for r in self.rows if (r["part"], r["step"]) not in known] + rows
        try:
            with tarfile.open(folder / "results.tar.gz") as archive:
                archive.extractall(self.work, members=plain(archive), filter="data")
        except (OSError, tarfile.TarError, EOFError):
            pass

    def log(self, part, step):
        path = self.work / part / f"{step}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def row(self, part, step):
        return next((r for r in self.rows if (r["part"], r["step"]) == (part, step)), None)

    def put(self, part, step, limit, code, command, seconds=0, began=None):
        """The row of a step, in the place of an earlier one."""
        old = self.row(part, step)
        began = began or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = dict(zip(COLUMNS, [part, step, began, str(round(seconds)), str(limit), str(code), command]))
        if old:
            self.rows[self.rows.index(old)] = row
        else:
            self.rows.append(row)

    def keep(self):
        """Writes the three files."""
        if self.dry:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows)
        self.replace("steps.csv", text.getvalue().encode())
        said = report.report(self)
        self.replace("report.md", said.encode())
        self.replace("results.tar.gz", self.archive())

    def replace(self, name, content):
        """By renaming: whoever reads, at whatever moment, reads a whole file."""
        part = self.folder / f".{name}.part"
        part.write_bytes(content)
        os.replace(part, self.folder / name)

    def archive(self):
        for most in FILE:
            packed = self.packed(most)
            if len(packed) <= ARCHIVE:
                break
        return packed

    def packed(self, most):
        out, too_long = io.BytesIO(), []
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as archive:
            for path in sorted(self.work.rglob("*")):
                name = path.relative_to(self.work)
                if path.is_file() and not path.is_symlink() and name.parts[0] not in LEFT_OUT | {NOTE}:
                    add(archive, path, str(name), most, too_long)
            if too_long:
                put(archive, NOTE, "".join(f"{line}\n" for line in too_long).encode(), time.time())
        return out.getvalue()


def plain(archive):
    return [m for m in archive.getmembers() if m.isfile()]


def add(archive, path, name, most, too_long):
    """A file that a step is still writing may change or go away meanwhile."""
    try:
        facts = path.stat()
        if facts.st_size > most and path.suffix != ".log":
            return too_long.append(f"{name}: {facts.st_size} bytes")
        put(archive, name, shortened(path, most), facts.st_mtime)
    except OSError:
        pass


def put(archive, name, content, modified):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), modified
    archive.addfile(entry, io.BytesIO(content))


def shortened(path, most):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            return file.read(most)
        begin = file.read(most // 2)
        file.seek(size - most // 2)
        return begin + f"\n[{size - most} bytes are left out here]\n".encode() + file.read(most // 2)
