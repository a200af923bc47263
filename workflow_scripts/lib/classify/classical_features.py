"""Hand-made features of cell images: intensity, texture, granularity, shape of regions, and relations of channels.

They are what CellProfiler measures, for any set of channels, and are those of scikit-image where both define them. They
are written over whole blocks of images here, because scikit-image takes one image at a time, which is too slow by a
factor of about twenty. All features are the same for the eight turns and mirror images of a cell, but for rounding.

Each channel has a foreground by Otsu's threshold: in a DNA stain it is the nucleus, in a membrane or cytoskeleton stain
the cell. Every channel's light is measured within and around the foreground of each channel, so no channel needs a
role. Knows nothing of labels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 64  # images that are worked on at a time: their arrays stay in cache
LEVELS = 8  # grey levels of co-occurrence matrices, between 0 and the channel's brightest pixel
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
RADII = (1, 2, 3, 4, 6, 8, 12, 16)  # of openings, in pixels, as far as they fit
LARGEST_OPENING = 0.2  # of the side of the image
RINGS = (1, 2)  # distances of local binary patterns, in pixels
PAIRS = (1, 2, 4)  # distances of co-occurrence, in pixels
ZONES = ("core", "rim", "near", "around", "far")  # inside and outside a foreground
ZONE_STEP = 1 / 16  # of the side of the image: width of the rim and of `near`; `around` is twice as wide
SMALL = 1e-9

MOMENTS = ("mean", "deviation", "skewness", "kurtosis", "entropy", "largest", *(f"quantile {q:g}" for q in QUANTILES))
HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
PATTERNS = (*(f"{ones} ones" for ones in range(9)), "not uniform")
SHAPES = (
    "threshold", "area", "objects", "largest area", "long axis", "short axis", "eccentricity", "extent", "edge",
    "distance from middle",
)  # fmt: skip


def features(images: np.ndarray) -> np.ndarray:
    """Features float32 (n, F) of images uint8 (n, C, H, W); their names are `names(C, H)`."""
    images = np.ascontiguousarray(images)
    blocks = [_features(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros((0, len(names(*images.shape[1:3]))), dtype=np.float32)


def _features(images: np.ndarray) -> np.ndarray:
    masks, thresholds = foreground(images)
    count = len(images)
    parts = [
        moments(images),
        haralick(images),
        local_binary_patterns(images),
        granularity(images),
        shapes(masks, thresholds),
        zone_fractions(images, masks),
        correlations(images),
    ]
    return np.concatenate([part.reshape(count, -1) for part in parts], axis=1).astype(np.float32)


@lru_cache
def names(channels: int, size: int) -> tuple[str, ...]:
    """Name of each feature, in the order of `features`, for so many channels and pixels a side."""
    own = range(channels)
    out = [f"channel {c}: {name}" for c in own for name in MOMENTS]
    out += [f"channel {c}: {name} at {pair} px" for c in own for pair in PAIRS for name in HARALICK]
    out += [f"channel {c}: pattern of {name} at {ring} px" for c in own for ring in RINGS for name in PATTERNS]
    out += [f"channel {c}: granularity at {radius} px" for c in own for radius in opening_radii(size)]
    out += [f"foreground {c}: {name}" for c in own for name in SHAPES]
    out += [f"foreground {c}: area of {zone}" for c in own for zone in ZONES]
    out += [f"channel {a}: light in {zone} of foreground {b}" for a in own for b in own for zone in ZONES]
    return (*out, *(f"correlation of channels {a} and {b}" for a in own for b in range(a + 1, channels)))


# ---- intensity and texture -------------------------------------------------------------------------------------------


def histograms(images: np.ndarray) -> np.ndarray:
    """Pixels of each value, int (n, C, 256)."""
    count, channels = images.shape[:2]
    owner = np.arange(count * channels, dtype=np.int64)[:, None] * 256
    values = images.reshape(count * channels, -1) + owner
    return np.bincount(values.ravel(), minlength=count * channels * 256).reshape(count, channels, 256)


def moments(images: np.ndarray) -> np.ndarray:
    """Moments, entropy (bits) and quantiles of the pixels of each channel (n, C, M); pixels are in [0, 1]."""
    # From integer counts, so that a turned image has the same values to the last bit.
    share = histograms(images) / np.prod(images.shape[2:])
    values = np.arange(256) / 255
    mean = share @ values
    centred = values - mean[..., None]
    variance = np.einsum("ncv,ncv->nc", share, centred**2)
    deviation = np.sqrt(variance)
    third, fourth = (np.einsum("ncv,ncv->nc", share, centred**power) for power in (3, 4))
    flat = variance < SMALL
    skewness = np.where(flat, 0, third / np.maximum(variance, SMALL) ** 1.5)
    kurtosis = np.where(flat, 0, fourth / np.maximum(variance, SMALL) ** 2)
    largest = (255 - np.argmax(share[..., ::-1] > 0, axis=-1)) / 255
    below = np.cumsum(share, axis=-1)
    quantiles = [np.argmax(below >= q - SMALL, axis=-1) / 255 for q in QUANTILES]
    return np.stack([mean, deviation, skewness, kurtosis, _entropy(share), largest, *quantiles], axis=-1)


def _entropy(share: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits over the last axis."""
    return -(share * np.log2(np.maximum(share, SMALL))).sum(axis=-1)


def co_occurrence(images: np.ndarray, distance: int) -> np.ndarray:
    """Symmetric grey-level co-occurrence of both axes and both diagonals together, int (n, C, LEVELS, LEVELS).

    Levels are relative to the brightest pixel of each channel: how bright that is, the moments tell."""
    count, channels, height, width = images.shape
    brightest = images.max(axis=(2, 3), keepdims=True).astype(np.int32)
    level = (images.astype(np.int32) * LEVELS // (brightest + 1)).reshape(count * channels, height, width)
    first = level * LEVELS + np.arange(count * channels, dtype=np.int32)[:, None, None] * LEVELS**2
    d = min(distance, height - 1, width - 1)
    pairs = (
        (first[:, :, :-d], level[:, :, d:]), (first[:, :-d, :], level[:, d:, :]),
        (first[:, :-d, :-d], level[:, d:, d:]), (first[:, d:, :-d], level[:, :-d, d:]),
    )  # fmt: skip
    cells = np.concatenate([(one + other).ravel() for one, other in pairs])
    counts = np.bincount(cells, minlength=count * channels * LEVELS**2).reshape(count, channels, LEVELS, LEVELS)
    return counts + counts.swapaxes(2, 3)


def haralick(images: np.ndarray) -> np.ndarray:
    """Haralick's properties of the co-occurrence at each distance (n, C, distances, properties)."""
    row, column = np.mgrid[:LEVELS, :LEVELS]
    apart = np.abs(row - column)
    out = []
    for distance in PAIRS:
        counts = co_occurrence(images, distance)
        share = counts / counts.sum(axis=(2, 3), keepdims=True)
        level = np.arange(LEVELS)
        margin = share.sum(axis=3)
        mean = margin @ level
        variance = margin @ level**2 - mean**2
        together = (share * row * column).sum(axis=(2, 3)) - mean**2
        # As scikit-image: a channel of a single level correlates with itself.
        correlation = np.where(variance < SMALL, 1, together / np.maximum(variance, SMALL))
        properties = [(share * weight).sum(axis=(2, 3)) for weight in (apart**2, apart, 1 / (1 + apart**2))]
        properties += [np.sqrt((share**2).sum(axis=(2, 3))), correlation, _entropy(share.reshape(*share.shape[:2], -1))]
        out.append(np.stack(properties, axis=-1))
    return np.stack(out, axis=2)


def local_binary_patterns(images: np.ndarray) -> np.ndarray:
    """Fractions of rotation-invariant uniform patterns (Ojala et al. 2002) in each channel (n, C, distances, 10).

    The eight neighbours are those on a square, pixels themselves, so that a turned image has the same patterns."""
    count, channels, height, width = images.shape
    out = []
    for distance in RINGS:
        d = min(distance, (height - 1) // 2)
        middle = images[:, :, d : height - d, d : width - d]
        # Around the square; a step of one eighth of a turn is a step in this list.
        around = [(-d, -d), (-d, 0), (-d, d), (0, d), (d, d), (d, 0), (d, -d), (0, -d)]
        above = [
            (images[:, :, d + y : height - d + y, d + x : width - d + x] >= middle).view(np.uint8) for y, x in around
        ]
        ones = sum(above[1:], above[0].copy())
        changes = sum(above[i] ^ above[i - 1] for i in range(8))
        code = np.where(changes <= 2, ones, 9).reshape(count * channels, -1).astype(np.int64)
        code += np.arange(count * channels)[:, None] * 10
        counts = np.bincount(code.ravel(), minlength=count * channels * 10).reshape(count, channels, 10)
        out.append(counts / middle[0, 0].size)
    return np.stack(out, axis=2)


def opening_radii(size: int) -> list[int]:
    """Radii of the openings for images of this side."""
    return [radius for radius in RADII if radius <= max(1, LARGEST_OPENING * size)]


def granularity(images: np.ndarray) -> np.ndarray:
    """Fraction of the light that each further opening removes: bright grains of that size (n, C, radii)."""
    total = images.sum(axis=(2, 3), dtype=np.int64)
    before, eroded, done, out = total, images, 0, []
    for radius in opening_radii(images.shape[-1]):
        for _ in range(radius - done):
            eroded = _neighbourhood(eroded, np.minimum)
        opened = eroded
        for _ in range(radius):
            opened = _neighbourhood(opened, np.maximum)
        light = opened.sum(axis=(2, 3), dtype=np.int64)
        out.append((before - light) / np.maximum(total, 1))
        before, done = light, radius
    return np.stack(out, axis=-1)


def _neighbourhood(images: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Least or largest value (or truth) of each pixel's 3×3 neighbourhood; pixels outside do not count."""
    for ahead, behind in ((np.s_[..., 1:, :], np.s_[..., :-1, :]), (np.s_[..., 1:], np.s_[..., :-1])):
        out = images.copy()
        choose(out[ahead], images[behind], out=out[ahead])
        choose(out[behind], images[ahead], out=out[behind])
        images = out
    return images


def correlations(images: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the pixels of each pair of channels (n, pairs); 0 where a channel is constant."""
    count, channels = images.shape[:2]
    pixels = images.reshape(count, channels, -1).astype(np.float64)
    pixels -= pixels.mean(axis=2, keepdims=True)
    length = np.sqrt((pixels**2).sum(axis=2))
    scaled = np.where(length[..., None] < SMALL, 0, pixels / np.maximum(length, SMALL)[..., None])
    first, second = np.triu_indices(channels, 1)
    return (scaled @ scaled.swapaxes(1, 2))[:, first, second]


# ---- regions ---------------------------------------------------------------------------------------------------------


def foreground(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels above Otsu's threshold, bool (n, C, H, W), and that threshold int (n, C), as scikit-image chooses it."""
    counts = histograms(images).astype(np.float64)
    values = np.arange(256)
    below, above = np.cumsum(counts, axis=-1), np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    sums = np.cumsum(counts * values, axis=-1)
    low = sums / np.maximum(below, 1)
    high = (sums[..., -1:] - sums + counts * values) / np.maximum(above, 1)
    between = below[..., :-1] * above[..., 1:] * (low[..., :-1] - high[..., 1:]) ** 2
    threshold = np.argmax(between, axis=-1)
    # A channel of one value has no foreground.
    threshold = np.where(between.max(axis=-1) > 0, threshold, 255)
    return images > threshold[..., None, None], threshold


def shapes(masks: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Shape of each foreground and of its largest object (n, C, S); areas are fractions of the image, lengths of its
    side."""
    count, channels, height, width = masks.shape
    regions = count * channels
    flat = masks.reshape(regions, height, width)
    # Imported here: networks need not wait for it.
    from scipy import ndimage

    # Objects touch by edges or corners, and never across images.
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = True
    marked, objects = ndimage.label(flat, structure)
    at, y, x = (place.astype(np.int64) for place in np.nonzero(flat))
    label = marked[at, y, x] - 1
    area, owner = np.bincount(label, minlength=objects), np.zeros(objects, dtype=np.int64)
    owner[label] = at
    largest = _largest(area, owner, regions)
    known = largest >= 0
    chosen = np.where(known, largest, 0)
    size = np.where(known, area[chosen], 0) if objects else np.zeros(regions)

    def total(weight: np.ndarray) -> np.ndarray:
        sums = np.bincount(label, weights=weight, minlength=max(objects, 1))
        return np.where(known, sums[chosen], 0) / np.maximum(size, 1)

    mean_y, mean_x = total(y), total(x)
    # Axes of the ellipse with the same second moments.
    yy, xx, xy = total(y * y) - mean_y**2, total(x * x) - mean_x**2, total(x * y) - mean_x * mean_y
    root = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    longer, shorter = (xx + yy + root) / 2, np.maximum((xx + yy - root) / 2, 0)
    middle = np.hypot(mean_y - (height - 1) / 2, mean_x - (width - 1) / 2) / width
    pixels = flat.sum(axis=(1, 2))
    edge = (flat & ~_neighbourhood(flat, np.logical_and)).sum(axis=(1, 2))
    boxes = _box_areas(label, y, x, objects)
    extent = np.where(known, size / np.maximum(boxes[chosen], 1), 0) if objects else np.zeros(regions)
    columns = [
        thresholds.ravel() / 255,
        pixels / (height * width),
        np.bincount(owner, minlength=regions),
        size / (height * width),
        4 * np.sqrt(longer) / width,
        4 * np.sqrt(shorter) / width,
        np.where(longer > SMALL, np.sqrt(np.maximum(1 - shorter / np.maximum(longer, SMALL), 0)), 0),
        extent,
        edge / np.maximum(pixels, 1),
        np.where(known, middle, 0),
    ]
    return np.stack(columns, axis=-1).reshape(count, channels, -1)


def _largest(area: np.ndarray, owner: np.ndarray, regions: int) -> np.ndarray:
    """Largest object of each region, int (regions,); -1 where it has none.

    Of equal ones the first is taken, which a turn may exchange for another: they differ in shape alone."""
    out = np.full(regions, -1)
    order = np.lexsort((-np.arange(len(area)), area))
    out[owner[order]] = order
    return out


def _box_areas(label: np.ndarray, y: np.ndarray, x: np.ndarray, objects: int) -> np.ndarray:
    """Area of the bounding box of each object."""
    sides = np.ones(max(objects, 1), dtype=np.int64)
    for place in (y, x):
        low, high = np.full(len(sides), np.iinfo(np.int64).max), np.full(len(sides), -1)
        np.minimum.at(low, label, place)
        np.maximum.at(high, label, place)
        sides *= np.where(high >= 0, high - low + 1, 0)
    return sides


def zones(masks: np.ndarray) -> np.ndarray:
    """Whether a pixel lies in a zone of each foreground, bool (n, C, zones, H, W); each pixel in exactly one."""
    step = max(1, round(ZONE_STEP * masks.shape[-1]))
    core, near = masks, masks
    for _ in range(step):
        core, near = _neighbourhood(core, np.logical_and), _neighbourhood(near, np.logical_or)
    around = near
    for _ in range(2 * step):
        around = _neighbourhood(around, np.logical_or)
    return np.stack([core, masks & ~core, near & ~masks, around & ~near, ~around], axis=2)


def zone_fractions(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Area of each zone of each foreground, and the fraction of each channel's light in it (n, (1 + C) · C · zones)."""
    count, channels = images.shape[:2]
    inside = zones(masks).reshape(count, -1, images[0, 0].size).astype(np.float32)
    pixels = images.reshape(count, channels, -1).astype(np.float32)
    light = pixels @ inside.swapaxes(1, 2) / np.maximum(pixels.sum(axis=2), 1)[..., None]
    return np.concatenate([inside.mean(axis=2)[:, None], light], axis=1).reshape(count, -1)
