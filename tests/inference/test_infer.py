"""``infer.py`` on every kind of image, on folders with every kind of trouble, and when it is killed."""

import math
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """An image that no mirroring or turning leaves as it is."""
    image = cv2.resize(
        np.random.default_rng(seed).random((height // 3 + 2, width // 3 + 2, channels)), (width, height)
    ).reshape(height, width, channels)
    return (image * np.iinfo(dtype).max).astype(dtype)


def read(path: Path) -> np.ndarray:
    """An image as OpenCV reads it, RGB or RGBA."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    if image.ndim == 2:
        return image
    return image[..., [2, 1, 0, 3][: image.shape[2]]]


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / 'photos'
    folder.mkdir()
    return folder


def gray_of(run, image: np.ndarray) -> np.ndarray:
    """What comes of gray: three equal channels in, the mean of what comes out."""
    return run(np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)).astype(float).mean(2)


def test_every_kind_of_image(photos, model, expected, close, run_command, tmp_path):
    rgb, deep = noise(20, 31), noise(20, 31, dtype=np.uint16)
    Image.fromarray(rgb).save(photos / 'rgb.png')
    Image.fromarray(rgb[..., 0]).save(photos / 'gray.png')
    Image.fromarray(np.dstack([rgb, noise(20, 31, 1, seed=1)])).save(photos / 'rgba.png')
    Image.fromarray(np.dstack([rgb[..., 0], noise(20, 31, 1, seed=1)]), 'LA').save(photos / 'gray_alpha.png')
    cv2.imwrite(str(photos / 'deep.png'), deep[..., ::-1])
    cv2.imwrite(str(photos / 'deep.tif'), deep[..., ::-1])
    cv2.imwrite(str(photos / 'deep_gray.png'), deep[..., 0])
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(photos / 'palette.png')
    bits = Image.fromarray(rgb[..., 0] > 128)
    bits.save(photos / 'bits.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    (photos / 'sub' / 'folder').mkdir(parents=True)
    Image.fromarray(rgb).save(photos / 'sub' / 'folder' / 'turned.jpg', exif=exif, quality=95)
    Image.fromarray(rgb).convert('CMYK').save(photos / 'print.jpg')
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path)
    assert ended.code == 1
    assert ended.err.splitlines() == [
        'error: photos/print.jpg: has CMYK colours, made for printing; convert it to RGB first',
        '1 could not be upscaled',
    ]
    out = tmp_path / 'out'
    made = {path.relative_to(out).as_posix(): read(path) for path in out.rglob('*.png')}
    assert len(made) == 10
    close(made['rgb_x2.png'], expected(rgb))
    close(made['deep.png_x2.png'], expected(deep))
    close(made['deep.tif_x2.png'], expected(deep))
    close(made['palette_x2.png'], expected(np.array(palette.convert('RGB'))))
    close(made['rgba_x2.png'][..., :3], expected(rgb))
    upright = np.rot90(np.array(Image.open(photos / 'sub' / 'folder' / 'turned.jpg')), 3)
    close(made['sub/folder/turned_x2.png'], expected(upright))
    # Gray stays gray.
    for name, gray in (('gray', rgb[..., 0]), ('deep_gray', deep[..., 0]), ('bits', np.uint8(255) * np.array(bits))):
        found = made[f'{name}_x2.png']
        assert found.dtype == gray.dtype and found.shape == (40, 62)
        assert np.abs(found - gray_of(expected, gray)).max() <= (1 if found.dtype == np.uint8 else 3)
    # Alpha goes the way of gray.
    alpha = gray_of(expected, noise(20, 31, 1, seed=1))
    assert np.abs(made['rgba_x2.png'][..., 3] - alpha).max() <= 1
    with Image.open(out / 'gray_alpha_x2.png') as image:
        assert image.mode == 'LA'
        found = np.array(image)
    assert np.abs(found[..., 0] - gray_of(expected, rgb[..., 0])).max() <= 1
    assert np.abs(found[..., 1] - alpha).max() <= 1


def test_alpha_by_bicubic(photos, model, run_command, tmp_path):
    alpha = np.zeros((12, 12, 1), np.uint8)
    alpha[:, 6:] = 255
    Image.fromarray(np.dstack([noise(12, 12), alpha])).save(photos / 'edge.png')
    Image.fromarray(np.dstack([noise(12, 12), np.full_like(alpha, 77)])).save(photos / 'even.png')
    assert run_command('infer', '-i', 'photos', '-o', 'o', '-m', model, '--alpha', 'bicubic', cwd=tmp_path).code == 0
    rows = read(tmp_path / 'o' / 'edge_x2.png')[..., 3]
    assert (rows == rows[0]).all()
    # Keys' cubic convolution (a = -1/2) of a step, a quarter of a pixel from the samples, clipped.
    np.testing.assert_array_equal(rows[0, 8:16], [0, 0, 0, 52, 203, 255, 255, 255])
    assert (read(tmp_path / 'o' / 'even_x2.png')[..., 3] == 77).all()


def test_adversarial_folder(photos, model, expected, close, run_command, tmp_path):
    (photos / 'empty.png').touch()
    (photos / 'text.png').write_text('no image')
    (photos / 'notes.txt').write_text('not a photo, and passed over')
    (photos / '.hidden.png').write_text('passed over')
    images = {
        'one pixel.png': noise(1, 1),
        'wide.png': noise(4, 20_000),
        'ünïcödé 画像.png': noise(9, 8),
        ' blank .png': noise(5, 6),
    }
    for name, image in images.items():
        Image.fromarray(image).save(photos / name)
    whole = (photos / 'wide.png').read_bytes()
    (photos / 'cut.png').write_bytes(whole[: len(whole) // 2])
    os.symlink(photos, photos / 'loop')
    os.symlink(photos / 'itself.png', photos / 'itself.png')
    os.symlink(photos / 'one pixel.png', photos / 'link.png')
    ended = run_command('infer', '-i', 'photos', '-o', 'photos/out', '-m', model, cwd=tmp_path)
    assert ended.code == 1, ended
    lines = ended.err.splitlines()
    assert lines[-1] == '4 could not be upscaled'
    assert [line.split(': ')[1] for line in lines[:-1]] == [
        f'photos/{name}.png' for name in ('cut', 'empty', 'itself', 'text')
    ]
    made = sorted(path.name for path in (photos / 'out').iterdir())
    assert made == sorted([*(f'{Path(name).stem}_x2.png' for name in images), 'link_x2.png'])
    for name, image in images.items():
        close(read(photos / 'out' / f'{Path(name).stem}_x2.png'), expected(image))


def test_names_of_any_length(photos, model, run_command, tmp_path):
    """A name too long for its result is that photo's trouble alone."""
    for length in (5, 100, 248, 255):
        Image.fromarray(noise(4, 4)).save(photos / f'{"n" * (length - 4)}.png')
    Image.fromarray(noise(4, 4)).save(photos / 'z.png')
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path)
    assert ended.code == 1
    told, count = ended.err.splitlines()
    assert told.startswith(f'error: photos/{"n" * 251}.png: File name too long') and count == '1 could not be upscaled'
    made = {path.name for path in (tmp_path / 'out').iterdir()}
    assert made == {'z_x2.png', *(f'{"n" * (length - 4)}_x2.png' for length in (5, 100, 248))}
    again = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path)
    assert again.code == 1 and '4 of 5 are there already' in again.out


@pytest.mark.parametrize('name', ['deep', 'deep/er'])
def test_an_error_of_one_photo_ends_no_other(photos, model, run_command, tmp_path, name):
    """A file lies where the folder of a photo's result would."""
    (photos / name).mkdir(parents=True)
    Image.fromarray(noise(4, 4)).save(photos / name / 'a.png')
    Image.fromarray(noise(4, 4)).save(photos / 'z.png')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'deep').touch()
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path)
    assert ended.code == 1
    assert ended.err.splitlines()[0].startswith(f'error: photos/{name}/a.png: ')
    assert (tmp_path / 'out' / 'z_x2.png').is_file()


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, make_images, model, run_command) -> Path:
    folder = tmp_path_factory.mktemp('undisturbed')
    make_images(folder / 'photos', count=4, height=24, width=20)
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=folder)
    assert ended.code == 0 and ended.err == ''
    return folder


@pytest.mark.parametrize('how', ['half_written', 'os.replace'])
def test_killed_in_the_middle_and_again(undisturbed, model, run_command, tmp_path, how):
    temporary = str(tmp_path / 'out' / '.img3_x2.png.tmp')
    accident = {'half_written': temporary} if how == 'half_written' else {'before': how, 'path': temporary}
    command = ('infer', '-i', undisturbed / 'photos', '-o', 'out', '-m', model)
    assert run_command(*command, cwd=tmp_path, accident=accident).code == -9
    assert (tmp_path / 'out' / '.img3_x2.png.tmp').exists()
    left = sorted(path.name for path in (tmp_path / 'out').glob('*.png'))
    assert left[:2] == ['img1_x2.png', 'img2_x2.png'] and 'img3_x2.png' not in left
    times = {name: (tmp_path / 'out' / name).stat().st_mtime_ns for name in left[:2]}
    ended = run_command(*command, cwd=tmp_path)
    assert ended.code == 0
    assert '2 of 4 are there already' in ended.out
    assert {name: (tmp_path / 'out' / name).stat().st_mtime_ns for name in times} == times
    whole = {path.name: path.read_bytes() for path in (undisturbed / 'out').iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == whole


def test_existing_files_are_kept_unless_told(undisturbed, model, run_command, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'img2_big.jpg').write_bytes(b'mine')
    command = ('infer', '-i', undisturbed / 'photos', '-o', out, '-m', model, '--suffix', '_big', '--format', 'jpg')
    assert run_command(*command, cwd=tmp_path).code == 0
    assert sorted(path.name for path in out.iterdir()) == [f'img{number}_big.jpg' for number in range(1, 5)]
    assert (out / 'img2_big.jpg').read_bytes() == b'mine'
    assert run_command(*command, '--overwrite', cwd=tmp_path).code == 0
    assert read(out / 'img2_big.jpg').shape == (48, 40, 3)


def test_one_photo_to_a_file(undisturbed, model, run_command, tmp_path):
    photo = undisturbed / 'photos' / 'img1.png'
    ended = run_command('infer', '-i', photo, '-o', 'deep/er/result.tif', '-m', model, '--tile', '7', cwd=tmp_path)
    assert ended.code == 0
    tiled, whole = read(tmp_path / 'deep/er/result.tif'), read(undisturbed / 'out' / 'img1_x2.png')
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_results_beside_the_photos_are_not_upscaled_again(model, make_images, run_command, tmp_path):
    photos = make_images(tmp_path / 'photos', count=2, height=9, width=9)
    for _ in range(2):
        assert run_command('infer', '-i', photos, '-o', photos, '-m', model, cwd=tmp_path).code == 0
        assert len(list(photos.iterdir())) == 4


def test_colour_profile_is_kept(photos, model, run_command, tmp_path):
    profile = bytes(range(256)) * 3
    Image.fromarray(noise(8, 8)).save(photos / 'wide gamut.png', icc_profile=profile)
    assert run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path).code == 0
    with Image.open(tmp_path / 'out' / 'wide gamut_x2.png') as image:
        assert image.info['icc_profile'] == profile


def test_what_a_format_cannot_hold(photos, model, run_command, tmp_path):
    Image.fromarray(noise(8, 8, 4)).save(photos / 'alpha.png')
    cv2.imwrite(str(photos / 'deep.png'), noise(8, 8, dtype=np.uint16))
    Image.fromarray(noise(8, 8)).save(photos / 'plain.png')
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, '--format', 'jpg', cwd=tmp_path)
    assert ended.code == 1
    assert 'out/alpha_x2.jpg: jpg cannot hold transparency' in ended.err
    assert 'out/deep_x2.jpg: jpg cannot hold 16 bits per value' in ended.err
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['plain_x2.jpg']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-i', 'nowhere', '-o', 'out'], 'nowhere: no such file or folder'),
        (['-i', 'nothing', '-o', 'out'], 'nothing: no photos in it'),
        (['-i', 'a.png', '-o', 'out', '--format', 'gif'], '--format gif: must be one of png, jpg, '),
        (['-i', 'a.png', '-o', 'a.png', '--overwrite'], 'a.png: its result would take its place'),
        (['-i', '.', '-o', '.', '--suffix', '', '--overwrite'], 'a.png: its result would take its place'),
        (['-i', 'a.png', '-o', 'out', '--suffix', '/x'], '--suffix /x: must not contain a slash'),
        (['-i', 'a.png', '-o', 'out', '--tile', '-1'], '--tile -1: must not be negative'),
        (['-i', 'a.png', '-o', 'a.png/out'], 'a.png/out: cannot be written'),
        (['-i', 'a.png', '-o', 'out', '-m', 'small_EDSR_x3'], "small_EDSR_x3: no such file (did you mean 'small_"),
        (['-i', 'a.png', '-o', 'out', '-m', 'a.png'], 'a.png: not a model'),
        (['-i', 'a.png', '-o', 'out', '-m', 'bad.pth'], 'bad.pth: not a readable checkpoint'),
        (['-i', 'a.png', '-o', 'out', '-m', 'bad.safetensors'], 'bad.safetensors: not a readable checkpoint'),
        (['-i', 'a.png', '-o', 'out', '-m', 'bad.onnx'], 'bad.onnx: not an ONNX file that can be run'),
    ],
)
def test_mistakes_are_told_in_a_line(model, run_command, tmp_path, arguments, message):
    Image.fromarray(noise(4, 4)).save(tmp_path / 'a.png')
    (tmp_path / 'nothing').mkdir()
    for name in ('bad.pth', 'bad.safetensors', 'bad.onnx'):
        (tmp_path / name).write_bytes(b'bad')
    ended = run_command('infer', '-m', model, *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert message in ended.err and ended.err.count('\n') == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_a_network_whose_values_are_not_finite_is_told(run_command, tmp_path, value):
    import torch  # noqa: PLC0415
    from helpers.students import student  # noqa: PLC0415

    Image.fromarray(noise(4, 4)).save(tmp_path / 'a.png')
    state = student(0).state_dict()
    state['conv_last.bias'][1] = value
    torch.save(state, tmp_path / 'wrong.pth')
    ended = run_command('infer', '-m', 'wrong.pth', '-i', 'a.png', '-o', 'out', cwd=tmp_path)
    assert ended.code == 1
    assert 'wrong.pth: its network makes values that are not finite' in ended.err
    assert not list((tmp_path / 'out').iterdir())


def write_nearest(path: Path, scale: int) -> None:
    """A network that repeats each pixel; at x1 the identity."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    value, image = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    factors = onnx.numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), 'factors')
    how = {'mode': 'nearest', 'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor'}
    node = onnx.helper.make_node('Resize', ['lq', '', 'factors'], ['sr'], **how)
    ends = [value('lq', image, ['n', 3, 'h', 'w'])], [value('sr', image, ['n', 3, 'H', 'W'])]
    graph = onnx.helper.make_graph([node], 'nearest', *ends, [factors])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize('scale', [1, 3])
@pytest.mark.parametrize('tile', ['1', '7', '16'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_no_pixel_is_lost_at_a_seam(run_command, tmp_path, scale, tile, dtype):
    write_nearest(tmp_path / 'nearest.onnx', scale)
    image = noise(23, 37, 4, dtype)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    ended = run_command('infer', '-i', 'a.png', '-o', 'b.png', '-m', 'nearest.onnx', '--tile', tile, cwd=tmp_path)
    assert ended.code == 0, ended.err
    made = cv2.imread(str(tmp_path / 'b.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(made, image.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='memory is limited by Linux')
@pytest.mark.parametrize('repeats', [(28, 42), (2, 417)])
def test_memory_is_that_of_a_tile(run_command, tmp_path, repeats):
    write_nearest(tmp_path / 'nearest.onnx', 4)
    # 33 MB that become 520 MB; in floating point they would be 2,081. The wide one's rows of square tiles have 369 MB.
    image = np.tile(noise(96, 96), (*repeats, 1))
    assert cv2.imwrite(str(tmp_path / 'large.png'), image)
    ended = run_command(
        'infer', '-i', 'large.png', '-o', 'out', '-m', 'nearest.onnx', cwd=tmp_path, accident={'memory': 450 * 2**20}
    )
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / 'out' / 'large_x4.png') as made:
        assert made.size == (4 * image.shape[1], 4 * image.shape[0])
