"""The live page in windows of all widths, and its keys, in a real browser."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from .pages import canvas_box, colored, needs_browser, on_page, opened, press, serving, stands_at_overview, until


@needs_browser
def test_the_scene_is_framed_beside_the_panels(browser, hills):
    """All cameras and the hills lie inside the part of the window that no panel covers, at every width."""
    browser.resize(1000, 900)
    try:
        with serving(hills[0]) as page:
            visitor = opened(page, browser)
            for width in (1000, 1440, 2560):
                browser.resize(width, 900)
                left, top, across, down = box = framed(page, browser, visitor, width)
                assert left >= 0 and left + across <= width and across > 0.35 * width
                ends = [page.data.frame.page_from_cam(view)[:3, 3] for view in visitor.cameras.views.values()]
                places = np.array([on_page(end, visitor.client.camera, box) for end in ends])
                assert (places > (left, top)).all() and (places < (left + across, top + down)).all()
                rows, columns = slice(round(top), round(top + down)), slice(round(left), round(left + across))
                until(lambda: colored(browser.screenshot()[rows, columns]) > 0.04)  # noqa: B023
            assert browser.errors == []
    finally:
        browser.resize(1300, 640)


def framed(page, browser, visitor, width):
    """The scene's canvas (left, top, width, height) [px], once window, canvas and camera have settled."""
    browser.wait(f"window.innerWidth === {width}", 20)

    def settled():
        box = canvas_box(browser)
        aspect = visitor.client.camera.aspect
        return abs(aspect * box[3] / box[2] - 1) < 0.02 and stands_at_overview(page, visitor)

    until(settled)
    return canvas_box(browser)


@needs_browser
def test_panels_are_as_wide_as_a_phone_and_the_scene_is_above_them(browser, hills):
    browser.resize(390, 844)
    try:
        with serving(hills[0]) as page:
            browser.open(f"http://127.0.0.1:{page.port}/")
            fixed = "document.querySelectorAll('[style*=\"position: fixed\"]')"
            sheet = f"[...{fixed}].find((e) => e.innerText.includes('Layers'))"
            browser.wait(f"{sheet}?.getBoundingClientRect().width === 390", 60)
            top = browser.evaluate(f"{sheet}.getBoundingClientRect().top")
            assert top > 300
            until(lambda: colored(browser.screenshot()[170 : int(top)]) > 0.08)
            assert browser.errors == []
    finally:
        browser.resize(1300, 640)


@needs_browser
def test_keys_of_the_live_page(browser, hills):
    """They step through the views, frame all, and switch mesh, cloud and cameras, as the widgets show."""
    with serving(hills[0]) as page:
        visitor = opened(page, browser)
        controls = visitor.controls
        for key, name in (("ArrowRight", "hills/0001.jpg"), ("ArrowLeft", "hills/0000.jpg")):
            press(browser, key)
            until(lambda: browser.evaluate("1") and visitor.cameras.chosen == name, 20)  # noqa: B023
        place = page.data.frame.page_from_cam(visitor.cameras.views["hills/0000.jpg"])[:3, 3]
        until(lambda: browser.evaluate("1") and np.allclose(visitor.client.camera.position, place, atol=1e-4), 20)

        def stands_back():
            press(browser, "f")  # again where the page was still on its way to the view
            with contextlib.suppress(AssertionError):
                until(lambda: browser.evaluate("1") and stands_at_overview(page, visitor), 4)
            return stands_at_overview(page, visitor)

        until(stands_back, 40)
        for key, box in (("m", controls.mesh), ("c", controls.cloud), ("p", controls.cameras), ("d", controls.dark)):
            before = box.value
            press(browser, key)
            until(lambda: browser.evaluate("1") and box.value is not before, 20)  # noqa: B023
        assert browser.errors == []


@needs_browser
@pytest.mark.parametrize(("key", "shift"), [("?", True), ("h", False)])
def test_a_key_lists_the_keys_of_the_live_page(browser, hills, key, shift):
    with serving(hills[0]) as page:
        opened(page, browser)
        assert not browser.evaluate("document.body.innerText.includes('clipping box on and off')")
        press(browser, key, shift=shift)
        browser.wait("document.body.innerText.includes('clipping box on and off')", 20)
        assert browser.errors == []
