"""What the parts of scripts/gpu-check share: commands that end when their time is over, the log, the table and the figures."""

import csv
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def commit_of(deps):
    """Of the checkout; of a tree without one, what TS_COMMIT or --prepare said."""
    if os.environ.get("TS_COMMIT"):
        return os.environ["TS_COMMIT"]
    if shutil.which("git") and (ROOT / ".git").exists():
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    prepared = deps / "commit"
    return f"{prepared.read_text().strip()}, or later" if prepared.is_file() else "unknown"


class Done:
    """How a command ended: `status` (None = cut), `stdout`, `out` (with stderr before it), `seconds`."""

    def __init__(self, status, stdout, stderr, seconds):
        self.status, self.stdout, self.out, self.seconds = status, stdout, stderr + stdout, seconds

    @property
    def ok(self):
        return self.status == 0

    def how(self):
        return "ok" if self.ok else "cut: its time was over" if self.status is None else f"FAILED ({self.status})"


class Run:
    """One run: its folder of results, the deadline of all parts together, and what has been found."""

    def __init__(self, out, head, seconds):
        self.out, self.head = out, head
        self.began = time.monotonic()
        self.deadline = self.part_deadline = self.began + seconds
        self.failed, self.csv = [], {}
        out.mkdir(parents=True, exist_ok=True)
        self.log = open(out / "log.txt", "w", encoding="utf-8", errors="replace")
        self.table = open(out / "table.txt", "w", encoding="utf-8")
        self.figures = open(out / "figures.csv", "w", encoding="utf-8", newline="")
        self.rows = csv.writer(self.figures, lineterminator="\n")
        for key, value in head.items():
            self.say(f"{key}: {value}")
            self.figures.write(f"# {key}: {value}\n")
        self.rows.writerow(["part", "what", "value", "unit", "note"])

    def say(self, line=""):
        for to in (self.table, self.log):
            to.write(line + "\n")
            to.flush()
        print(line, flush=True)

    def figure(self, part, what, value, unit, note=""):
        self.rows.writerow([part, what, f"{value:.6g}" if isinstance(value, float) else value, unit, note])
        self.figures.flush()

    def fail(self, words):
        self.failed.append(words)
        self.say(f"  FAILED: {words}")

    def left(self):
        return min(self.deadline, self.part_deadline) - time.monotonic()

    def command(self, *command, seconds=None, env=None, cwd=ROOT):
        """Runs it in a process group of its own, which ends with the part's time at the latest. Several threads may."""
        limit = min(self.left(), seconds or 1e9)
        command = [str(word) for word in command]
        head = f"\n$ {' '.join(command)}   (at {time.monotonic() - self.began:.1f} s, at most {limit:.0f} s)\n"
        if self.left() <= 1:
            self.log.write(head)
            return Done(None, "", "", 0)
        started = time.monotonic()
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                       start_new_session=True)
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            end_group(process)
            texts = []
            for said in (stdout, stderr):
                said.seek(0)
                texts.append(said.read().decode("utf-8", "replace"))
        done = Done(status, *texts, time.monotonic() - started)
        self.log.write(f"{head}{done.out}\n-> {done.how()}, {done.seconds:.1f} s\n")
        self.log.flush()
        return done

    def print_table(self, rows, shown=1000):
        """Rows of equally many cells, the first the heading; numbers to the right. Beyond `shown` rows only the table's file has them."""
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [str(cell).rjust(width) if re.fullmatch(r"-?[\d.]+(e-?\d+)?[x%]?", str(cell)) else str(cell).ljust(width)
                     for cell, width in zip(row, widths)]
            line = "  " + "  ".join(cells).rstrip()
            if number <= shown:
                self.say(line)
            else:
                self.table.write(line + "\n")
        if len(rows) > shown + 1:
            print(f"  ... {len(rows) - shown - 1} more in table.txt", flush=True)

    def csv_table(self, part, text, shown=1000):
        """What a program said as CSV, with its heading first: into the table, its lines into the figures, and into csv[part]."""
        lines = [line for line in text.splitlines() if "," in line and not line.startswith("#")]
        rows = [row for row in csv.reader(lines) if len(row) == len(next(csv.reader(lines[:1])))] if lines else []
        if len(rows) < 2:
            return False
        self.print_table(rows, shown)
        heading = rows[0]
        self.csv.setdefault(part, []).extend(dict(zip(heading, row)) for row in rows[1:])
        if {"value", "unit"} <= set(heading):
            numbers = [heading.index("value")]
        else:
            numbers = [i for i in range(len(heading)) if all(is_number(row[i]) for row in rows[1:])]
        names = [i for i, name in enumerate(heading) if i not in numbers and name != "unit"]
        for row in rows[1:]:
            for i in numbers:
                unit = row[heading.index("unit")] if heading[i] == "value" and "unit" in heading else heading[i]
                self.figure(part, " ".join(row[j] for j in names if row[j]), row[i], unit)
        return True


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def end_group(process):
    """Whatever the command left running; the command itself where it still runs."""
    for number, seconds in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:
            time.sleep(0.05)
    process.wait()
