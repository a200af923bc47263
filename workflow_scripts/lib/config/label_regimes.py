"""Label regimes of a checked config: who is in which, what stages are told of them, and the baseline of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config.problems import Config, ConfigError, short
from workflow_scripts.lib.generate import generator_choices

SEEN, UNUSED = "seen", "unused"  # whether a regime shows images without labels
EVERYTHING = "all"  # what a regime is called in which everything is labelled, where records name it


def fill_in(config: Config) -> None:
    """Give each arm, generator and synthetic set its regime, and each arm the baseline of its regime.

    Regimes that nothing has are dropped. Where everything is labelled in those that are left, none is named: such a run
    is one without regimes."""
    known = {entry["name"]: entry for entry in config["regimes"]}
    if not shows_more(config):
        for entry in config["regimes"]:
            if entry["labelled"] >= 1:
                entry["unlabelled"] = UNUSED  # there is nothing else to see
    for key in ("labelled", "unlabelled"):
        if EVERYTHING in [entry["name"] for entry in partial(config)] and known[EVERYTHING][key] not in (1, "unused"):
            raise ConfigError(
                f"regimes ({EVERYTHING}).{key} = {known[EVERYTHING][key]}: the name is kept for a regime in which "
                "everything is labelled; take another"
            )
    generators = {entry["name"]: entry for entry in config["generators"]}
    first, lists = config["regimes"][0]["name"], ("generators", "synthetic_sets", "arms")
    for section in lists:
        for entry in config[section]:
            if entry.get("regime", first) not in known:
                raise ConfigError(
                    f"{section} ({entry['name']}).regime = {short(entry['regime'])} is not among the regimes: "
                    f"{', '.join(known)}{meant(entry['regime'], list(known))}"
                )
            # An arm may have the encoder of a generator of another regime.
            source = entry.get("generator", "") if section == "synthetic_sets" else ""
            inherited = generators.get(source, {}).get("regime", first)
            entry["regime"] = entry.get("regime", inherited)
    entries = [entry for section in lists for entry in config[section]]
    used = {entry["regime"] for entry in entries}
    if shows_more(config) and not any(known[name]["unlabelled"] == SEEN for name in used):
        key = "data.unlabelled" if config["data"]["unlabelled"] else "make_folds.show_left_out"
        raise ConfigError(
            f"{key} gives further images, and no regime of an arm or a generator shows them: say unlabelled: "
            "seen in one of the regimes, or leave them out"
        )
    config["regimes"] = [regime for regime in config["regimes"] if regime["name"] in used]
    if partial(config):
        _fill_in_baselines(config)
        return
    for entry in entries:
        del entry["regime"]


def partial(config: Config) -> list[Config]:
    """The regimes in which not everything is labelled, or that show further images."""
    return [
        entry
        for entry in config["regimes"]
        if entry["labelled"] < 1 or (shows_more(config) and entry["unlabelled"] == SEEN)
    ]


def shows_more(config: Config) -> bool:
    """Whether there are images to see without labels even where all train groups are labelled."""
    return bool(config["data"]["unlabelled"]) or config["make_folds"]["show_left_out"] > 0


def _fill_in_baselines(config: Config) -> None:
    regimes = {entry["name"]: entry["regime"] for entry in config["arms"]}
    common = regimes.get(config["analysis"]["baseline"])
    for entry in config["arms"]:
        if "baseline" in entry or entry["regime"] == common:
            continue
        own = baseline_of(config, entry["regime"])
        if own is None:
            raise ConfigError(
                f"arms ({entry['name']}): no arm real_only has the regime {entry['regime']!r}, so it has no baseline: "
                "add one, or name its baseline"
            )
        # The baseline of a regime is itself compared with that of the run.
        if own != entry["name"]:
            entry["baseline"] = own


def baseline_of(config: Config, regime: str | None) -> str | None:
    """The arm with which those of a regime are compared, and which they ask: real images alone, under that regime."""
    common = config["analysis"]["baseline"]
    inside = [entry for entry in config["arms"] if entry.get("regime") == regime]
    if any(entry["name"] == common for entry in inside):
        return common
    plain = (entry for entry in inside if entry["method"] == "real_only" and "real_fraction" not in entry)
    return next((entry["name"] for entry in plain), None)


def told(config: Config, entry: Config) -> Config:
    """An arm, a generator or a synthetic set as stages get it: with all of its regime, if that is no whole one."""
    out = {name: value for name, value in entry.items() if name != "regime"}
    own = next((regime for regime in partial(config) if regime["name"] == entry.get("regime")), None)
    return out | ({"regime": own} if own else {})


def seen_by_generators(config: Config) -> dict[str, Config]:
    """For the map: of each synthetic set what its generator `sees`, and the fraction `labelled` in its regime.

    Also whether that shows `further` images: none of those that any regime labels.

    Empty where everything is labelled in every regime."""
    if not partial(config):
        return {}
    generators = {entry["name"]: entry for entry in config["generators"]}
    labelled = {entry["name"]: entry["labelled"] for entry in config["regimes"]}
    more = bool(shows_more(config))
    further = {entry["name"]: more and entry["unlabelled"] == "seen" for entry in config["regimes"]}
    out = {}
    for entry in config["synthetic_sets"]:
        if entry["generator"] == generator_choices.SIMULATOR:
            out[entry["name"]] = {"sees": generator_choices.SIMULATOR, "labelled": 1}
        elif (source := generators.get(entry["generator"])) and not source.get("from"):
            sees = source.get("sees", generator_choices.LABELLED)
            regime = source["regime"]
            out[entry["name"]] = {"sees": sees, "labelled": labelled[regime]}
            out[entry["name"]] |= {"further": True} if further[regime] else {}
    return out


def of_artefacts(config: Config, behind: Callable[[Config], Iterable[Config]]) -> Config:
    """For the certificate: the regime of each generator, set and arm, and those of what it was made from.

    `behind` gives the arms whose answers a generator or an arm rests on. Artefacts that are not named, and regimes that
    are not, are those in which everything is labelled."""
    if not partial(config):
        return {}
    generators, sets = _named(config["generators"]), _named(config["synthetic_sets"])
    found: dict[str, list[Config]] = {f"generator {name}": [entry] for name, entry in generators.items()}
    for name, entry in sets.items():
        source = generators.get(entry["generator"]) if entry["generator"] != generator_choices.SIMULATOR else None
        found[f"synthetic {name}"] = [entry, *([source] if source else [])]
    for entry in config["arms"]:
        inputs = (f"synthetic {entry.get('synthetic_set')}", f"generator {entry.get('generator')}")
        made = [origin for name in inputs for origin in found.get(name, [])]
        found[f"arm {entry['name']}"] = [entry, *made]
    direct = dict(found)
    for kind, entries in (("generator", generators), ("synthetic", sets), ("arm", _named(config["arms"]))):
        for name, entry in entries.items():
            source = generators.get(entry.get("generator", ""), entry) if kind == "synthetic" else entry
            rested = [origin for arm in behind(source) for origin in direct[f"arm {arm['name']}"]]
            found[f"{kind} {name}"] = [*found[f"{kind} {name}"], *rested]
    found |= {f"thresholds of {entry['name']}": [{"regime": entry["name"]}] for entry in partial(config)}
    whole = {entry["name"] for entry in config["regimes"]} - {entry["name"] for entry in partial(config)}
    return {"regimes": partial(config), "artefacts": dict(_by_artefact(found, whole))}


def _named(entries: list[Config]) -> dict[str, Config]:
    return {entry["name"]: entry for entry in entries}


def _by_artefact(found: dict[str, list[Config]], whole: set[str]) -> Iterator[tuple[str, Config]]:
    for name, entries in found.items():
        own, *others = (EVERYTHING if entry["regime"] in whole else entry["regime"] for entry in entries)
        yield name, {"regime": own, "through": sorted(set(others) - {own})}
