"""The page docs/licences.md: each run-time dependency with version and licence, from the metadata of what is installed.

python -m docs.licences (make licences)"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)")
# Longer than any name of a licence: a whole text stands there.
LONGEST = 60
# By what a licence's own text is told, where a package declares none.
MIT = "Permission is hereby granted, free of charge"
# Only a CUDA build of torch needs them.
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
HEAD = """# Licences

MixLoc itself has the MIT licence. These packages are installed for a run by `requirements.txt` and `constraints.txt`,
on Linux with the CPU build of torch. The table says what each package declares. `make licences` writes this page.

A CUDA build of torch also installs NVIDIA's libraries, whose licence is proprietary.
What tests, documentation and checks of formatting need is not listed here.

Two commands look further. Both install `requirements-audit.txt` into `.venv-audit`, beside `.venv`:

<!-- dry run -->
```sh
make sbom      # a software bill of materials of all that is installed (CycloneDX), in sbom.json
make audit     # known vulnerabilities of what constraints.txt pins
```

`make audit` asks an advisory service and has never been run with one. Where none answers, it fails.

| package | version | licence |
|---|---|---|
"""


def canonical(name: str) -> str:
    """The spelling under which a package index files a name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Version by name, of a requirements or constraints file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {canonical(found[1]): found[2] for line in lines if (found := PIN.match(line))}


def run_time(direct: Iterable[str], known: Iterable[str]) -> list[str]:
    """The packages that a run needs, directly or through others, as far as they are installed here and known."""
    found: set[str] = set()
    waiting, known = list(direct), set(known)
    while waiting:
        name = waiting.pop()
        if name in found or name not in known or CUDA.match(name):
            continue
        try:
            needs = requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        waiting += [canonical(re.match(r"[\w.-]+", text)[0]) for text in needs if _counts(text)]
    return sorted(found)


def _counts(text: str) -> bool:
    """Whether a requirement holds here: `snakemake[reports]` is the only extra among the pins."""
    return "extra ==" not in text or bool(re.search(r"extra == ['\"]reports['\"]", text))


def licence(package: Distribution) -> str:
    """What a package declares: an SPDX expression, else classifiers, else a short text, else a file."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    parts = [name.split(" :: ") for name in about.get_all("Classifier", []) if name.startswith("License ::")]
    named = [part[-1] for part in parts if len(part) > 1 and part[-1] != "OSI Approved"]
    if named:
        return ", ".join(sorted(set(named)))
    text = (about.get("License") or "").strip()
    if text and len(text) <= LONGEST and "\n" not in text:
        return text
    files = [path for path in package.files or [] if re.match(r"LICEN[CS]E", path.name) and ".dist-info" in str(path)]
    return "MIT (by its text)" if any(MIT in path.read_text() for path in files) else "not declared; see its files"


def page() -> str:
    """The whole page."""
    constraints = pins(ROOT / "constraints.txt")
    names = run_time(pins(ROOT / "requirements.txt"), constraints)
    rows = [f"| {name} | {constraints[name]} | {licence(distribution(name))} |" for name in names]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
