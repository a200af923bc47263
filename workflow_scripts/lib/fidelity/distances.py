"""How far one set of images is from another, in the features of an encoder and in plain pixels; numpy alone.

    (1) Fréchet distance  |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))         Heusel et al. 2017, arXiv:1706.08500
    (2) KID               unbiased squared MMD with kernel (x.y / D + 1)^3    Binkowski et al. 2018, arXiv:1801.01401
    (3) MMD               unbiased squared MMD with kernel exp(-|x - y|^2 / 2 D)
                                                                              Jayasumana et al. 2024, arXiv:2401.09603
    (4) Vendi score       exponential of the entropy of the eigenvalues of the cosines of all pairs, by n
                                                                              Friedman and Dieng 2023, arXiv:2210.02410
    (5) precision         fraction of generated y with |y - x| <= r3(x) for some real x; recall: the same with the sets
                          exchanged; r3(x) is the distance from x to its third neighbour in its own set
                                                                              Kynkäänniemi et al. 2019, arXiv:1904.06991
    (6) density           mean over y of the number of x with |y - x| <= r5(x), by 5
    (7) coverage          fraction of x with |y - x| <= r5(x) for some y      Naeem et al. 2020, arXiv:2002.09797
    (8) spectrum, links   mean squared difference of mean descriptors         (see spectra.py)

Features are measured in units of the reference's mean variance, so that encoders are comparable. The Fréchet distance
is divided by the reference's variance, so that 1 is as far as the spread of the real images, in however many dimensions
it sees them (`_scaled`). Two of these are about 2 D apart (squared), which is the width of the Gaussian kernel. The
Vendi score says how many different images there are in effect, whether or not they look real.

Intervals come from random halves: half of the groups of the real side, half of the images of the generated one. The
variance of a half-sample about the whole equals that of the whole about the truth, for any statistic that is smooth
(McCarthy 1969). Unlike the usual bootstrap it repeats no image, and repeated images would empty the k-NN balls and
add to a Fréchet distance. The same halves correct for sample size: a bias c / n doubles in a half, so
2 θ(n) - θ(n / 2) is free of it. This is the extrapolation to infinite n of Chong and Forsyth (2020,
arXiv:1911.07023), with groups in place of images as the unit: images of a protein are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from workflow_scripts.lib.base import pairwise

BALL, BALL_DENSE = 3, 5  # neighbour number of the radius: precision and recall; density and coverage
PER_DIMENSION = 4  # images for each dimension of a covariance; with fewer its dimensions are reduced
EMPTY = 1e-12  # eigenvalue that is zero but for rounding
FEWEST_IMAGES, FEWEST_GROUPS = 10, 4  # below this nothing is computed


@dataclass(frozen=True)
class Measure:
    """Facts about a measure: its name, whether its bias is extrapolated, and its range."""

    title: str
    unit: str
    better: str  # low, high or near 0
    extrapolated: bool = False
    squared: bool = False  # computed as a square, whose bias is known, and shown as its root
    most: float = np.inf
    needs_encoder: bool = True


MEASURES = {
    "frechet": Measure("Fréchet distance", "spreads of the real images, squared", "low", extrapolated=True),
    "kid": Measure("kernel distance (KID)", "", "low"),
    "mmd": Measure("MMD, Gaussian kernel (as CMMD)", "", "low"),
    "vendi": Measure("Vendi score", "images in effect", "high"),
    "precision": Measure("precision", "fraction", "high", most=1.0),
    "recall": Measure("recall", "fraction", "high", most=1.0),
    "density": Measure("density", "", "high"),
    "coverage": Measure("coverage", "fraction", "high", most=1.0),
    "spectrum": Measure("power spectrum", "dB", "low", extrapolated=True, squared=True, needs_encoder=False),
    "links": Measure("channel correlation", "correlation", "low", extrapolated=True, squared=True, needs_encoder=False),
}


@dataclass(frozen=True)
class Estimate:
    """Value and interval; NaN where there were too few images."""

    value: float
    low: float
    high: float


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Sample:
    """Features and descriptors of a set of images, one row an image."""

    features: np.ndarray  # (n, D), centred on the reference, in units of its mean variance
    axes: np.ndarray  # (n, d), the same along the directions that the Fréchet distance sees
    curves: np.ndarray  # (n, B), radial power spectra of all channels, decibel
    links: np.ndarray  # (n, P), correlations of pairs of channels; P is 0 with one channel
    groups: np.ndarray  # (n,), resampled as a whole

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: np.ndarray) -> Sample:
        """Some of its images."""
        return Sample(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Summary:
    """Statistics of a sample that every comparison needs."""

    sample: Sample
    mean: np.ndarray  # (d,)
    covariance: np.ndarray  # (d, d)
    ball: np.ndarray  # (n,), squared distance to neighbour number BALL
    ball_dense: np.ndarray  # (n,), to neighbour number BALL_DENSE
    kernel: float  # mean over pairs of different groups
    gaussian: float  # the same of the Gaussian kernel
    norms: np.ndarray  # (n,), squared lengths of the features
    curves: np.ndarray  # (B,), mean
    links: np.ndarray  # (P,), mean


def _kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    inner = products / dimensions
    inner += 1
    cube = inner * inner
    cube *= inner
    return cube


def _gaussian(apart: np.ndarray, dimensions: int) -> np.ndarray:
    return np.exp(apart / (-2 * dimensions))


def vendi(features: np.ndarray) -> float:
    """Vendi score (equation 4) of features (n, D): from 1, all alike, to n, all at right angles."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    count, dimensions = unit.shape
    # Both products have the same eigenvalues but for zeros.
    inner = (unit.T @ unit if dimensions < count else unit @ unit.T).astype(np.float64) / count
    values = np.linalg.eigvalsh(inner)
    values = values[values > EMPTY]
    return float(np.exp(-(values * np.log(values)).sum()))


def summarise(sample: Sample) -> Summary:
    """Moments, ball radii and the mean kernel of a sample; n × n matrices only block by block."""
    count, x = len(sample), sample.features
    ball, dense, norms = np.empty(count, dtype=x.dtype), np.empty(count, dtype=x.dtype), pairwise.squared_lengths(x)
    near, near_dense = min(BALL, count - 1), min(BALL_DENSE, count - 1)
    total, gaussian, pairs = 0.0, 0.0, 0
    for rows in pairwise.blocks(count):
        products = x[rows] @ x.T
        others = sample.groups[rows, None] != sample.groups[None]
        total += float((_kernel(products, x.shape[1]) * others).sum(dtype=np.float64))
        pairs += int(others.sum())
        # An image is its own nearest: neighbour number k stands at place k.
        nearest = pairwise.from_products(norms[rows], norms, products)
        gaussian += float((_gaussian(nearest, x.shape[1]) * others).sum(dtype=np.float64))
        nearest.partition((near, near_dense), axis=1)
        ball[rows], dense[rows] = nearest[:, near], nearest[:, near_dense]
    axes = sample.axes.astype(np.float64)
    covariance = np.atleast_2d(np.cov(axes, rowvar=False)) if count > 1 else np.zeros((axes.shape[1],) * 2)
    return Summary(
        sample, axes.mean(axis=0), covariance, ball, dense, total / pairs if pairs else float("nan"),
        gaussian / pairs if pairs else float("nan"), norms,
        sample.curves.mean(axis=0), sample.links.mean(axis=0),
    )  # fmt: skip


def root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance (d, d)."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frechet(reference: Summary, other: Summary, reference_root: np.ndarray) -> float:
    """Fréchet distance (equation 1) of Gaussians with these moments, by the trace of a symmetric root."""
    inner = np.linalg.eigvalsh(reference_root @ other.covariance @ reference_root)
    gap = ((reference.mean - other.mean) ** 2).sum()
    trace = np.trace(reference.covariance) + np.trace(other.covariance)
    return float(gap + trace - 2 * np.sqrt(np.clip(inner, 0, None)).sum())


def _scaled(reference: Summary, other: Summary, reference_root: np.ndarray) -> float:
    """Fréchet distance in units of the variance of real images: a shift of the mean by all of it, as a shift is always
    seen whole, and the rest by what is seen."""
    shift = float(((reference.mean - other.mean) ** 2).sum())
    rest = frechet(reference, other, reference_root) - shift
    return shift / reference.sample.features.shape[1] + rest / (np.trace(reference.covariance) or 1.0)


def compare(reference: Summary, other: Summary, reference_root: np.ndarray | None = None) -> dict[str, float]:
    """Measures 1 to 8 of `other` against `reference`, uncorrected; squared measures stay squared."""
    real, made = reference.sample, other.sample
    half = root(reference.covariance) if reference_root is None else reference_root
    kernel = gaussian = inside = overlaps = 0.0
    covered, recalled = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for rows in pairwise.blocks(len(made)):
        products = made.features[rows] @ real.features.T
        kernel += float(_kernel(products, real.features.shape[1]).sum(dtype=np.float64))
        apart = pairwise.from_products(other.norms[rows], reference.norms, products)
        gaussian += float(_gaussian(apart, real.features.shape[1]).sum(dtype=np.float64))
        inside += float((apart <= reference.ball).any(axis=1).sum())
        dense = apart <= reference.ball_dense
        overlaps += float(dense.sum())
        covered |= dense.any(axis=0)
        recalled |= (apart <= other.ball[rows, None]).any(axis=0)
    mean, mean_gaussian = (total / (len(made) * len(real)) for total in (kernel, gaussian))
    curves, links = other.curves - reference.curves, other.links - reference.links
    return {
        "frechet": _scaled(reference, other, half),
        "kid": reference.kernel + other.kernel - 2 * mean,
        "mmd": reference.gaussian + other.gaussian - 2 * mean_gaussian,
        "vendi": vendi(made.features),
        "precision": inside / len(made),
        "recall": float(recalled.mean()),
        "density": overlaps / (min(BALL_DENSE, len(real) - 1) * len(made)),
        "coverage": float(covered.mean()),
        "spectrum": float((curves**2).mean()),
        "links": float((links**2).mean()) if links.size else float("nan"),
    }


class Halves:
    """Draws rows of random halves of the groups."""

    def __init__(self, groups: np.ndarray) -> None:
        names, self._owner = np.unique(groups, return_inverse=True)
        self._count = len(names)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of one half."""
        return np.flatnonzero(rng.permutation(self._count)[self._owner] < self._count // 2)

    @property
    def fraction(self) -> float:
        """Fraction of the groups that a half holds."""
        return (self._count // 2) / self._count


def estimates(
    reference: Sample, others: dict[str, Sample], rng: np.random.Generator, draws: int, confidence: float
) -> dict[str, dict[str, Estimate]]:
    """Every measure of every other sample against the reference: corrected value and interval."""
    usable = {name: other for name, other in others.items() if _enough(other)} if _enough(reference) else {}
    out = {name: dict.fromkeys(MEASURES, NOTHING) for name in others}
    if not usable:
        return out
    whole = _compare_all(reference, usable)
    halves, own = [], Halves(reference.groups)
    theirs = {name: Halves(other.groups) for name, other in usable.items()}
    for _ in range(draws):
        part = reference.take(own.draw(rng))
        parts = {name: other.take(theirs[name].draw(rng)) for name, other in usable.items()}
        halves.append(_compare_all(part, parts))
    for name in usable:
        fraction = np.mean([own.fraction, theirs[name].fraction])
        for measure, kind in MEASURES.items():
            resampled = np.array([half[name][measure] for half in halves])
            out[name][measure] = estimate(whole[name][measure], resampled, float(fraction), kind, confidence)
    return out


def average(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int, level: float) -> Estimate:
    """Mean over images of a value, such as a fraction, and its interval over groups; NaN are left out."""
    known = np.isfinite(values)
    values, groups = values[known], groups[known]
    if not len(values):
        return NOTHING
    if len(np.unique(groups)) < 2:
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    halves = Halves(groups)
    resampled = np.array([values[halves.draw(rng)].mean() for _ in range(draws)])
    return estimate(float(values.mean()), resampled, halves.fraction, Measure("", "", "high", most=1.0), level)


def _enough(sample: Sample) -> bool:
    return len(sample) >= FEWEST_IMAGES and len(np.unique(sample.groups)) >= FEWEST_GROUPS


def _compare_all(reference: Sample, others: dict[str, Sample]) -> dict[str, dict[str, float]]:
    real = summarise(reference)
    half = root(real.covariance)
    return {name: compare(real, summarise(other), half) for name, other in others.items()}


def estimate(value: float, halves: np.ndarray, fraction: float, kind: Measure, confidence: float) -> Estimate:
    """Estimate from the value of the whole and those of random halves, which hold a fraction of the groups."""
    # A part with the fraction f of the groups varies about the whole by (1 - f) / f of the variance of the whole.
    factor = fraction / (1 - fraction)
    if kind.extrapolated:
        value = value - factor * (float(halves.mean()) - value)
    spread = float(halves.std(ddof=1)) * np.sqrt(factor) * NormalDist().inv_cdf((1 + confidence) / 2)
    ends = np.array([value, value - spread, value + spread])
    if kind.squared:
        ends = np.sqrt(np.clip(ends, 0, None))
    elif np.isfinite(kind.most):
        ends = np.clip(ends, 0, kind.most)
    return Estimate(*map(float, ends))


def reduced(dimensions: int, smallest: int) -> int:
    """Number of dimensions of the Fréchet distance, with samples of at least `smallest` images."""
    return min(dimensions, max(1, smallest // PER_DIMENSION))


def main_axes(features: list[np.ndarray], count: int) -> np.ndarray:
    """Principal axes: the `count` directions (D, count) of largest variance of all features together.

    Where these are all directions, the axes are the features themselves. Generated images are included, so that a
    direction in which only they vary is not overlooked."""
    dimensions = features[0].shape[1]
    if count >= dimensions:
        return np.eye(dimensions, dtype=features[0].dtype)
    # Each set has the same weight, whatever its size.
    means = np.stack([part.mean(axis=0) for part in features])
    if sum(map(len, features)) + len(features) <= dimensions:
        # Fewer images than dimensions: the same axes from the inner products of what the covariances are made of.
        parts = [
            (part - mean) / np.sqrt((len(part) - 1) * len(features)) for part, mean in zip(features, means, strict=True)
        ]
        rows = np.concatenate([*parts, (means - means.mean(axis=0)) / np.sqrt(len(means) - 1)]).astype(np.float64)
        vectors = np.linalg.eigh(rows @ rows.T)[1][:, -count:].T @ rows
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T.astype(features[0].dtype)
    spread = sum(np.cov(part, rowvar=False) for part in features) / len(features)
    return np.linalg.eigh(spread + np.cov(means, rowvar=False))[1][:, -count:].astype(features[0].dtype)
