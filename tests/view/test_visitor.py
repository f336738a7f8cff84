"""What a visitor of the live page does, without a browser: tools, quality, and that no other visitor notices."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nasrecon.results.preview import color_depth, color_normal
from nasrecon.results.reader import Results

from .pages import Client, serving, until
from .synthetic import HillWorld


@pytest.fixture
def page(hills, tmp_path):
    """A live page of the hills, whose last view has nothing confirmed."""
    folder = tmp_path / "run"
    shutil.copytree(hills[0], folder)
    facts = json.loads((folder / "fusion.json").read_text())
    names = Results.open(folder).names
    facts["quality"] = {name: {"confirmed": 0.1 * i, "agreement": None} for i, name in enumerate(reversed(names))}
    (folder / "fusion.json").write_text(json.dumps(facts))
    with serving(folder) as page:
        until(lambda: page.data.contents and page.data.mesh is not None and not page.data.unread)
        yield page


@pytest.fixture
def client(page):
    with contextlib.closing(Client(page)) as client:
        until(lambda: client.visitor.layers.mesh_shown is not None)
        yield client


def test_visitors_do_not_change_each_other(page, client):
    with contextlib.closing(Client(page)) as other:
        ours, theirs = client.visitor, other.visitor
        client.set(ours.controls.mesh, False)
        client.set(ours.controls.clip, True)
        client.set(ours.controls.go_to, "0002.jpg")
        until(lambda: ours.cameras.chosen == "hills/0002.jpg" and ours.box.corners is not None)
        until(lambda: not ours.client.scene.get_handle_by_name("/mesh").visible)
        assert theirs.cameras.chosen == "hills/0000.jpg" and theirs.box.corners is None
        assert theirs.controls.mesh.value and theirs.client.scene.get_handle_by_name("/mesh").visible
        until(lambda: "hills/0002.jpg" in ours.controls.pictures.content.split("Sources")[0])
        assert theirs.cameras.frustums["hills/0003.jpg"].image is not None
        # One looks through the camera: no photograph of another one stands in the way.
        until(lambda: all(frustum.image is None for frustum in ours.cameras.frustums.values()))
    until(lambda: len(page.visitors) == 1)


def test_the_quality_table_is_sorted_and_its_worst_view_is_marked(client):
    visitor = client.visitor
    until(lambda: "nothing confirmed by other views" in visitor.controls.quality.content)
    rows = re.findall(r"data-name='([^']*)'", visitor.controls.quality.content)
    assert rows[0] == "hills/0005.jpg" and rows[-1] == "hills/0000.jpg" and len(rows) == 6
    until(lambda: tuple(visitor.cameras.frustums["hills/0005.jpg"].color) == (224, 108, 0))
    for _ in range(2):  # the second time, too: the field is empty again
        client.set(visitor.controls.go_to, "hills/0005.jpg")
        until(lambda: visitor.cameras.chosen == "hills/0005.jpg" and visitor.controls.go_to.value == "")
        client.set(visitor.controls.view, "hills/0001.jpg")
        until(lambda: visitor.cameras.chosen == "hills/0001.jpg")


def test_normals_of_cloud_and_maps_share_colours_and_legend(page, client):
    """A point of the cloud has the colour of its normal in the map of the chosen view, whichever is chosen."""
    visitor = client.visitor
    client.set(visitor.controls.coloring, "normal")
    until(lambda: "legend of the normals" in visitor.controls.legend.content)
    assert "facing right is red, up is green, to the camera is blue" in visitor.controls.legend.content
    for name in ("hills/0002.jpg", "hills/0004.jpg"):
        client.set(visitor.controls.view, name)
        view = visitor.cameras.views[name]
        up_in_camera = color_normal(view.cam_from_world[:3, 2])  # the cloud's normals are (0, 0, 1)
        until(lambda: visitor.cameras.chosen == name)  # noqa: B023
        until(lambda: np.abs(cloud_colors(visitor).astype(int) - up_in_camera).max() <= 2)  # noqa: B023


def cloud_colors(visitor):
    return visitor.client.scene.get_handle_by_name("/cloud/" + b"fused".hex()).colors


def test_sliders_blend_photo_over_mesh_and_depth_over_photo(page, client):
    """The picture stands where the camera looks through it; its opacity and colours are those of the sliders."""
    visitor = client.visitor
    client.set(visitor.controls.view, "hills/0002.jpg")
    until(lambda: visitor.cameras.chosen == "hills/0002.jpg")

    def overlay():
        return visitor.client.scene.get_handle_by_name("/overlay")

    assert overlay() is None
    estimate = page.data.estimate("hills/0002.jpg")
    depth = color_depth(estimate.depth, page.data.survey.near, page.data.survey.far)
    for photo, part, expected in ((0.5, 0, estimate.rgb), (1, 1, depth), (1, 0.5, (estimate.rgb + 1.0 * depth) / 2)):
        client.set(visitor.controls.photo, photo)
        client.set(visitor.controls.depth, part)
        until(lambda: overlay() is not None and shown_by(visitor, expected, round(255 * photo)))  # noqa: B023
    client.set(visitor.controls.photo, 0)
    until(lambda: overlay() is None)


def shown_by(visitor, expected, alpha):
    image = np.asarray(Image.open(io.BytesIO(visitor.client.scene.get_handle_by_name("/overlay")._data)))
    return (image[..., 3] == alpha).all() and np.abs(image[..., :3].astype(float) - expected).mean() < 2


def test_two_clicks_measure_and_a_box_clips(page, client):
    visitor, frame = client.visitor, page.data.frame
    text = visitor.client.scene.get_handle_by_name("/scale_bar/label").text
    assert re.fullmatch(r"[125]0* m|0\.0*[125] m", text), text
    ends = np.array([[-1.2, -1.0], [1.1, 0.9]])
    ends = np.concatenate([ends, HillWorld().height(ends)[:, None]], axis=-1)
    client.set(visitor.controls.measure, True)
    until(lambda: "Click on two" in visitor.controls.distance.content)
    for point, said in zip(frame.points(ends), ("other end", "Distance"), strict=True):
        client.click(np.add(point, (0, 0, 2)), (0, 0, -1))
        until(lambda said=said: said in visitor.controls.distance.content)
    distance = float(re.search(r"Distance ([\d.]+) m", visitor.controls.distance.content)[1])
    assert distance == pytest.approx(np.linalg.norm(ends[1] - ends[0]), rel=0.01)
    assert visitor.client.scene.get_handle_by_name("/measured/label").text == f"{distance:g} m"
    client.set(visitor.controls.measure, False)
    until(lambda: visitor.client.scene.get_handle_by_name("/measured/label") is None)

    points, faces = visitor.layers.points_shown, len(visitor.layers.mesh_shown[1])
    client.set(visitor.controls.clip, True)
    until(lambda: visitor.client.scene.get_handle_by_name("/clipping/upper") is not None)
    assert visitor.layers.points_shown == points and len(visitor.layers.mesh_shown[1]) == faces
    visitor.box.move(1, np.array([0, *visitor.box.corners[1, 1:]]))
    visitor.box.changed()
    assert 0.3 * faces < len(visitor.layers.mesh_shown[1]) < 0.7 * faces
    assert 0.3 * points < visitor.layers.points_shown < 0.7 * points
    status = visitor.controls.status.content  # hidden, not thinned
    assert f"<b>{visitor.layers.points_shown:,} of 9,000</b> points<br>" in status
    client.set(visitor.controls.clip, False)
    until(lambda: visitor.layers.points_shown == points)
