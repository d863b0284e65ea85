"""Text files that name the images of a set to use, as BasicSR has them."""

import logging

from basicsr_clsd.config.paths import located
from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import read_text

# Its options files name these lists by this folder of its repository, which its package on PyPI lacks.
OF_BASICSR = ('basicsr', 'data', 'meta_info')
# Names every sub-image of DIV2K's training images, of 480 pixels with a step of 240.
ALL_OF_A_SET, ALL = 'meta_info_DIV2K800sub_GT.txt', 32_592


def names_in(file: str, there: int) -> list[str] | None:
    """Names of images: the first column of each line; None for all images of the folder.

    Args:
        file: The text file.
        there: How many images the folder has, for the log.

    Raises:
        UserError: The file cannot be read or names nothing.
    """
    path = located(file)
    absent = not path.exists() and path.parts[-4:-1] == OF_BASICSR
    if absent and path.name == ALL_OF_A_SET:
        logging.getLogger('basicsr').warning(
            f"meta_info_file: {file}: BasicSR's package lacks it; it names all {ALL:,} sub-images of DIV2K, so all "
            f'{there:,} images are used'
        )
        return None
    if absent:
        raise UserError(
            f"{file}: no such file: BasicSR's package lacks it; copy it from BasicSR's repository, or leave out "
            'meta_info_file to use all images'
        )
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'not a text file'
        raise UserError(f'{file}: cannot be read: {reason}') from error
    names = [line.split(' ')[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f'{file}: names no images')
    return names
