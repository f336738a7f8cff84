"""The report and the live page in a real browser: what they say and show, what they ask for, what a click does."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.results.reader import Results
from nasrecon.view import layers
from nasrecon.view.contents import survey_depths
from nasrecon.view.live import LivePage
from nasrecon.view.page_frame import choose_frame, overview
from nasrecon.view.report import write_report

from .browser import CHROMIUM, WHY_NOT, Browser
from .synthetic import HillWorld, write_results

WORLD = HillWorld()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def browser():
    with Browser(1300, 640) as opened:
        yield opened


@contextlib.contextmanager
def serving(folder):
    """A live page that is fed in the background; the port is whichever is free from 18080 on."""
    page, end = LivePage(folder, port=18080), threading.Event()

    def feed():
        while not end.is_set():
            if not page.step():
                time.sleep(0.05)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield page
    finally:
        end.set()
        thread.join(20)
        page.close()


def until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def colored(picture):
    """The part of the pixels that have a colour, not a grey."""
    return float((np.ptp(picture.astype(int), axis=-1) > 40).mean())


# The report ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(hills, tmp_path_factory):
    return write_report(hills[0], tmp_path_factory.mktemp("report") / "new" / "report.html")


@needs_browser
def test_report_opens_offline_from_disk_and_shows_everything(browser, report):
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    assert browser.evaluate("document.documentElement.dataset.ready") == "yes"
    text = browser.text()
    for said in (
        *("hills", "6 views, lengths in m", "3,042 faces; 9,000 points", "synthetic hills", "hills/0005.jpg"),
        *("Filter stages", "3 views agree", "70.0 %", "fuse, mesh"),
        *("no value", "right is red", "Depth, pixels of all views", "Quality of the views, worst first"),
    ):
        assert said in text, said
    assert len(re.findall(r"\d m\b", text)) > 20  # depths, bars and histograms have their unit
    assert browser.evaluate("[...document.images].length") >= 6 * 2 + 4
    assert browser.evaluate("document.querySelectorAll('canvas.map').length") == 6 * 2 + 2
    assert browser.evaluate("[...document.images].filter(i => !i.src.startsWith('data:')).length") == 0
    stage = browser.screenshot()[150:600, 40:600]
    assert colored(stage) > 0.1
    browser.evaluate("document.getElementById('layer-mesh').click()")
    time.sleep(0.3)
    assert colored(browser.screenshot()[150:600, 40:600]) < 0.5 * colored(stage)  # the cameras are left
    assert browser.requests == [report.as_uri()] and browser.errors == []


@needs_browser
def test_a_click_on_a_camera_of_the_report_shows_its_view(browser, report):
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    x, y = browser.evaluate(
        "(() => { const c = scene.corners(4).map((q) => scene.project(q)), r = scene.canvas.getBoundingClientRect();"
        " return [r.left + (c[0][0] + c[2][0]) / 2, r.top + (c[0][1] + c[2][1]) / 2]; })()"
    )
    assert browser.evaluate("document.getElementById('chosen-name').textContent") == "hills/0000.jpg"
    browser.click(x, y)
    browser.wait("document.getElementById('chosen-name').textContent === 'hills/0004.jpg'", 20)
    # One stands where the camera stood, once the way there is done.
    browser.wait("Math.hypot(...V.add(scene.eye(), data.cameras[4].at, -1)) < 1e-4", 30)
    assert browser.evaluate("document.querySelectorAll('#chosen .sources img').length") == 4
    assert browser.errors == []


@needs_browser
def test_the_report_fits_windows_of_all_widths(browser, report):
    """Nothing is wider than the window, so there is no scrolling sideways."""
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    try:
        for width in (390, 1000, 1440, 2560):
            browser.resize(width, 900)
            browser.wait(f"window.innerWidth === {width}")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        browser.resize(1300, 640)


def press(browser, key):
    """Press a key while the page has the focus."""
    text = {"text": key} if len(key) == 1 else {}
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def enlarged(browser):
    """The middle pixel (r, g, b) of the enlarged map, once it is painted."""
    return browser.evaluate(
        "(() => { const c = document.querySelector('#nasrecon-enlarged canvas');"
        " return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3); })()"
    )


@needs_browser
def test_a_click_on_a_map_of_the_report_enlarges_it_and_the_cursor_reads_its_values(browser, hills, report):
    """The values are those of the results; a switch changes the depths' scale; keys step and close."""
    estimate = Results.open(hills[0])[0]
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    rect = "(() => { const r = %s.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
    browser.evaluate("document.querySelector('#chosen canvas.map').scrollIntoView()")
    browser.click(*browser.evaluate(rect % "document.querySelector('#chosen canvas.map')"))
    browser.wait("document.querySelector('#nasrecon-enlarged .on')?.textContent === 'Depth'", 10)
    time.sleep(0.5)
    x, y = browser.evaluate(rect % "document.querySelector('#nasrecon-enlarged canvas')")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 1, y=y + 1)
    said = browser.evaluate("document.querySelector('#nasrecon-enlarged .readout').textContent")
    column, row, depth, sigma, confidence, *normal = map(float, re.findall(r"-?\d+\.?\d*", said))
    there = int(row), int(column)
    assert 60 < column < 68 and depth == pytest.approx(estimate.depth[there], rel=0.01) and " m, sigma" in said
    assert sigma == pytest.approx(0.01 * depth, rel=0.08)
    assert confidence == pytest.approx(estimate.confidence[there], abs=0.006)
    np.testing.assert_allclose(normal, estimate.normal[there] * (1, -1, -1), atol=0.1)  # JPEG's error
    before = enlarged(browser)
    browser.evaluate("nasreconMaps.setScale('view')")
    until(lambda: enlarged(browser) != before, 10)
    press(browser, "3")
    browser.wait("document.querySelector('#nasrecon-enlarged .on').textContent === 'Normals'", 10)
    press(browser, "ArrowRight")
    browser.wait("document.querySelector('#nasrecon-enlarged .name').textContent === 'hills/0001.jpg'", 10)
    press(browser, "Escape")
    browser.wait("!document.querySelector('#nasrecon-enlarged')", 10)
    assert browser.errors == []


@needs_browser
def test_keys_and_the_dark_switch_of_the_report(browser, report):
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    light = browser.screenshot()[500:510, 40:50].mean()
    for key, changed in (
        ("ArrowRight", "document.getElementById('chosen-name').textContent === 'hills/0001.jpg'"),
        ("ArrowLeft", "document.getElementById('chosen-name').textContent === 'hills/0000.jpg'"),
        ("m", "!scene.options.mesh"),
        ("c", "scene.options.points"),
        ("p", "!scene.options.cameras"),
        ("d", "document.documentElement.dataset.theme === 'dark'"),
        ("?", "document.getElementById('keys').innerText.includes('frame all')"),
        ("f", "scene.stand === scene.overview"),
    ):
        press(browser, key)
        browser.wait(changed, 10)
    time.sleep(0.8)
    assert browser.screenshot()[500:510, 40:50].mean() < light - 100
    assert browser.errors == []


@needs_browser
def test_two_clicks_in_the_report_measure_a_distance(browser, hills, report):
    """Between two corners of the mesh, whose places are known."""
    browser.open(report.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    ends = np.array([[-1.2, -1.0], [1.1, 0.9]])
    points = np.concatenate([ends, WORLD.height(ends)[:, None]], axis=-1)
    results = Results.open(hills[0])
    frame = choose_frame(results.views, survey_depths(results).points_in_world)
    press(browser, "r")
    for point in frame.points(points):
        browser.click(
            *browser.evaluate(
                f"(() => {{ const p = scene.project({point.tolist()}), r = scene.canvas.getBoundingClientRect();"
                " return [r.left + p[0], r.top + p[1]]; })()"
            )
        )
    browser.wait("document.getElementById('distance').textContent.startsWith('distance')", 10)
    said = browser.evaluate("document.getElementById('distance').textContent")
    distance = float(re.search(r"distance ([\d.]+) m;", said)[1])
    assert distance == pytest.approx(np.linalg.norm(np.diff(points, axis=0)), rel=0.02)
    assert browser.evaluate("document.querySelector('#measured text').textContent.endsWith(' m')")
    assert browser.evaluate("document.querySelector('#scalebar span').textContent.endsWith(' m')")
    assert browser.errors == []


@needs_browser
def test_report_without_fusion_says_so_and_escapes_names(browser, unfused, tmp_path):
    path = write_report(unfused, tmp_path / "report.html")
    browser.open(path.as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    text = browser.text()
    assert "No mesh yet: run nasrecon fuse" in text and "3 of 5 views are finished" in text and "unfused <b>&" in text
    assert "known once the views are fused" in text and "no mesh;" in text
    assert colored(browser.screenshot()[150:600, 40:600]) > 0.01  # the points of the views
    assert browser.errors == []


def test_report_keeps_to_its_size_and_says_what_it_thinned(tmp_path):
    folder = tmp_path / "run"
    write_results(folder, HillWorld(), views=2, size=(64, 48), grid=150, points=60_000)
    whole = write_report(folder, tmp_path / "whole.html").read_text()
    small = write_report(folder, tmp_path / "small.html", max_mb=0.6).read_text()
    assert len(small) < 0.6e6 < 0.8e6 < len(whole)
    shown = [
        [int(n) for n in re.search(r'"points": \{"count": (\d+), "of": (\d+)', text).groups()]
        for text in (whole, small)
    ]
    assert shown[0] == [60_000, 60_000] and shown[1][0] < 40_000 and shown[1][1] == 60_000
    with pytest.raises(InputError, match="raise --max-mb"):
        write_report(folder, tmp_path / "tiny.html", max_mb=0.05)
    assert not (tmp_path / "tiny.html").exists()
    assert "default-src 'none'" in whole and "http://" not in whole.replace("http://www.w3.org/2000/svg", "")


# The live page -------------------------------------------------------------------------------------------------------


@needs_browser
def test_live_page_shows_everything_and_asks_nobody_else(browser, hills):
    folder, views = hills
    with serving(folder) as page:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait(
            "document.body?.innerText.includes('3,042 faces') && document.querySelectorAll('figure img').length >= 4"
        )
        until(lambda: "9,000</b> points" in page.controls.status.content and not page.step())
        text = browser.text()
        for said in (
            "6 views",
            "9,000 points",
            "hills/0000.jpg",
            "Layers",
            "Point cloud",
            "no value",
            "Sources",
            "median confidence",
        ):
            assert said in text, said
        assert re.search(r"depth \d\.\d+ m to \d\.\d+ m", text)
        until(lambda: stands_at_overview(page, views))
        until(lambda: colored(browser.screenshot()[150:600, 410:790]) > 0.08)

        page.controls.camera_size.value = 20.0
        box = browser.evaluate(
            "(() => { const r = [...document.querySelectorAll('canvas')].pop().getBoundingClientRect();"
            " return [r.left, r.top, r.width, r.height]; })()"
        )
        there = page.frame.page_from_cam(views[3])[:3, 3]
        shows_it = "document.body.innerText.includes('hills/0003.jpg')"
        for _ in range(6):  # a slow machine may not have drawn the larger cameras yet
            browser.click(*place_of_camera(page, views[3], visitor(page).camera, box))
            with contextlib.suppress(AssertionError):
                browser.wait(shows_it, 5)
                break
        assert browser.evaluate(shows_it)
        browser.wait("!document.body.innerText.includes('hills/0000.jpg')", 30)
        until(lambda: np.linalg.norm(visitor(page).camera.position - there) < 1e-4)

        page.controls.cloud.value = True
        for coloring, said in (
            ("depth", "in the nearest view"),
            ("support", "views that agree"),
            ("confidence", "the highest of"),
        ):
            page.controls.coloring.value = coloring
            browser.wait(f"document.body.innerText.includes('{said}')", 20)
        page.controls.threshold.value = 0.5
        until(lambda: "of 9,000</b> points" in page.controls.status.content)
        addresses = {re.sub(r"^(http|ws)://", "", url) for url in browser.requests}
        assert addresses and all(address.startswith(f"127.0.0.1:{page.port}/") for address in addresses), addresses
        assert any(url.startswith("ws://") for url in browser.requests) and browser.errors == []


@needs_browser
def test_a_live_page_that_is_set_back_shows_everything_again(browser, hills):
    """viser's page sets its camera back when it comes round to it, on a slow machine after the page was greeted."""
    folder, views = hills
    with serving(folder) as page:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait("document.body?.innerText.includes('3,042 faces')")
        until(lambda: stands_at_overview(page, views))
        went_back, stand_back, home = [], page.cameras.stand_back, page.server.initial_camera.position

        def noted(client):
            went_back.append(np.allclose(client.camera.position, home, atol=1e-3))
            return stand_back(client)

        page.cameras.stand_back = noted
        for _ in range(20):  # what is set back while it is being shown everything is not seen to have been
            page.server.scene.set_up_direction("+z")  # which makes the page take the server's initial camera
            time.sleep(1)
            until(lambda: stands_at_overview(page, views))
            if any(went_back):
                break
        assert any(went_back) and browser.errors == []


def visitor(page):
    """The client of the browser's page: the last that came, None before."""
    clients = page.server.get_clients()
    return clients[max(clients)] if clients else None


def stands_at_overview(page, views):
    """Whether the browser's camera has come to where the page begins."""
    client = visitor(page)
    if client is None:
        return False
    camera = client.camera
    stand = overview(page.frame, views, page.survey.points_in_world, camera.aspect)
    return all(np.allclose(*pair, atol=1e-3) for pair in zip((camera.position, camera.look_at), stand, strict=True))


def place_of_camera(page, view, camera, box):
    """Where the middle of a frustum's picture is on the page [px]; ``box``: the canvas, left, top, width, height."""
    page_from_cam = page.frame.page_from_cam(view)
    frustum = page.cameras.frustums[view.name]
    tan_y = np.tan(frustum.fov / 2)
    far = frustum.scale / np.cbrt(tan_y * tan_y * frustum.aspect / 3)  # viser gives all frustums the same volume
    point = page_from_cam[:3, 3] + far * page_from_cam[:3, 2]
    forward = camera.look_at - camera.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    ray, focal = point - camera.position, box[3] / (2 * np.tan(camera.fov / 2))
    z = ray @ forward
    return box[0] + box[2] / 2 + focal * (ray @ right) / z, box[1] + box[3] / 2 + focal * (
        ray @ np.cross(forward, right)
    ) / z


def test_live_page_fills_while_infer_runs(unfused, tmp_path):
    """Nothing at first, then views one by one, then what was fused; what is missing is said in the meantime."""
    folder = tmp_path / "run"
    write_results(folder, HillWorld(), views=3, size=(64, 48), finished=0)
    with serving(folder) as page:
        assert "Waiting for the first view" in page.controls.status.content
        write_results(folder, HillWorld(), views=3, size=(64, 48), finished=1)
        until(lambda: "1 of 3</b> views" in page.controls.status.content)
        until(lambda: "points" in page.controls.status.content)
        for said in ("No mesh yet", "No cloud yet", "1 of 3 views are finished", "views appear as they do"):
            assert said in page.controls.status.content
        write_results(folder, HillWorld(), views=3, size=(64, 48), grid=20, points=500)
        until(lambda: "3</b> views" in page.controls.status.content and "722</b> faces" in page.controls.status.content)
        until(lambda: "500</b> points" in page.controls.status.content)
        assert "No mesh" not in page.controls.status.content
        (folder / "mesh.ply").write_bytes((folder / "mesh.ply").read_bytes()[:-50])
        until(lambda: "mesh.ply: expected a mesh" in page.controls.status.content)


def test_live_page_wants_a_results_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        LivePage(tmp_path / "nothing", port=18080)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no finished view"):
        LivePage(tmp_path / "empty", port=18080)


def test_viz_command_takes_a_free_port_of_this_machine_only_and_ends_on_ctrl_c(hills):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "nasrecon", "viz", str(hills[0]), "--port", str(port)]
        # A test run that was started in the background ignores Ctrl-C, and so would what it starts.
        listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
        )
        try:
            lines = [process.stdout.readline().strip() for _ in range(4)]
            found = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)", lines[1])[1])
            assert port < found < port + 100 and lines[0] == f"port {port} is in use, took {found}"
            assert f"ssh -L {found}:127.0.0.1:{found} " in lines[2] and "Ctrl-C" in lines[3]
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
    monkeypatch.setattr(layers, "MAX_FACES", 500)
    folder = tmp_path / "run"
    write_results(folder, HillWorld(), views=1, size=(32, 24), grid=40)
    with serving(folder) as page:
        until(lambda: "of 3,042</b> faces (thinned for the browser)" in page.controls.status.content)


def test_a_damaged_view_is_named_and_not_fatal(hills, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(hills[0], folder)
    file = folder / Results.open(folder).manifest["views"][2]["file"]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)
    with serving(folder) as page:
        until(lambda: file.name in page.controls.status.content)
        until(lambda: "3,042</b> faces" in page.controls.status.content)
