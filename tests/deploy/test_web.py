"""The page that upscales: made by export.py, served from its folder, used in a browser."""

import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from basicsr_clsd import Upscaler
from basicsr_clsd.deploy.web import PACKAGE
from basicsr_clsd.images.matlab_resize import matlab_resize

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 150, 200  # more than a tile in both directions
ISOLATED = {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'}


@pytest.fixture(scope='session')
def package(tmp_path_factory) -> Path:
    """The npm package that has the runtime."""
    if shutil.which('npm') is None:
        pytest.skip('npm is not installed')
    folder = tmp_path_factory.mktemp('npm')
    command = ['npm', 'pack', PACKAGE, '--silent', '--pack-destination', str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f'npm cannot get {PACKAGE}')
    return next(folder.glob('*.tgz'))


@pytest.fixture(scope='module')
def site(run_command, package, tmp_path_factory) -> Callable[[object], Path]:
    """``site(model)``: the folder of a page, made by the command."""
    made: dict[object, Path] = {}

    def export(model: object) -> Path:
        if model not in made:
            folder = tmp_path_factory.mktemp('site') / 'page'
            ended = run_command('export', 'web', '-m', model, '-o', folder, '--runtime-package', package)
            assert ended.code == 0, ended.err
            made[model] = folder
        return made[model]

    return export


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture
def opened(browser, site) -> Iterator[Callable[..., Any]]:
    """``opened(model, headers, **window)``: its page, ready; fails for a word on the console or a foreign request."""
    with served_pages(browser) as open_page:
        yield lambda model='small_EDSR_x2', headers=None, **window: open_page(site(model), headers or {}, window)


@contextmanager
def served_pages(browser: Any) -> Iterator[Callable[..., Any]]:
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(folder: Path, headers: dict[str, str], window: dict[str, Any]) -> Any:
        server = served(folder, headers)
        url = server.__enter__()
        context = browser.new_context(**{'viewport': {'width': 1000, 'height': 900}, **window})
        contexts.append((context, server))
        page = context.new_page()
        page.on('console', lambda message: complaints.append(message.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on(
            'request',
            lambda request: None if request.url.startswith((url, 'blob:', 'data:')) else complaints.append(request.url),
        )
        page.goto(url)
        page.wait_for_function("document.body.dataset.device || document.querySelector('.fault')", timeout=120_000)
        return page

    try:
        yield open_page
    finally:
        for context, server in contexts:
            context.close()
            server.__exit__(None, None, None)
    assert complaints == []


def message(page: Any) -> str:
    return page.text_content('#message')


def upscaled(page: Any, photo: Path, folder: Path) -> np.ndarray:
    """What the page saves of a photo: BGRA."""
    page.set_input_files('#file', str(photo))
    page.wait_for_selector('#result:not([hidden])', timeout=300_000)
    with page.expect_download() as download:
        page.click('#save')
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == f'{photo.stem}_x2.png'
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def left_side(page: Any) -> np.ndarray:
    """What is shown left of the line, at one screen pixel per image pixel: RGB."""
    page.click('#one')
    page.evaluate("document.getElementById('slider').value = 1000; document.getElementById('slider').oninput()")
    values = page.evaluate(
        """() => { const c = document.getElementById('view');
        return {width: c.width, data: [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]}; }"""
    )
    return np.asarray(values['data'], np.uint8).reshape(-1, values['width'], 4)


@pytest.fixture
def photo(make_images, tmp_path) -> Path:
    return make_images(tmp_path / 'photos', count=1, height=HEIGHT, width=WIDTH) / 'img1.png'


def same_within_one(found: np.ndarray, wanted: np.ndarray, border: int = 0) -> None:
    assert found.shape == wanted.shape
    inner = slice(border, -border or None)
    assert np.abs(found.astype(int) - wanted)[inner, inner].max() <= 1


@pytest.mark.parametrize(('headers', 'device'), [({}, 'WebAssembly, 1 thread'), (ISOLATED, 'WebAssembly, ')])
def test_photo_gets_the_pixels_of_infer(opened, run_command, photo, tmp_path, headers, device):
    page = opened(headers=headers)
    assert page.evaluate('document.body.dataset.device').startswith(device)
    assert page.evaluate('crossOriginIsolated') == bool(headers)
    found = upscaled(page, photo, tmp_path)
    assert '400 x 300 pixels' in message(page)
    ended = run_command('infer', '-m', 'small_EDSR_x2', '-i', photo, '-o', tmp_path / 'by_infer')
    assert ended.code == 0, ended.err
    (path,) = (tmp_path / 'by_infer').iterdir()
    same_within_one(found[..., :3], cv2.imread(str(path)))


def test_left_of_the_line_is_bicubic(opened, photo, tmp_path):
    page = opened()
    upscaled(page, photo, tmp_path)
    shown = left_side(page)[:, :-8]  # without the line
    rows, columns = (np.flatnonzero(shown[..., 3].any(axis)) for axis in (1, 0))
    part = shown[rows[0] : rows[0] + 2 * HEIGHT, columns[0] : columns[0] + 2 * WIDTH, :3]
    bicubic = matlab_resize(cv2.imread(str(photo))[..., ::-1].astype(np.float64) / 255, 2)
    # MATLAB mirrors the image at its border, the page repeats it.
    same_within_one(part, np.rint(255 * bicubic.clip(0, 1)), border=4)


def test_network_of_luma_gets_luma_and_bicubic_the_colours(opened, luma_model, photo, tmp_path):
    found = upscaled(opened(luma_model), photo, tmp_path)
    image = cv2.imread(str(photo))
    assert image is not None
    same_within_one(found[..., 2::-1], Upscaler(luma_model)(image[..., ::-1].copy()), border=4)


def test_transparency_stays(opened, photo, tmp_path):
    image = cv2.imread(str(photo))
    assert image is not None
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:50] = 0
    cv2.imwrite(str(photo), np.dstack([image, alpha]))
    found = upscaled(opened(), photo, tmp_path)
    assert (found[:90, :, 3] == 0).all() and (found[110:, :, 3] == 255).all()


def test_what_is_no_photo_is_told_and_the_next_one_is_upscaled(opened, photo, tmp_path):
    page = opened()
    bad = tmp_path / 'bad.png'
    bad.write_text('not a picture')
    page.set_input_files('#file', str(bad))
    page.wait_for_selector('#message.fault')
    assert message(page) == 'bad.png: not an image that this browser can open'
    assert upscaled(page, photo, tmp_path).shape == (2 * HEIGHT, 2 * WIDTH, 4)
    assert not page.locator('#message.fault').count()


def test_cancelled_photo_leaves_the_page_usable(opened, make_images, photo, tmp_path):
    page = opened()
    large = make_images(tmp_path / 'large', count=1, height=900, width=900) / 'img1.png'
    page.set_input_files('#file', str(large))
    page.click('#cancel')
    page.wait_for_function("document.getElementById('message').textContent.startsWith('Ready')", timeout=120_000)
    assert page.locator('#result').is_hidden()
    assert upscaled(page, photo, tmp_path).shape == (2 * HEIGHT, 2 * WIDTH, 4)


def test_phone_and_keyboard(opened, photo, tmp_path):
    page = opened(viewport={'width': 390, 'height': 800}, has_touch=True, is_mobile=True)
    upscaled(page, photo, tmp_path)
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    page.focus('#view')
    page.keyboard.press('ArrowLeft')
    assert page.input_value('#slider') == '480'
    page.keyboard.press('1')
    assert page.text_content('#zoom') == '100 %'


def test_folder_that_is_there_is_replaced_only_if_it_is_such_a_page(run_command, site, package, tmp_path):
    folder = tmp_path / 'page'
    shutil.copytree(site('small_EDSR_x2'), folder)
    arguments = 'export', 'web', '-m', 'small_EDSR_x2', '--runtime-package', package, '-o'
    ended = run_command(*arguments, folder)
    assert (ended.code, ended.err.count('\n')) == (2, 1) and '--overwrite replaces it' in ended.err
    (folder / 'index.html').unlink()
    assert run_command(*arguments, folder, '--overwrite').code == 0
    assert (folder / 'index.html').is_file()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'diary.txt').write_text('dear diary')
    ended = run_command(*arguments, tmp_path / 'mine', '--overwrite')
    assert (ended.code, ended.err.count('\n')) == (2, 1) and 'give another name' in ended.err
    assert (tmp_path / 'mine' / 'diary.txt').read_text() == 'dear diary'


def test_package_that_is_none_is_told_and_nothing_is_left(run_command, tmp_path):
    other = tmp_path / 'other.tgz'
    with tarfile.open(other, 'w:gz') as archive:
        archive.add(__file__, 'package/package.json')
    for file in (other, Path(__file__), tmp_path / 'gone.tgz'):
        ended = run_command('export', 'web', '-m', 'small_EDSR_x2', '-o', tmp_path / 'page', '--runtime-package', file)
        assert (ended.code, ended.err.count('\n')) == (2, 1)
        assert f'{file}: not the npm package' in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ['other.tgz']


def test_missing_npm_is_told_with_what_to_do(run_command, tmp_path):
    ended = run_command(
        'export', 'web', '-m', 'small_EDSR_x2', '-o', tmp_path / 'page', env={'PATH': str(tmp_path)}, fresh=True
    )
    assert (ended.code, ended.err.count('\n')) == (2, 1)
    assert '--runtime-package FILE' in ended.err and not (tmp_path / 'page').exists()
