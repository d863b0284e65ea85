"""What a set's images are stored as, told where it is not what they are read as."""

import logging
from collections.abc import Sequence

import numpy as np

from basicsr_clsd.data.stores import EIGHT_BITS, FolderStore
from basicsr_clsd.images.codec import decode_deep

LOOKED_AT = 4  # images of a folder, to learn how many of their bits are used


def tell_forms(stores: Sequence[FolderStore]) -> None:
    """Log one warning on the images of a set that have more than 8 bits, or several frames, and what is done with them.

    Args:
        stores: The folders of the set, whose images' sizes have been asked for.
    """
    parts = []
    deep = [(store, name) for store in stores for name, form in store.forms.items() if form.bits > EIGHT_BITS]
    if deep:
        chosen = [deep[place] for place in np.linspace(0, len(deep) - 1, min(len(deep), LOOKED_AT)).astype(int)]
        largest = max(int(decode_deep(store.content(name), str(store.root / name)).max()) for store, name in chosen)
        used = max(largest.bit_length(), EIGHT_BITS)
        bit_depth = deep[0][0].bit_depth
        done = f'read as fractions of {2**bit_depth - 1:,} (bit_depth {bit_depth})'
        if bit_depth == EIGHT_BITS:
            done = f'rounded to 8 bits, in which {largest:,} is {largest >> EIGHT_BITS} of 255'
            done += f"; 'bit_depth: {used}' would keep their precision"
        parts.append(f'{len(deep)} have 16 bits per value, of which {used} are used, and are {done}')
    several = sum(form.frames > 1 for store in stores for form in store.forms.values())
    if several:
        parts.append(f'{several} have several frames or pages, and the first is read')
    if parts:
        count = sum(len(store.forms) for store in stores)
        where = ', '.join(str(store.root) for store in stores)
        logging.getLogger('basicsr').warning(f'{where}: of {count} images {"; ".join(parts)}')
