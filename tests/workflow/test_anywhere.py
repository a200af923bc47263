"""MixLoc in any working directory, as a module, from a Git address, with conda, and deployed by snakedeploy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.helpers import warm_python
from tests.helpers.checkout import JOB, ROOT, Checkout

pytestmark = pytest.mark.workflow

# Smaller than presets/ci.yaml, over which it is given: seconds for the first stages.
TINY = """
run: tiny
simulate_cells: {images: 90, genes: 40, labels: {genes_per_class: 4}}
preprocess_images: {size: 32}
"""
FOLDS = "results/tiny/repeat0/folds.csv"
COST = "results/tiny/cost.json"
ADDRESS = "https://github.com/lab/mixloc"


class Anywhere:
    """A working directory outside MixLoc."""

    def __init__(self, folder: Path, home: Path, warm: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # What a machine knows of earlier runs (sources from Git addresses) is left out.
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "GITHUB_TOKEN")}
        self.environment |= own | {"PATH": path} | (warm_python.environment() if warm else {})
        self.python = warm_python.python() if warm else sys.executable

    def write(self, name: str, text: str) -> Path:
        """Write a file; its text may be indented."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def call(self, *words: str | Path, fails: bool = False) -> str:
        """Call a program and return what it prints."""
        done = subprocess.run(
            [str(word) for word in words], cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout[-6000:]
        return done.stdout

    def snakemake(self, *options: str | Path, fails: bool = False) -> str:
        """Run Snakemake here."""
        return self.call(self.python, "-m", "snakemake", "--cores", "2", *options, fails=fails)

    def planned(self, *options: str | Path) -> set[str]:
        """Rules that a run would execute now."""
        return set(JOB.findall(self.snakemake("--dry-run", *options)))


def command(printed: str, rule: str) -> str:
    """The stage's command as `snakemake -np` prints it."""
    return re.search(rf"^Shell command: (.*\bpython -m workflow_scripts\.{rule} .*)$", printed, re.MULTILINE)[1]


def files_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def git(repository: Path, *words: str) -> None:
    """Call Git in a repository, with a user."""
    user = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", *user, *words], cwd=repository, check=True, capture_output=True)


@pytest.fixture
def mixloc(tmp_path: Path) -> Checkout:
    """MixLoc in a folder with blanks and other signs that shells read."""
    return Checkout.fresh(tmp_path / "it's my $mixloc")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """MixLoc as a Git repository with one commit."""
    folder = Checkout.fresh(tmp_path / "a repository").folder
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(ROOT / ".gitignore", folder)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    git(folder, "tag", "v1")
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Anywhere:
    """An empty working directory with blanks in its name, and a file of settings."""
    made = Anywhere(tmp_path / "another folder", tmp_path / "home")
    made.write("tiny.yaml", TINY)
    return made


@pytest.fixture
def with_real_python(elsewhere: Anywhere) -> Anywhere:
    """The same, where nothing but the real Python is called."""
    return Anywhere(elsewhere.folder, Path(elsewhere.environment["HOME"]), warm=False)


def test_another_working_directory(mixloc: Checkout, elsewhere: Anywhere, tmp_path: Path) -> None:
    before = files_of(mixloc.folder)
    here = Anywhere(tmp_path, tmp_path / "home")
    settings = ("--configfile", mixloc.folder / "presets" / "ci.yaml", elsewhere.folder / "tiny.yaml")

    def options(folder: Path) -> tuple[str | Path, ...]:
        return FOLDS, COST, *settings, "--directory", elsewhere.folder, "--snakefile", folder / "Snakefile"

    here.snakemake(*options(mixloc.folder))
    for made in (FOLDS, COST, "results/tiny/logs/make_folds/repeat0.log"):
        assert (elsewhere.folder / made).is_file()
    assert files_of(mixloc.folder) == before, "nothing is written where the workflow is"
    assert not here.planned(*options(mixloc.folder))

    moved = shutil.move(mixloc.folder, tmp_path / "moved")
    settings = ("--configfile", moved / "presets" / "ci.yaml", elsewhere.folder / "tiny.yaml")
    assert not here.planned(*options(moved)), "neither the place nor the date of the code matters"
    (moved / "workflow_scripts" / "make_folds.py").touch()
    with (moved / "workflow_scripts" / "make_folds.py").open("a", encoding="utf-8") as file:
        file.write("\nEDITED = True\n")
    assert here.planned(*options(moved)) == {"make_folds"}


def test_a_printed_command_can_be_pasted(mixloc: Checkout, elsewhere: Anywhere, with_real_python: Anywhere) -> None:
    elsewhere.write("workflow_scripts/__init__.py", "raise SystemExit('a package of the user, not of MixLoc')\n")
    start = (COST, "--snakefile", mixloc.folder / "Snakefile", "--configfile", mixloc.folder / "presets" / "ci.yaml")
    printed = elsewhere.snakemake(*start, "tiny.yaml", "--dry-run", "--printshellcmds")
    with_real_python.call("bash", "-c", "set -eu; " + command(printed, "predict_cost"))
    assert (elsewhere.folder / COST).is_file()
    # A library that the user put on Python's path stays there.
    elsewhere.write("libraries/sitecustomize.py", "print('the library of the user')\n")
    with_real_python.environment["PYTHONPATH"] = str(elsewhere.folder / "libraries")
    assert "the library of the user" in with_real_python.call("bash", "-c", command(printed, "predict_cost"))


def test_in_its_own_folder_commands_are_plain(mixloc: Checkout) -> None:
    printed = mixloc.snakemake("cost", "--dry-run", "--printshellcmds").stdout
    assert command(printed, "predict_cost").startswith(
        "OPENBLAS_NUM_THREADS=1 python -m workflow_scripts.predict_cost "
    )


def test_a_module_with_settings_of_its_own(mixloc: Checkout, elsewhere: Anywhere) -> None:
    preset = yaml.safe_load((mixloc.folder / "presets" / "ci.yaml").read_text(encoding="utf-8"))
    elsewhere.write("config.yaml", yaml.safe_dump({"mixloc": preset | yaml.safe_load(TINY), "samples": ["a", "b"]}))
    elsewhere.write(
        "Snakefile",
        f"""
        configfile: "config.yaml"
        module mixloc:
            snakefile: {str(mixloc.folder / "Snakefile")!r}
            config: config["mixloc"]
        use rule * from mixloc as mixloc_*
        rule groups:
            input: {FOLDS!r}
            output: "groups.txt"
            shell: "cut -d, -f1 {{input}} > {{output}}"
        """,
    )
    everything = elsewhere.planned()
    assert {"mixloc_all", "mixloc_report", "mixloc_train_classifier"} <= everything
    elsewhere.snakemake("groups.txt")
    assert len((elsewhere.folder / "groups.txt").read_text().splitlines()) > 10
    # As with --configfile, what is not named keeps its default, and a mistake ends in one line.
    printed = elsewhere.snakemake("--dry-run", "mixloc_cost", "--config", "mixloc={run: again}")
    assert "results/again/cost.json" in printed
    printed = elsewhere.snakemake("--dry-run", "--config", "mixloc={seed: none}", fails=True)
    assert printed.splitlines()[-1].startswith("MixLoc config: seed")


def test_a_module_without_settings_takes_those_of_the_command_line(mixloc: Checkout, elsewhere: Anywhere) -> None:
    elsewhere.write(
        "Snakefile",
        f"""
        module mixloc:
            snakefile: {str(mixloc.folder / "Snakefile")!r}
        use rule * from mixloc
        """,
    )
    printed = elsewhere.snakemake(
        "cost", "--dry-run", "--configfile", mixloc.folder / "presets" / "ci.yaml", "tiny.yaml"
    )
    assert COST in printed
    assert "results/demo/cost.json" in elsewhere.snakemake("cost", "--dry-run")


def test_a_prefix_is_refused(mixloc: Checkout, elsewhere: Anywhere) -> None:
    elsewhere.write(
        "Snakefile",
        f"""
        module mixloc:
            snakefile: {str(mixloc.folder / "Snakefile")!r}
            prefix: "mixloc"
        use rule * from mixloc
        """,
    )
    assert "a module takes no prefix" in elsewhere.snakemake("--dry-run", fails=True)


def test_two_versions_in_one_workflow_are_refused(mixloc: Checkout, repository: Path, elsewhere: Anywhere) -> None:
    elsewhere.write(
        "Snakefile",
        f"""
        module one:
            snakefile: {str(mixloc.folder / "Snakefile")!r}
        use rule * from one as one_*
        module two:
            snakefile: {str(repository / "Snakefile")!r}
        use rule * from two as two_*
        """,
    )
    assert "Use one version of MixLoc" in elsewhere.snakemake("--dry-run", fails=True)


def deployed(repository: Path, elsewhere: Anywhere) -> None:
    """Let Git take the repository for one at an address, which no test may ask."""
    rewritten = {"COUNT": "1", "KEY_0": f"url.{repository.as_uri()}.insteadOf", "VALUE_0": ADDRESS}
    elsewhere.environment |= {f"GIT_CONFIG_{name}": value for name, value in rewritten.items()}


@pytest.mark.parametrize("source", ["gitfile({path!r}, path='workflow/Snakefile', ref='main')",
                                    "github('lab/mixloc', path='Snakefile', tag='v1')"])  # fmt: skip
def test_a_git_address(repository: Path, elsewhere: Anywhere, source: str) -> None:
    deployed(repository, elsewhere)
    elsewhere.write(
        "Snakefile",
        f"""
        configfile: {str(repository / "presets/ci.yaml")!r}
        configfile: "tiny.yaml"
        module mixloc:
            snakefile: {source.format(path=str(repository))}
            config: config
        use rule * from mixloc
        """,
    )
    assert {"all", "report", "train_classifier"} <= elsewhere.planned("all")
    elsewhere.snakemake("cost")
    assert (elsewhere.folder / COST).is_file()


def test_another_commit_runs_again_what_it_changes(repository: Path, elsewhere: Anywhere) -> None:
    stage = repository / "workflow_scripts" / "predict_cost.py"
    start = ("cost", "--snakefile", f"git+file://{repository}/workflow/Snakefile@main")
    elsewhere.snakemake(*start)
    for text, rerun in (("\n# Only a comment.\n", set()), ("\nEDITED = True\n", {"predict_cost", "cost"})):
        with stage.open("a", encoding="utf-8") as file:
            file.write(text)
        git(repository, "commit", "--all", "--quiet", "--message", "another")
        assert elsewhere.planned(*start) == rerun


# Makes environments whose only program is a Python that says where it is from.
CONDA = """\
#!/bin/sh
case "$1 $2" in
"info --json") echo '{"conda_prefix": "PREFIX", "platform": "linux-64"}' ;;
"config --get") echo '{"get": {"channel_priority": "strict"}}' ;;
"env create")
    for word in "$@"; do environment=$word; done
    mkdir -p "$environment/bin"
    printf '#!/bin/sh\\necho Python of conda\\nexec "PYTHON" "$@"\\n' > "$environment/bin/python"
    chmod +x "$environment/bin/python" ;;
*) echo conda 25.1.0 ;;
esac
"""


def test_conda(mixloc: Checkout, elsewhere: Anywhere, tmp_path: Path) -> None:
    """With a pretended conda: Snakemake takes PYTHONPATH out of the environment of its jobs."""
    conda = Anywhere(tmp_path / "conda", tmp_path)  # Snakemake itself takes no blanks here
    text = CONDA.replace("PREFIX", str(conda.folder)).replace("PYTHON", sys.executable)
    conda.write("bin/conda", text).chmod(0o755)
    conda.write("bin/activate", 'PATH="$1/bin:$PATH"\n')
    elsewhere.environment["PATH"] = f"{conda.folder / 'bin'}{os.pathsep}{elsewhere.environment['PATH']}"
    start = ("cost", "--snakefile", mixloc.folder / "Snakefile", "--sdm", "conda")
    printed = elsewhere.snakemake(*start)
    assert "Python of conda" in printed
    assert [path.read_text() for path in elsewhere.folder.glob(".snakemake/conda/*.yaml")] == [
        (mixloc.folder / "envs" / "mixloc.yaml").read_text()
    ]
    assert (elsewhere.folder / "results" / "demo" / "cost.json").is_file()


def test_snakedeploy(repository: Path, elsewhere: Anywhere) -> None:
    deployed(repository, elsewhere)
    elsewhere.call("snakedeploy", "deploy-workflow", ADDRESS, ".", "--tag", "v1")
    assert elsewhere.planned() >= {"default", "report"}
    elsewhere.snakemake("cost")
    assert (elsewhere.folder / "results" / "mine" / "cost.json").is_file()


def test_what_the_catalogue_asks_for() -> None:
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert set(entry) == {"usage"} and entry["usage"]["report"] is True
    methods = entry["usage"]["software-stack-deployment"]
    assert methods == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert (ROOT / "workflow" / "Snakefile").is_file()
