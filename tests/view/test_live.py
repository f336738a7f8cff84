"""The live page in a real browser: what it shows, that it fills, what a click does, that each browser has its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.results.lock import locked
from nasrecon.results.reader import Results
from nasrecon.view import page_data
from nasrecon.view.live import LivePage
from nasrecon.view.panels import status_html

from .browser import Browser
from .pages import (
    canvas_box,
    colored,
    needs_browser,
    newest,
    opened,
    place_of_camera,
    press,
    serving,
    stands_at_overview,
    until,
)
from .synthetic import HillWorld, write_results


@needs_browser
def test_live_page_shows_everything_and_asks_nobody_else(browser, hills):
    folder, views = hills
    with serving(folder) as page:
        visitor = opened(page, browser)
        browser.wait(
            "document.body?.innerText.includes('3,042 faces') && document.querySelectorAll('figure .map').length === 4"
        )
        until(lambda: "9,000</b> points" in visitor.controls.status.content and not page.step())
        text = browser.text()
        for said in (
            *("6 views", "9,000 points", "hills/0000.jpg", "Layers", "Point cloud"),
            *("no value", "Sources", "median confidence"),
        ):
            assert said in text, said
        assert re.search(r"depth \d\.\d+ m to \d\.\d+ m", text)
        until(lambda: colored(browser.screenshot()[150:600, 410:790]) > 0.08)

        visitor.controls.camera_size.value = 20.0
        box, there = canvas_box(browser), page.data.frame.page_from_cam(views[3])[:3, 3]
        for _ in range(6):  # a slow machine may not have drawn the larger cameras yet
            browser.click(*place_of_camera(page, visitor, views[3], box))
            with contextlib.suppress(AssertionError):
                until(lambda: visitor.cameras.chosen == "hills/0003.jpg", 5)
                break
        browser.wait("document.querySelector('.nasrecon-view').innerText.startsWith('hills/0003.jpg')", 30)
        until(lambda: np.linalg.norm(visitor.client.camera.position - there) < 1e-4)
        # One looks through this camera: no photograph of another one stands in the way.
        assert all(frustum.image is None for frustum in visitor.cameras.frustums.values())

        visitor.controls.cloud.value = True
        for coloring, said in (
            ("depth", "in the nearest view"),
            ("agreeing views", "views that agree"),
            ("confidence", "the highest of"),
        ):
            visitor.controls.coloring.value = coloring
            browser.wait(f"document.body.innerText.includes('{said}')", 20)
        visitor.controls.threshold.value = 0.5
        until(lambda: "of 9,000</b> points" in visitor.controls.status.content)
        addresses = {re.sub(r"^(http|ws)://", "", url) for url in browser.requests}
        assert addresses and all(address.startswith(f"127.0.0.1:{page.port}/") for address in addresses), addresses
        assert any(url.startswith("ws://") for url in browser.requests) and browser.errors == []


@needs_browser
def test_a_live_page_that_is_set_back_shows_everything_again(browser, hills):
    """viser's page may take the server's initial camera after it was greeted; it reports it, and is framed again."""
    with serving(hills[0]) as page:
        visitor = opened(page, browser)
        until(lambda: stays(lambda: visitor.client.camera.position))
        went_back, stand_back, home = [], visitor.cameras.stand_back, page.server.initial_camera.position
        assert not np.allclose(visitor.client.camera.position, home, atol=0.1)

        def noted():
            went_back.append(np.allclose(visitor.client.camera.position, home, atol=1e-3))
            return stand_back()

        visitor.cameras.stand_back = noted

        def framed_again():
            if not any(went_back):  # the page may have missed it
                visitor.client.camera.position = home
            return browser.evaluate("1") and any(went_back) and stands_at_overview(page, visitor)

        until(framed_again)
        assert browser.errors == []


def stays(value, seconds=1.5):
    """Say whether an array is the same after a while."""
    before = value().copy()
    time.sleep(seconds)
    return np.array_equal(before, value())


@needs_browser
def test_each_browser_has_its_own_page(browser, hills):
    """What one switches, chooses and goes to leaves the other where it is."""
    with serving(hills[0]) as page:
        ours = opened(page, browser)
        with Browser(1300, 640) as other:
            theirs = opened(page, other)
            assert ours is not theirs and len(page.visitors) == 2
            until(lambda: stays(lambda: theirs.client.camera.position))  # framed for its window
            place = theirs.client.camera.position.copy()
            ours.controls.mesh.value = False
            ours.controls.dark.value = True
            ours.controls.clip.value = True
            browser.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Next').click()")
            browser.wait("document.querySelector('.nasrecon-view').innerText.startsWith('hills/0001.jpg')", 30)
            until(lambda: browser.screenshot()[20:60, 700:800].mean() < 80)
            assert other.screenshot()[20:60, 700:800].mean() > 150
            assert other.evaluate("document.querySelector('.nasrecon-view').innerText.startsWith('hills/0000.jpg')")
            assert (
                theirs.controls.mesh.value and theirs.box.corners is None and theirs.cameras.chosen == "hills/0000.jpg"
            )
            np.testing.assert_allclose(theirs.client.camera.position, place)
            assert browser.errors == [] and other.errors == []
        until(lambda: len(page.visitors) == 1)


def press_tab(browser, name):
    """Press a tab with the mouse, once the page listens to it."""
    tab = f"[...document.querySelectorAll('[role=tab]')].find((t) => t.innerText === '{name}')"

    def selected():
        box = f"(() => {{ const r = {tab}.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }})()"
        left, top, width, height = browser.evaluate(box)
        x, y = left + width / 2, top + height / 2
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        return browser.evaluate(f"{tab}.getAttribute('aria-selected') === 'true'")

    until(selected, 20)


@needs_browser
def test_quality_table_and_enlarged_maps_of_the_live_page(browser, hills, tmp_path):
    """A view with nothing confirmed comes first, is marked, and a click goes there; its maps state their values."""
    folder = tmp_path / "run"
    shutil.copytree(hills[0], folder)
    facts = json.loads((folder / "fusion.json").read_text())
    names = Results.open(folder).names
    facts["quality"] = {name: {"confirmed": 0.1 * i, "agreement": None} for i, name in enumerate(reversed(names))}
    (folder / "fusion.json").write_text(json.dumps(facts))
    with serving(folder) as page:
        visitor = opened(page, browser)
        until(lambda: browser.evaluate("1") and not page.data.unread and not page.step())
        press_tab(browser, "Quality")
        browser.wait("document.querySelectorAll('.nasrecon-quality tr[data-name]').length === 6", 30)
        first = "document.querySelector('.nasrecon-quality tr[data-name]')"
        browser.wait(f"{first}.innerText.includes('nothing confirmed by other views')", 30)
        assert visitor.cameras.frustums["hills/0005.jpg"].color == (224, 108, 0)
        browser.evaluate(f"{first}.click()")
        until(lambda: browser.evaluate("1") and visitor.cameras.chosen == "hills/0005.jpg")
        press_tab(browser, "View")
        browser.wait("document.querySelector('.nasrecon-view')?.innerText.startsWith('hills/0005.jpg')", 30)
        browser.wait("document.querySelector('figure[data-kind=depth] .map')?.onclick !== null", 20)
        browser.evaluate("document.querySelector('figure[data-kind=depth] .map').click()")
        browser.wait("document.querySelector('#nasrecon-enlarged .on')?.textContent === 'Depth'", 20)
        middle = "(() => { const r = document.querySelector('#nasrecon-enlarged canvas').getBoundingClientRect();"
        x, y = browser.evaluate(middle + " return [r.left + r.width / 2 + 1, r.top + r.height / 2 + 1]; })()")

        def values():
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            said = browser.evaluate("document.querySelector('#nasrecon-enlarged .readout').textContent")
            return re.search(r"depth ([\d.]+) m, sigma ([\d.]+) m, confidence ([\d.]+), normal", said)

        until(values, 20)
        depth, sigma, confidence = map(float, values().groups())
        estimate = Results.open(folder)[5]
        assert depth == pytest.approx(estimate.depth[48, 64], rel=0.02)
        assert sigma == pytest.approx(0.01 * depth, rel=0.1)
        assert confidence == pytest.approx(estimate.confidence[48, 64], abs=0.02)
        press(browser, "ArrowRight")
        browser.wait("document.querySelector('#nasrecon-enlarged .name').textContent === 'hills/0000.jpg'", 30)
        press(browser, "Escape")
        # The switch of the scale changes the depths at the ends of the colours, and so their marks.
        marks = "document.querySelector('figure[data-kind=depth] .marks').innerText"
        before = browser.evaluate(marks)
        switch = "(() => { const s = document.querySelector('.nasrecon-view select');"
        browser.evaluate(f"{switch} s.value = 'view'; s.onchange({{ target: s }}); }})()")
        browser.wait(f"{marks} !== {json.dumps(before)}", 20)
        assert browser.evaluate("document.querySelector('#nasrecon-enlarged')") is None and browser.errors == []


@needs_browser
def test_live_page_is_open_before_the_first_view_and_fills(browser, tmp_path):
    """Before its folder is there, while a run prepares, and once views come: one page, loaded once."""
    folder = tmp_path / "run"
    with serving(folder) as page:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait("document.body?.innerText.includes('No run is at work')")
        with locked(folder):
            browser.wait("document.body.innerText.includes('The run is at work')", 20)
        write_results(folder, HillWorld(), views=3, size=(64, 48), finished=1)
        browser.wait("document.body.innerText.includes('1 of 3 views')", 20)
        write_results(folder, HillWorld(), views=3, size=(64, 48), grid=20, points=500)
        browser.wait("document.body.innerText.includes('722 faces')", 20)
        until(lambda: browser.evaluate("1") and newest(page) and stands_at_overview(page, newest(page)))
        until(lambda: colored(browser.screenshot()[150:600, 410:790]) > 0.05)
        assert browser.errors == []


def test_live_page_fills_while_infer_runs(unfused, tmp_path):
    """Nothing at first, then views one by one, then what was fused; what is missing is said in the meantime."""
    folder = tmp_path / "run"
    write_results(folder, HillWorld(), views=3, size=(64, 48), finished=0)
    with serving(folder) as page:
        assert "Waiting for the first view" in status_html(page.data)
        assert "e08a00" not in status_html(page.data)  # orange: nothing needs attention
        write_results(folder, HillWorld(), views=3, size=(64, 48), finished=1)
        until(lambda: "1 of 3</b> views" in status_html(page.data))
        until(lambda: "points" in status_html(page.data))
        for said in ("No mesh yet", "No cloud yet", "1 of 3 views are finished", "views appear as they do"):
            assert said in status_html(page.data)
        write_results(folder, HillWorld(), views=3, size=(64, 48), grid=20, points=500)
        until(lambda: "3</b> views" in status_html(page.data) and "722</b> faces" in status_html(page.data))
        until(lambda: "500</b> points" in status_html(page.data))
        assert "No mesh" not in status_html(page.data) and "e08a00" not in status_html(page.data)
        (folder / "mesh.ply").write_bytes((folder / "mesh.ply").read_bytes()[:-50])
        until(lambda: "mesh.ply: expected a mesh" in status_html(page.data))
        assert "e08a00" in status_html(page.data)


def test_live_page_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for folder, message in ((tmp_path, "holds no finished view"), (tmp_path / "photo.jpg", "no such folder")):
        with pytest.raises(InputError, match=message):
            LivePage(folder, port=18080)


def test_viz_command_takes_a_free_port_of_this_machine_only_and_ends_on_ctrl_c(hills, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "nasrecon", "viz", str(hills[0]), "--port", str(port), "--open"]
        opened_in = tmp_path / "opened"
        (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {opened_in}\n')
        (tmp_path / "browser").chmod(0o755)
        # A test run that was started in the background ignores Ctrl-C, and so would what it starts.
        listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        env = os.environ | {"BROWSER": str(tmp_path / "browser")}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen, env=env
        )
        try:
            lines = [process.stdout.readline().strip() for _ in range(4)]
            found = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)", lines[1])[1])
            assert port < found < port + 100 and lines[0] == f"port {port} is in use, took {found}"
            assert f"ssh -L {found}:127.0.0.1:{found} " in lines[2] and "Ctrl-C" in lines[3]
            until(lambda: opened_in.is_file() and opened_in.read_text().strip() == lines[1], 10)
            socket.create_connection(("127.0.0.1", found), 5).close()
            with pytest.raises(OSError):  # 0.0.0.0 would listen there too
                socket.create_connection(("127.0.0.2", found), 2)
            time.sleep(1)  # that visitor is forgotten by then
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and stdout == "stopped\n" and "Traceback" not in stderr


def test_nothing_is_shared_over_the_internet(hills):
    with serving(hills[0]) as page:
        assert page.server.request_share_url() is None


def test_a_large_mesh_is_thinned_for_the_browser_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(page_data, "MAX_FACES", 500)
    folder = tmp_path / "run"
    write_results(folder, HillWorld(), views=1, size=(32, 24), grid=40)
    with serving(folder) as page:
        until(lambda: "of 3,042</b> faces (thinned for the browser)" in status_html(page.data))


def test_a_damaged_view_is_named_and_not_fatal(hills, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(hills[0], folder)
    file = folder / Results.open(folder).manifest["views"][2]["file"]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)
    with serving(folder) as page:
        until(lambda: file.name in status_html(page.data))
        until(lambda: "3,042</b> faces" in status_html(page.data))
