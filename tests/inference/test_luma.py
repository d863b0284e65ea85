"""Networks of luma: what infer.py makes of photos with them, and their exports."""

import json

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import bgr2ycbcr, ycbcr2bgr
from helpers.luma import ARGUMENTS, network
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd import Upscaler
from basicsr_clsd.images.matlab_resize import matlab_resize


def upscaled(luma: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] to (2h, 2w), unclipped."""
    return network()(torch.from_numpy(luma.astype(np.float32))[None, None])[0, 0].numpy()


def noise(*shape: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).random((5, 6, 4)), shape[1::-1])[..., : shape[2]].reshape(shape)


def wanted(image: np.ndarray) -> np.ndarray:
    """By BasicSR's conversions: (h, w, 3) RGB in [0, 1]."""
    ycbcr = bgr2ycbcr(image[..., ::-1].astype(np.float32))
    large = np.dstack([upscaled(ycbcr[..., 0]), matlab_resize(ycbcr[..., 1:].astype(np.float64), 2)])
    return ycbcr2bgr(large.astype(np.float32))[..., ::-1].clip(0, 1)


@settings(deadline=None, max_examples=20)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    tile=st.sampled_from([0, 7, 16]),
)
def test_photos_of_any_kind(luma_model, height, width, channels, dtype, tile):
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = noise(height, width, channels)
    image = image.astype(dtype) if white == 1 else (image * white).round().astype(dtype)
    found = Upscaler(luma_model, tile=tile)(image)
    assert found.dtype == dtype and found.shape == (2 * height, 2 * width, channels)
    unit = image.astype(np.float64) / white
    if channels < 3:  # as it is
        np.testing.assert_allclose(found[..., 0] / white, upscaled(unit[..., 0]).clip(0, 1), atol=0.6 / min(white, 255))
    else:
        # BasicSR's way back from Y, Cb, Cr is rounded to four digits.
        np.testing.assert_allclose(found[..., :3] / white, wanted(unit[..., :3]), atol=2 / 255)
    if channels in (2, 4) and not (image[..., -1] == image[0, 0, -1]).all():
        np.testing.assert_allclose(
            found[..., -1] / white, upscaled(unit[..., -1]).clip(0, 1), atol=0.6 / min(white, 255)
        )


def test_colours_of_what_has_no_detail_stay(luma_model, tmp_path, run_command):
    """By the command: chroma is not the network's, so that a flat colour keeps its hue."""
    image = np.full((12, 12, 3), (40, 80, 200), np.uint8)
    assert cv2.imwrite(str(tmp_path / 'a.png'), image)
    ended = run_command('infer', '-i', 'a.png', '-o', 'b.png', '-m', luma_model, cwd=tmp_path)
    assert ended.code == 0, ended.err
    made = cv2.imread(str(tmp_path / 'b.png'))
    assert made is not None
    before, after = (cv2.cvtColor(each[4:8, 4:8], cv2.COLOR_BGR2YCrCb).astype(int) for each in (image, made))
    assert np.abs(after[..., 1:].mean((0, 1)) - before[..., 1:].mean((0, 1))).max() <= 2


@pytest.mark.parametrize('kind', ['fp32', 'fp16', 'int8'])
def test_export(luma_model, tmp_path, run_command, make_images, kind):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    make_images(tmp_path / 'photos', count=4, height=40, width=40)
    how = ('--int8', '--calibrate', 'photos') if kind == 'int8' else ('--precision', kind)
    ended = run_command('export', 'onnx', '-m', luma_model, '-o', 'a.onnx', *how, cwd=tmp_path)
    assert ended.code == 0, ended.err
    model = onnx.load(tmp_path / 'a.onnx')
    header = {entry.key: entry.value for entry in model.metadata_props}
    assert (header['channels'], header['color']) == ('1', 'y')
    assert json.loads(header['network_g'])['num_in_ch'] == 1
    assert [end.type.tensor_type.shape.dim[1].dim_value for end in model.graph.input] == [1]
    # The branches of each block are merged, and computed no more.
    assert sum(node.op_type == 'Conv' for node in model.graph.node) == ARGUMENTS['num_block'] + 2
    image = (noise(20, 24, 3) * 255).astype(np.uint8)
    difference = Upscaler(tmp_path / 'a.onnx')(image).astype(int) - Upscaler(luma_model)(image)
    assert np.abs(difference).max() <= {'fp32': 1, 'fp16': 2, 'int8': 40}[kind]


def test_tiles_overlap_as_far_as_bicubic_sees(tmp_path):
    """Of a network that sees a pixel alone, and says so."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    value, image = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    factors = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), 'factors')
    how = {'mode': 'nearest', 'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor'}
    node = onnx.helper.make_node('Resize', ['lq', '', 'factors'], ['sr'], **how)
    ends = [value('lq', image, ['n', 1, 'h', 'w'])], [value('sr', image, ['n', 1, 'H', 'W'])]
    graph = onnx.helper.make_graph([node], 'nearest', *ends, [factors])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    onnx.helper.set_model_props(model, {'receptive_field': '0'})
    (tmp_path / 'a.onnx').write_bytes(model.SerializeToString())
    photo = (noise(40, 50, 3) * 255).astype(np.uint8)
    tiled, whole = (Upscaler(tmp_path / 'a.onnx', tile=tile)(photo).astype(int) for tile in (7, 0))
    assert np.abs(tiled - whole).max() <= 1


def test_weights_alone(luma_model, tmp_path, run_command):
    pytest.importorskip('safetensors')
    ended = run_command('export', 'safetensors', '-m', luma_model, '-o', 'a.safetensors', cwd=tmp_path)
    assert ended.code == 0, ended.err
    image = (noise(20, 24, 3) * 255).astype(np.uint8)
    np.testing.assert_array_equal(Upscaler(tmp_path / 'a.safetensors')(image), Upscaler(luma_model)(image))
