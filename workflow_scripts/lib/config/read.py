"""Check of config files without Snakemake, which names neither the file nor the line of a mistake in YAML.

    python -m workflow_scripts.lib.config.read yeast.yaml

Several files are laid over config.yaml in their order, as by --configfile. The answer is one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from workflow_scripts.lib.config import bases, check
from workflow_scripts.lib.config.problems import Config, ConfigError


def read(path: Path) -> Config:
    """The settings of a file; what is no YAML ends in a line that names file and line."""
    try:
        out = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{path}: {reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f" {error.context}" if error.context else ""
        begun = error.context_mark
        since = f" (it begins in line {begun.line + 1})" if begun and mark and begun.line != mark.line else ""
        raise ConfigError(f"{path}{where}: {error.problem}{context}{since}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from None
    if out is not None and not isinstance(out, dict):
        raise ConfigError(f"{path}: holds no settings; a line reads `run: yeast`")
    return out or {}


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files that are named; 1 where something is wrong."""
    paths = [Path(name) for name in (sys.argv[1:] if argv is None else argv)]
    try:
        config = read(bases.DEFAULTS)
        for path in paths:
            config = bases.merged(config, read(path))
        run = check.check(config)["run"]
    except ConfigError as error:
        print(f"MixLoc config: {error}", file=sys.stderr)
        return 1
    print(f"{', '.join(map(str, paths)) or bases.DEFAULTS.name}: sound; results go to results/{run}/")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
