"""Measure the pages on a large run: 300 views and a mesh of 2 million faces, made here. Run by hand:

    python tests/view/large.py FOLDER [VIEWS] [FACES]

FOLDER is made where it does not exist. Prints the seconds from the start of the server to the first paint (the page
with its cameras), to the mesh and to the end of reading, the server's memory, and time and size of the report.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from view.browser import Browser
from view.synthetic import HillWorld, write_results


def memory_mb(process: int, name: str) -> float:
    """Return the memory of a process from Linux's own books: VmRSS (now) or VmHWM (at most)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def processor_seconds(process: int) -> float:
    """Return the processor time of a process and all that it started, from Linux's own books."""
    of_parent: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        number = int(path.parent.name)
        of_parent.setdefault(int(fields[1]), []).append(number)
        spent[number] = (int(fields[11]) + int(fields[12])) / 100
    waiting, total = [process], 0.0
    while waiting:
        number = waiting.pop()
        total += spent.get(number, 0.0)
        waiting += of_parent.get(number, [])
    return total


def measure_live(folder: Path) -> None:
    start = time.monotonic()
    command = [sys.executable, "-m", "nasrecon", "viz", str(folder), "--port", "8180"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    if not address.startswith("http"):
        address = server.stdout.readline().strip()
    print(f"address printed: {time.monotonic() - start:.1f} s", flush=True)
    browser_start = time.monotonic()
    with Browser(1000, 640) as browser:
        print(f"(the browser itself took {time.monotonic() - browser_start:.1f} s to start)")
        print(f"(the browser's start took {processor_seconds(browser.process_id):.1f} s of processor)", flush=True)
        browser.open(address)
        for what, sign in (
            ("page with its cameras", "views"),
            ("mesh", "faces"),
            ("all views read", None),
        ):
            if sign:
                browser.wait(f"document.body && document.body.innerText.includes('{sign}')", 300)
            else:
                browser.wait("document.body.innerText.includes('views to go')", 300)
                browser.wait("!document.body.innerText.includes('views to go')", 900)
            now = time.monotonic()
            memory = f"{memory_mb(server.pid, 'VmRSS'):.0f} MB, at most {memory_mb(server.pid, 'VmHWM'):.0f} MB"
            spent = f"server {processor_seconds(server.pid):.1f}, browser {processor_seconds(browser.process_id):.1f} s"
            print(f"{what}: {now - start:.1f} s after the start; processor: {spent}; server {memory}", flush=True)
        browser.screenshot(folder / "live.png")
        print(f"painted: {time.monotonic() - start:.1f} s, errors {browser.errors}")
    server.terminate()
    server.wait(20)


def measure_files(folder: Path) -> None:
    for option, name in (("--html", "report.html"), ("--png", "sheet.png")):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "nasrecon", "viz", str(folder), option, str(folder / name)], check=True)
        size = (folder / name).stat().st_size / 1e6
        print(f"{name}: {time.monotonic() - start:.1f} s, {size:.1f} MB", flush=True)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    views, faces = (int(text) for text in (sys.argv[2:4] + ["300", "2000000"][len(sys.argv) - 2 :]))
    if not where.exists():
        grid = int(np.sqrt(faces / 2)) + 1
        write_results(where, HillWorld(), views=views, size=(640, 480), grid=grid, points=4_000_000, distinct=6)
    measure_live(where)
    measure_files(where)
