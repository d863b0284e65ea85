"""The report in a browser: the image viewer does what it is told."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.report_sources import page_of, write_report_sources

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory, make_pairs) -> Path:
    return write_report_sources(tmp_path_factory.mktemp('report'), make_pairs)


@pytest.fixture(scope='module')
def written(folder) -> str:
    file = folder / 'report.html'
    file.write_text(page_of(folder), encoding='utf-8')
    return file.as_uri()


@pytest.fixture
def opened(browser, written) -> Iterator[Any]:
    """The report in a window; fails the test if anything was complained of on the console."""
    context = browser.new_context(viewport={'width': 900, 'height': 800}, offline=True)
    page, complaints = context.new_page(), []
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(written)
    settled(page)
    page.locator('#view').scroll_into_view_if_needed()
    yield page
    context.close()
    assert complaints == []


def settled(page: Any) -> None:
    """Wait until the view has been drawn and measured."""
    page.wait_for_function("document.getElementById('right-view').textContent.startsWith('view')")
    page.wait_for_timeout(300)


def pixels(page: Any) -> np.ndarray:
    """What the viewer shows, RGBA (H, W, 4)."""
    url = page.evaluate("document.getElementById('view').toDataURL('image/png')")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(url.split(',')[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image[..., [2, 1, 0, 3]].astype(np.uint8)


def test_slider_moves_the_border_between_the_two(opened):
    before = pixels(opened)
    box = opened.locator('#view').bounding_box()
    opened.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    opened.mouse.down()
    opened.mouse.move(box['x'] + box['width'] * 0.4, box['y'] + box['height'] / 2, steps=4)
    opened.mouse.up()
    assert abs(int(opened.input_value('#slider')) - 400) <= 2
    after = pixels(opened)
    changed = np.flatnonzero((before != after).any((0, 2)))
    width = before.shape[1]
    assert 0.39 * width < changed.min() and changed.max() < 0.51 * width
    opened.focus('#view')
    opened.keyboard.press('ArrowRight')
    assert abs(int(opened.input_value('#slider')) - 420) <= 2


def test_choices_change_the_picture(opened):
    first = pixels(opened)
    opened.select_option('#right', 'HR')
    second = pixels(opened)
    changed = np.flatnonzero((first != second).any((0, 2)))
    assert changed.min() >= first.shape[1] // 2 - 2  # the left side stays
    opened.select_option('#left', 'LR')
    third = pixels(opened)
    assert np.flatnonzero((second != third).any((0, 2))).max() < first.shape[1] // 2 + 2
    opened.select_option('#scene', '1')
    opened.wait_for_timeout(300)
    assert (third != pixels(opened)).any()
    opened.click('[data-name="EDSR"]')
    assert opened.input_value('#right') == 'EDSR'


def test_numbers_of_the_whole_view_are_those_of_the_test(opened, folder):
    content = json.loads((folder / 'results' / 'train_CLSD_x2_seed0' / 'results.json').read_text(encoding='utf-8'))
    for method, row in (('CLSD', 'train_CLSD_x2_seed0'), ('bicubic', 'bicubic')):
        opened.select_option('#right', method)
        opened.wait_for_function(f"document.getElementById('right-name').textContent === '{method}'")
        values = content['sets']['Set'][row]['images']['img1']
        assert opened.inner_text('#right-view') == f'view {values["psnr"]:.2f} dB / {values["ssim"]:.4f}'
        assert opened.inner_text('#right-image') == f'image {values["psnr"]:.2f} dB / {values["ssim"]:.4f}'


def test_zoom_shows_pixels_as_squares(opened, folder):
    box = opened.locator('#view').bounding_box()
    opened.select_option('#left', 'CLSD')
    opened.select_option('#right', 'CLSD')
    opened.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    fitted = int(opened.inner_text('#zoom').split()[0]) // 100
    opened.mouse.wheel(0, -100)
    opened.wait_for_timeout(300)
    zoom = int(opened.inner_text('#zoom').split()[0]) // 100
    assert zoom > fitted
    opened.evaluate("() => { const s = document.getElementById('slider'); s.value = 0; s.oninput(); }")
    seen = pixels(opened)[:, 3:, :3]
    # Every row of the picture is shown as `zoom` equal rows, and it is one of the file's.
    file = folder / 'results' / 'train_CLSD_x2_seed0' / 'visualization' / 'Set' / 'img1_train_CLSD_x2_seed0.png'
    image = cv2.imread(str(file))
    assert image is not None
    column = seen[:, seen.shape[1] // 2]
    runs = np.split(column, np.flatnonzero((np.diff(column.astype(int), axis=0) != 0).any(1)) + 1)
    assert {len(run) % zoom for run in runs[1:-1]} == {0}
    colors = {tuple(color) for color in image.reshape(-1, 3)[:, ::-1]}
    assert all(tuple(run[0]) in colors for run in runs[1:-1])


def test_keys_do_what_the_mouse_does(opened):
    opened.focus('#view')
    sides = opened.input_value('#left'), opened.input_value('#right')
    opened.keyboard.press('s')
    assert (opened.input_value('#right'), opened.input_value('#left')) == sides
    opened.keyboard.press('ArrowDown')
    assert opened.input_value('#right') not in sides
    opened.keyboard.press('n')
    assert opened.input_value('#scene') == '1'
    settled(opened)
    fitted, whole = opened.inner_text('#zoom'), pixels(opened)
    opened.keyboard.press('+')
    assert opened.inner_text('#zoom') != fitted
    zoomed = pixels(opened)
    opened.keyboard.press('Shift+ArrowRight')
    assert (pixels(opened) != zoomed).any()
    opened.keyboard.press('0')
    assert opened.inner_text('#zoom') == fitted and (pixels(opened) == whole).all()


def test_linked_pictures_are_shown(browser, folder):
    file = folder / 'linked.html'
    file.write_text(page_of(folder, limit=0), encoding='utf-8')
    context = browser.new_context(viewport={'width': 900, 'height': 800}, offline=True)
    page, complaints = context.new_page(), []
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_function("document.getElementById('right-image').textContent.startsWith('image')")
    assert 'linked' in page.inner_text('#message')
    shown = cv2.imdecode(np.frombuffer(page.locator('#view').screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None and len(np.unique(shown.reshape(-1, 3), axis=0)) > 100
    context.close()
    assert complaints == []


def test_page_fits_a_phone(browser, written):
    context = browser.new_context(viewport={'width': 360, 'height': 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(written)
    settled(page)
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    context.close()
