"""Images that show the same: copies at another size, recompressed, mirrored, or parts of each other.

Points of interest (ORB, Rublee et al., ICCV 2011) have descriptors of 256 bits, which survive a change of size, a
rotation and recompression but for a few bits. They are hashed by parts, so that points which agree in a part meet in a
table: images with many such points are compared point by point, the similarity transform between them is found, and
they count as the same if their pixels agree once the one is laid on the other. The last step alone decides; in it,
different photos stay far below copies.

By hand, since packages for this compare hashes of whole images, which miss parts of each other and mirrored copies.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.runtime.threads import in_threads

LONGEST, SHORTEST = 640, 256  # pixels of the longer side that images are brought between
POINTS = 1000
WORDS = 8  # parts of 32 bits of a descriptor, a table for each
BITS = 256
# Images are compared if they get this many votes and only few get more, or so many that chance hardly gives them.
LEAST_VOTES, CANDIDATES, SURE_VOTES = 3.0, 3, 12.0
CLEARER = 0.8  # Lowe's ratio of the distances to the nearest and the second nearest point
LEAST_POINTS = 5  # that lie as the transform has them
REACH = 3.0  # pixels that a point may lie off
SCALES = (0.12, 8.0)  # of the transform, after LONGEST and SHORTEST
FINE, COARSE = 1.5, 12.0  # pixels: the agreement is that of structures between these sizes
LEAST_OVERLAP = 900  # pixels
AGREEMENT = 0.7  # correlation; the copies in the tests are above 0.9, other photos below 0.2


class Points(NamedTuple):
    """Points of interest of an image: (n, 2) x and y in pixels of the gray image, and (n, 32) uint8 descriptors."""

    places: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


class Described(NamedTuple):
    """Points of an image, and how to read its pixels, BGR, uint8."""

    points: Points
    read: Callable[[], NDArray[np.uint8]]


class Likeness(NamedTuple):
    """How one image shows what another one does.

    Args:
        size: Of the first, in terms of what it shows of the second: 0.5 is half as large.
        part: Of the first that the second shows too.
        mirrored: Left and right are exchanged.
        agreement: Correlation of the pixels where they overlap.
    """

    size: float
    part: float
    mirrored: bool
    agreement: float

    def __str__(self) -> str:
        mirrored = ', mirrored' if self.mirrored else ''
        return f'{self.part:.0%} of it, at {self.size:.2f} times the size{mirrored}; agreement {self.agreement:.2f}'


def normal_gray(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """A gray image of a size that points are found well in, and by how much it was scaled; ``image`` is BGR, uint8."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    side = max(gray.shape)
    factor = min(max(side, SHORTEST), LONGEST) / side
    if factor != 1:
        size = tuple(max(round(length * factor), 1) for length in gray.shape[::-1])
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return gray.astype(np.uint8, copy=False), factor


def find_points(gray: NDArray[np.uint8]) -> Points:
    """The points of interest of a gray image."""
    found, descriptors = cv2.ORB.create(POINTS, fastThreshold=5, edgeThreshold=16).detectAndCompute(gray, None)
    places = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    return Points(places, np.zeros((0, BITS // 8), np.uint8) if descriptors is None else descriptors.astype(np.uint8))


def describe(image: NDArray[np.uint8], read: Callable[[], NDArray[np.uint8]]) -> Described:
    """Find the points of an image, BGR, uint8, that ``read`` reads again where it is needed."""
    return Described(find_points(normal_gray(image)[0]), read)


class PointIndex:
    """Finds the images that share points with another one.

    Args:
        images: The points of each image.
    """

    def __init__(self, images: Sequence[Points]) -> None:
        self._count = len(images)
        descriptors = np.concatenate([points.descriptors for points in images])
        owners = np.repeat(np.arange(len(images), dtype=np.int32), [len(points.descriptors) for points in images])
        self._tables = []
        for word in _words(descriptors):
            order = np.argsort(word, kind='stable')
            self._tables.append((word[order], owners[order]))

    def candidates(self, points: Points) -> list[int]:
        """The images with the most points like these, if there are enough of them."""
        votes = np.zeros(self._count)
        for word, (keys, owners) in zip(_words(points.descriptors), self._tables, strict=True):
            first = np.searchsorted(keys, word, 'left')
            count = np.searchsorted(keys, word, 'right') - first
            # All entries of all runs first ... first + count, one after the other.
            entries = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
            # A point that is like many says little of each.
            votes += np.bincount(owners[entries], np.repeat(1 / np.maximum(count, 1), count), self._count)
        best = enumerate(np.argsort(-votes, kind='stable'))
        return [int(i) for rank, i in best if votes[i] >= (LEAST_VOTES if rank < CANDIDATES else SURE_VOTES)]


def _words(descriptors: NDArray[np.uint8]) -> Iterator[NDArray[np.uint32]]:
    yield from np.ascontiguousarray(descriptors).view(np.uint32).T.copy()


def transform_between(first: Points, second: Points) -> NDArray[np.float64] | None:
    """The similarity transform, (2, 3), that takes points of the first image to like ones of the second; or None."""
    if min(len(first.places), len(second.places)) < LEAST_POINTS:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(first.descriptors, second.descriptors, 2)
    clear = [pair[0] for pair in matches if len(pair) > 1 and pair[0].distance < CLEARER * pair[1].distance]
    if len(clear) < LEAST_POINTS:
        return None
    places = first.places[[match.queryIdx for match in clear]], second.places[[match.trainIdx for match in clear]]
    transform, fitting = cv2.estimateAffinePartial2D(*places, ransacReprojThreshold=REACH)
    if transform is None or np.count_nonzero(fitting) < LEAST_POINTS:
        return None
    transform = transform.astype(np.float64)
    return transform if SCALES[0] < _scale(transform) < SCALES[1] else None


def agreement(
    first: NDArray[np.uint8], second: NDArray[np.uint8], transform: NDArray[np.float64]
) -> tuple[float, float]:
    """Lay the second gray image on the first.

    Returns:
        The correlation where they overlap, of structures that are neither noise nor shading, and which part of the
        first image that is.
    """
    size = (first.shape[1], first.shape[0])
    if _scale(transform) > 1:
        second = cv2.GaussianBlur(second, (0, 0), _scale(transform) / 2).astype(np.uint8, copy=False)
    laid = cv2.warpAffine(second, transform, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    inside = np.full_like(second, 1)
    inside = cv2.warpAffine(inside, transform, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=0)
    if inside.sum() < LEAST_OVERLAP:
        return 0.0, 0.0
    weight = inside.astype(np.float32)

    def structure(image: NDArray[np.uint8]) -> NDArray[np.floating]:
        fine, coarse = (
            cv2.GaussianBlur(image * weight, (0, 0), width) / np.maximum(cv2.GaussianBlur(weight, (0, 0), width), 1e-3)
            for width in (FINE, COARSE)
        )
        return (fine - coarse)[inside > 0]

    a, b = structure(first), structure(laid.astype(np.uint8, copy=False))
    power = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    correlation = float((a * b).sum(dtype=np.float64)) / power if power else 0.0
    return correlation, float(inside.mean())


def near_duplicates(
    first: Sequence[Described], second: Sequence[Described], progress: Callable[[Sequence[int]], Iterable[int]] = iter
) -> list[tuple[int, int, Likeness]]:
    """Find the images of one set that show what images of another one do, mirrored or not.

    Args:
        first: Images of one set.
        second: Images of the other.
        progress: Passes on numbers of images, as a progress bar does.

    Returns:
        Index in the first set, index in the second, how they are alike; sorted.
    """
    if not first or not second:
        return []
    swapped = len(first) > len(second)  # the larger set is looked up in, which takes little for each of its images
    queries, indexed = (second, first) if swapped else (first, second)
    index = PointIndex([image.points for image in indexed])

    def look(number: int) -> dict[int, Likeness]:
        found: dict[int, Likeness] = {}
        for mirrored in (False, True):
            query = _mirrored(queries[number]) if mirrored else queries[number]
            for candidate in index.candidates(query.points):
                pair = (indexed[candidate], query) if swapped else (query, indexed[candidate])
                alike = None if candidate in found else likeness(*pair, mirrored)
                if alike is not None:
                    found[candidate] = alike
        return found

    results = enumerate(in_threads(look, range(len(queries)), progress))
    pairs = [(number, candidate, alike) for number, found in results for candidate, alike in found.items()]
    return sorted((b, a, alike) if swapped else (a, b, alike) for a, b, alike in pairs)


def likeness(first: Described, second: Described, mirrored: bool = False) -> Likeness | None:
    """How the first image shows what the second one does; None if it does not.

    Args:
        first: An image.
        second: Another one.
        mirrored: One of them has been mirrored; passed on into the result.
    """
    transform = transform_between(first.points, second.points)
    if transform is None:
        return None
    (gray, factor), (other, other_factor) = normal_gray(first.read()), normal_gray(second.read())
    correlation, part = agreement(gray, other, transform)
    if correlation < AGREEMENT:
        return None
    return Likeness(other_factor / factor / _scale(transform), part, mirrored, correlation)


def _mirrored(image: Described) -> Described:
    pixels = np.ascontiguousarray(image.read()[:, ::-1])
    return describe(pixels, lambda: pixels)


def _scale(transform: NDArray[np.float64]) -> float:
    return float(np.hypot(transform[0, 0], transform[0, 1]))
