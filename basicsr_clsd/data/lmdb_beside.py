"""The LMDB beside a folder of images, read in its place."""

import logging
import os
from pathlib import Path

from basicsr_clsd.data.lmdb import RAW, Kind, read_records
from basicsr_clsd.data.stores import EIGHT_BITS, FolderStore, ImageStore, open_store
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem


def open_fastest(root: str | Path, bit_depth: int = 8) -> ImageStore:
    """Open a folder or an LMDB; for a folder ``NAME`` the raw pixels in ``NAME.lmdb`` beside it, if they are the same.

    They are if the LMDB was made from exactly the images that the folder has now: the same names, and the same sizes
    and times of their files. So an image that was changed, added or removed is never overlooked: the folder is read,
    and a warning logged. With more than 8 bits (``bit_depth``) it is always the folder.

    Raises:
        UserError: See :func:`~basicsr_clsd.data.stores.open_store`.
    """
    store = open_store(root, bit_depth)
    path = store.root if store.root.name else Path(os.path.abspath(root))  # '.' has no name
    beside = path.with_name(f'{path.name}.lmdb')
    if not isinstance(store, FolderStore) or not beside.is_dir():
        return store
    if bit_depth != EIGHT_BITS:
        logging.getLogger('basicsr').info(f'{store.root} is read, and not {beside}, which holds 8 bits')
        return store
    log = logging.getLogger('basicsr')
    try:
        kind, records = read_records(beside)
    except UserError as error:
        log.warning(f'{store.root} is read, and not the LMDB beside it: {error}')
        return store
    if kind != Kind(RAW):
        return store
    files = {stem(name): (name, store.stamp(name)) for name in store.names()}
    if files != {key: (record.name, record.stamp) for key, record in records.items()}:
        log.warning(f'{store.root} is read, and not {beside}, which was made from other images')
        return store
    log.info(f'{beside} is read, which holds the pixels of {store.root}')
    return open_store(beside)
