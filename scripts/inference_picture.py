"""Make the picture of `docs/inference.md`: a photo of half the size, upscaled by `infer.py`.

    python scripts/inference_picture.py -m small_x2 -o docs/images/inference.png

The photo is scikit-image's coffee (CC0), shrunk as MATLAB does; the crop is where it has the most detail.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import basicsr_clsd  # noqa: E402, F401  isort:skip  (makes BasicSR importable)
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import skimage.data  # noqa: E402

from basicsr_clsd.evaluation.crops import CropSheet  # noqa: E402
from basicsr_clsd.evaluation.metrics import bicubic  # noqa: E402
from basicsr_clsd.images.matlab_resize import matlab_resize  # noqa: E402
from basicsr_clsd.runtime.files import write_image  # noqa: E402

SCALE = 2


def main() -> None:
    """Shrink the photo, upscale it, and put crops side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-m', '--model', required=True, help='a model at x2, as infer.py takes it')
    parser.add_argument('-o', '--out', type=Path, required=True, help='the picture')
    arguments = parser.parse_args()
    photo = skimage.data.coffee()[..., ::-1]
    photo = np.ascontiguousarray(photo[: photo.shape[0] // SCALE * SCALE, : photo.shape[1] // SCALE * SCALE])
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, 'coffee.png'), Path(folder, 'large.png')
        lq = matlab_resize(photo, 1 / SCALE)
        write_image(lq, small)
        infer = REPOSITORY / 'basicsr_clsd' / 'infer.py'
        subprocess.run([sys.executable, infer, '-i', small, '-o', large, '-m', arguments.model], check=True)
        upscaled = cv2.imread(str(large))
        assert upscaled is not None
        comparison = CropSheet()
        comparison.add('coffee', {'bicubic': bicubic(lq, SCALE), 'infer.py': upscaled.astype(np.uint8)}, photo)
        comparison.write(arguments.out)


if __name__ == '__main__':
    main()
