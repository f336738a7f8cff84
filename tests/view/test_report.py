"""The report in a real browser: what it says and shows, what it asks for, what a click does."""

from __future__ import annotations

import json
import re
import shutil
import time

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.results.reader import Results
from nasrecon.view.contents import survey_depths
from nasrecon.view.page_frame import choose_frame
from nasrecon.view.quality import COLUMNS
from nasrecon.view.report import write_report

from .pages import colored, needs_browser, press, until
from .synthetic import HillWorld, write_results

WORLD = HillWorld()


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
def test_a_click_on_a_row_of_the_quality_table_goes_to_the_view(browser, hills, tmp_path):
    """The table is sorted worst first, and its columns are those of the live page."""
    folder = tmp_path / "run"
    shutil.copytree(hills[0], folder)
    facts = json.loads((folder / "fusion.json").read_text())
    shares = dict(zip(Results.open(folder).names, (0.9, 0.8, 0.7, 0.0, 0.5, 0.6), strict=True))
    facts["quality"] = {name: {"confirmed": share, "agreement": 0.5 * share} for name, share in shares.items()}
    (folder / "fusion.json").write_text(json.dumps(facts))
    browser.open(write_report(folder, tmp_path / "report.html").as_uri())
    browser.wait("document.documentElement?.dataset.ready")
    heads = browser.evaluate("[...document.querySelectorAll('#quality th')].map((head) => head.innerText)")
    assert [name for name, _ in COLUMNS] == heads[1:-1]
    rows = browser.evaluate("[...document.querySelectorAll('#quality tr')].map((row) => row.innerText)")[1:]
    assert [row.split()[0] for row in rows] == [f"hills/{i:04d}.jpg" for i in (3, 4, 5, 2, 1, 0)]
    assert "nothing confirmed by other views" in rows[0] and "80 %" in rows[4] and "40 %" in rows[4]
    browser.evaluate("[...document.querySelectorAll('#quality tr')][1].click()")
    browser.wait("document.getElementById('chosen-name').textContent === 'hills/0003.jpg'", 20)
    browser.wait("Math.hypot(...V.add(scene.eye(), data.cameras[3].at, -1)) < 1e-4", 30)
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
            # The heads of the table stand in one line each, as do its cells.
            heights = "[...document.querySelectorAll('#quality tr')].map((row) => row.clientHeight)"
            assert max(browser.evaluate(heights)) < 40
    finally:
        browser.resize(1300, 640)


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
