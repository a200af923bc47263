# Location of MixLoc's own files, so that it runs in any working directory, as a module, and from a Git address. No
# rules.
#
# These functions belong to no package, because packages can be imported only once the folder is known.
import os
import shlex
import sys
import tarfile
import tempfile
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile


def on_disk(folder):
    """A source folder of Snakemake as a path; a folder at a Git address is copied, by commit, to .snakemake/mixloc/."""
    if isinstance(folder, LocalSourceFile):
        return Path(folder.path)
    if isinstance(folder, LocalGitFile):
        from git import Repo

        repository = Repo(folder.repo_path)
    elif isinstance(folder, HostingProviderFile):
        repository = folder.hosted_repo.repo
    else:
        raise WorkflowError(
            f"MixLoc needs more files than its Snakefile, and {folder} is no folder of a Git repository: give its path, "
            "or github(...), gitlab(...) or gitfile(...)"
        )
    commit = repository.git.rev_parse(f"{folder.ref}^{{commit}}")
    copy = Path(".snakemake", "mixloc", commit).absolute()
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as part, tempfile.TemporaryFile() as archive:
            repository.archive(archive, treeish=f"{commit}:{folder.path}")
            archive.seek(0)
            with tarfile.open(fileobj=archive) as tar:
                tar.extractall(Path(part, commit), filter="data")
            try:
                Path(part, commit).rename(copy)
            except OSError:  # another process was faster
                if not copy.exists():
                    raise
    return copy


ROOT = on_disk(workflow.current_basedir.get_basedir())
sys.path.insert(0, str(ROOT))

import workflow_scripts

if not os.path.samefile(Path(workflow_scripts.__file__).parents[1], ROOT):
    raise WorkflowError(
        f"MixLoc in {ROOT} cannot be used beside {Path(workflow_scripts.__file__).parent}: Python imports one package "
        "named workflow_scripts. Use one version of MixLoc in a workflow"
    )

IN_OWN_FOLDER = os.path.samefile(ROOT, os.curdir)
# Python call before -m in the commands of stages. In MixLoc's own folder Python finds the stages by itself. Elsewhere
# it must not search the working directory, which may contain another workflow_scripts. Snakemake lowers a job's threads
# to --cores; numpy's share of them would change the last digits of sums. torch is told its own number.
PYTHON = "OPENBLAS_NUM_THREADS=1 " + (
    "python"
    if IN_OWN_FOLDER
    else f"PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}} python"
)


def python(wildcards, input):
    """How the command of a stage calls Python.

    Snakemake does not compare params that depend on `input`, so a folder that was moved runs nothing again."""
    return PYTHON


def own_path(name):
    """The path of a file of MixLoc itself, as commands get it."""
    return name if IN_OWN_FOLDER else str(ROOT / name)
