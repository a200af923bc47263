"""start: a first config for one's own images, guessed from a folder and a table.

It asks at most five questions, each with a guess that Enter takes; a flag answers its question beforehand, and --yes
takes all guesses. The config is written with comments, checked as Snakemake would, and nothing is overwritten without
--force. Without a table, folders within the folder are classes: their files are linked into one folder, with a table.

Example:
    python -m workflow_scripts.start yeast/images
    python -m workflow_scripts.start yeast/images --table yeast/labels.csv --protein gfp --yes --check
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.config import first_config, first_questions

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    out = argparse.ArgumentParser(
        prog="python -m workflow_scripts.start", description=summary, epilog=rest, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    out.add_argument("folder", type=Path, help="folder of the images, or one with that folder and the table")
    out.add_argument("--table", type=Path, help="table of Ids and labels")
    out.add_argument("--id", help="column of the Ids, which are part of the files' names")
    out.add_argument("--labels", help="column of the labels")
    out.add_argument("--groups", help="columns that say which images belong together, with commas; none: there is none")
    out.add_argument("--protein", help="channel of the stain whose location the labels tell")
    out.add_argument("--cells", choices=("yes", "no"), help="whether the images are whole fields to cut cells out of")
    out.add_argument("--run", help="name of the run; by default that of the folder")
    out.add_argument("--out", type=Path, help="config to write; by default {run}.yaml")
    out.add_argument("--yes", action="store_true", help="take all guesses")
    out.add_argument("--force", action="store_true", help="overwrite what is there")
    out.add_argument("--check", action="store_true", help="then run `snakemake check`")
    return out.parse_args(argv)


def start(args: argparse.Namespace) -> int:
    """Write the config, say what comes next, and begin with it if asked; the exit status."""
    if not args.folder.is_dir():
        raise UserError(f"{args.folder} is no folder")
    run = args.run or _run_name(args.folder)
    out = args.out or Path(f"{run}.yaml")
    first_questions.refuse_overwriting(out, args.force)
    choices = first_questions.choices(args, run)
    with files.room(out) as room:
        draft = room / out.name
        draft.write_text(first_config.text(choices, out), encoding="utf-8")
        if told := first_config.problem(draft):
            raise UserError(f"no config was written, because it would not pass: {told}")
        files.put_in_place(draft, out)
    print(f"wrote {out}; next:")
    for step in first_config.steps(choices):
        print(f"  snakemake --configfile {shlex.quote(str(out))} --cores 2 {step}")
    return _check(out) if args.check else 0


def _run_name(folder: Path) -> str:
    """Name of a run from that of its folder; one that says nothing is passed over."""
    name = folder.resolve().name
    if name.lower() in ("images", "train", "data", "raw", "fields", "tif", "png"):
        name = folder.resolve().parent.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "own"
    return (name if name[0].isalpha() else f"run_{name}")[:40]


def _check(config: Path) -> int:
    """Run `snakemake check`."""
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", config, "--cores", "2", "check"]
    return subprocess.run([sys.executable, "-m", *map(str, command)], check=False).returncode  # noqa: S603


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    try:
        return start(parse_args(argv))
    except UserError as error:
        print(f"start: {error}", file=sys.stderr)
    except (KeyboardInterrupt, EOFError):
        print("\nstart: nothing was written", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
