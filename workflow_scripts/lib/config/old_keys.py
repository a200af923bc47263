"""What keys of the config were called before, so that an old config is told their new names."""

from collections.abc import Iterator
from typing import Any

# Old keys at their new places -> new keys.
KEYS = {
    "strategies": "arms",
    "plans": "synthetic_sets",
    "arms[].plan": "synthetic_set",
    "arms[].real_share": "real_fraction",
    "synthetic_sets[].given": "reference_channels",
    "synthetic_sets[].vary": "start_noise",
    "generators[].given_share": "reference_fraction",
    "train_classifier.real_share": "real_fraction",
    "data.on_bad": "on_invalid",
    "data.bad_limit": "invalid_limit",
    "simulate_cells.shift.share": "fraction",
    "make_folds.shares": "fractions",
    "forensics.shares": "shards",
    "forensics.plans": "synthetic_sets",
    "forensics.models[].real_share": "real_fraction",
} | {
    f"simulate_cells.reliability.{tier}.share": "fraction"
    for tier in ("Enhanced", "Supported", "Approved", "Uncertain")
}
# Since data.unlabelled names further images, it does not say what images without a label are.
NO_LABEL = {"bad": "invalid", "invalid": "invalid", "keep": "keep"}
VALUES = {("data.unlabelled", value): f"no_label: {now}" for value, now in NO_LABEL.items()}


def renamed(config: dict[str, Any]) -> list[str]:
    """A clause for each old key or value of a config: what it is called now."""
    out: dict[str, str] = {}
    for place, told in _found(config, "", ""):
        out.setdefault(place, told)
    return list(out.values())


def _found(value: Any, old: str, new: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and (new, value) in VALUES:
        yield new, f"{old} = {value!r} is now called {VALUES[new, value]!r}"
    for key, inner in value.items() if isinstance(value, dict) else ():
        before, now = f"{old}.{key}".lstrip("."), f"{new}.{key}".lstrip(".")
        if now in KEYS:
            now = f"{new}.{KEYS[now]}".lstrip(".")
            yield now, f"{before} is now called {now}"
        yield from _found(inner, before, now)
    for place, entry in enumerate(value) if isinstance(value, list) else ():
        yield from _found(entry, f"{old}[{place}]", f"{new}[]")
