"""Which encoded images are whole, and which were cut off."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import decode

IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8), (60, 50))
JPEG = {
    'baseline': [],
    'progressive': [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    'with restarts': [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    'optimised': [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}


def jpeg(kind: str) -> bytes:
    return cv2.imencode('.jpg', IMAGE, JPEG[kind])[1].tobytes()


def with_preview(content: bytes) -> bytes:
    """A JPEG whose EXIF data hold a small one, with an end of its own."""
    preview = cv2.imencode('.jpg', IMAGE[:8, :8])[1].tobytes()
    segment = b'Exif\0\0' + preview
    return content[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + content[2:]


TAILS = st.one_of(
    st.binary(max_size=6000),
    st.integers(0, 9000).map(bytes),
    st.sampled_from([b'\0\0\0\x18ftypmp42' + bytes(8192), b'\xff' * 5000, jpeg('baseline')]),
)


@settings(deadline=None, max_examples=40)
@given(tail=TAILS, kind=st.sampled_from(sorted(JPEG)))
@example(tail=b'\0\0\0\x18ftypmp42' + bytes(8192), kind='baseline')
def test_what_comes_behind_a_jpeg_is_not_looked_at(tail, kind):
    np.testing.assert_array_equal(decode(jpeg(kind) + tail, 'a.jpg'), decode(jpeg(kind), 'a.jpg'))


@pytest.mark.parametrize('extension', ['.png', '.webp', '.bmp', '.tif', '.ppm', '.gif'])
@pytest.mark.parametrize('tail', [b'\0\0\0\x18ftypmp42' + bytes(8192), bytes(5), b'\n' * 4097])
def test_what_comes_behind_other_images_is_not_looked_at(extension, tail):
    if not cv2.haveImageWriter(f'a{extension}'):
        pytest.skip(f'this OpenCV writes no {extension}')
    content = cv2.imencode(extension, IMAGE)[1].tobytes()
    np.testing.assert_array_equal(decode(content + tail, f'a{extension}'), decode(content, f'a{extension}'))


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(sorted(JPEG)), preview=st.booleans(), share=st.floats(0, 1, exclude_max=True))
def test_a_jpeg_that_is_cut_off_is_refused(kind, preview, share):
    whole = with_preview(jpeg(kind)) if preview else jpeg(kind)
    decode(whole, 'a.jpg')
    cut = whole[: 2 + int(share * (len(whole) - 3))]
    with pytest.raises(UserError, match=r'^a\.jpg: (truncated|not an image)'):
        decode(cut, 'a.jpg')
