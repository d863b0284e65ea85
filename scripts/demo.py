"""Train a small CLSD student on a few photos, test it on others, and show what it did; no download, CPU or GPU.

The photos come with scikit-image (public domain or CC0). Everything goes through the project's own commands.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import skimage.data

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = REPOSITORY / 'options' / 'demo.yml'
TRAIN_PHOTOS = ('coffee', 'rocket', 'hubble_deep_field', 'camera', 'brick', 'grass', 'gravel')
TEST_PHOTOS = ('astronaut', 'chelsea')


def write_photos(root: Path) -> None:
    """Write the photos to ``root/train`` and ``root/test``; those that are there stay."""
    for folder, names in (('train', TRAIN_PHOTOS), ('test', TEST_PHOTOS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            path = root / folder / f'{name}.png'
            if not path.exists():
                image = getattr(skimage.data, name)()
                temporary = path.with_name(f'.{path.name}')
                cv2.imwrite(str(temporary), image if image.ndim == 2 else image[..., ::-1])  # noqa: PLR2004  (gray)
                temporary.rename(path)


def run(*command: str | Path) -> None:
    """Run one of the project's commands, shown as one would type it; end with its exit code if it fails."""
    shown = shlex.join(str(part) for part in command)
    print(f'\n$ python {shown}\n', flush=True)
    code = subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--iterations', type=int, default=1000, help='training iterations (default: %(default)s)')
    parser.add_argument('--output', type=Path, default=REPOSITORY, help='where experiments/ and results/ are written')
    arguments = parser.parse_args()
    if arguments.iterations < 1:
        parser.error(f'--iterations must be at least 1, not {arguments.iterations}')

    write_photos(REPOSITORY / 'datasets' / 'demo')
    # The demo's photos are in this checkout, wherever the reader keeps other data.
    os.environ.pop('CLSD_DATA', None)
    root = arguments.output.absolute()
    roots = [
        f'path:experiments_root={root / "experiments"}',
        f'path:results_root={root / "results"}',
        f'path:tb_root={root / "tb_logger"}',
    ]
    length = [f'train:total_iter={arguments.iterations}', f'train:scheduler:periods=[{arguments.iterations}]']
    experiment = root / 'experiments' / 'demo'
    weights = experiment / 'models' / 'net_g_latest.pth'
    options = OPTIONS.relative_to(REPOSITORY)
    run('basicsr_clsd/train.py', '-opt', options, '--force_yml', *roots, *length)
    run('basicsr_clsd/test.py', '-opt', options, '--force_yml', f'path:pretrain_network_g={weights}', *roots)

    print(f"""
Checkpoint  {weights}
Log         {experiment / 'train_demo.log'}
Picture     {root / 'results' / 'demo' / 'comparison_demo.png'}

Train on your own photos (a folder of images is enough; LR images are made from them):
$ python basicsr_clsd/train.py -opt options/demo.yml --force_yml name=mine datasets:train:dataroot_gt=YOUR_FOLDER""")


if __name__ == '__main__':
    main()
