"""One image: decoding, photos with what belongs to them, writing, resizing as MATLAB does."""
