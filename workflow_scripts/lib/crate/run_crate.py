"""RO-Crate of a run: its files with checksums, settings, software, and how one was made from the other.

Follows RO-Crate 1.1 and the profile Workflow Run Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5). Single jobs are no
part of the description: their logs are in the crate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.crate import parameters, run_record
from workflow_scripts.lib.crate.entities import Entity, Graph, content, ref, refs
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list

METADATA = "ro-crate-metadata.json"
CRATE = "https://w3id.org/ro/crate/1.1"
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
# RO-Crate 1.1 knows no checksums; this is the term of the Workflow Run profiles.
CONTEXT = [f"{CRATE}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
WORKFLOW_PROFILE = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
MACHINE = ("operating system", "processor", "GPU")  # rows of the table of versions that are no software
STUDY = "https://arxiv.org/abs/2505.22926"
STUDY_TITLE = (
    "Leveraging Diffusion Models for Synthetic Data Augmentation in Protein Subcellular Localization Classification"
)
MIT = "https://spdx.org/licenses/MIT"
ABOUT = (
    "Run of MixLoc, which asks whether generated training images make a protein-localization classifier better on "
    "proteins that it has never seen."
)

# Home pages of the software that the report lists.
HOMES = {
    "Python": "https://www.python.org",
    "torch": "https://pytorch.org",
    "torchvision": "https://pytorch.org/vision",
    "numpy": "https://numpy.org",
    "pandas": "https://pandas.pydata.org",
    "scipy": "https://scipy.org",
    "h5py": "https://www.h5py.org",
    "pillow": "https://python-pillow.github.io",
    "tifffile": "https://www.cgohlke.com",
    "safetensors": "https://huggingface.co/docs/safetensors",
    "matplotlib": "https://matplotlib.org",
    "snakemake": "https://snakemake.github.io",
}

# Files of a run that are made in one place, and the parameter of the workflow that each is a value of.
RESULTS = {
    "report": ("report.html", "Report: the answer, its evidence, settings and versions on one page"),
    "metrics": ("metrics.csv", "Scores of every arm, by fold and pooled, with intervals"),
    "comparisons": ("comparisons.csv", "Differences of each arm from its baseline and its control, with intervals"),
    "analysis": ("analysis.json", "Verdicts, judged classes, and what thresholds were fitted on"),
    "thresholds": ("thresholds.csv", "Decision thresholds, fitted on the calibration part of each fold"),
    "declaration": (
        "declaration.json",
        "Declaration of the analysis, and how many test predictions there were then",
    ),
    "leaks": ("leaks.csv", "Leak certificate: what each artefact has read, compared with the roles of the images"),
}
# Those of which there may be several.
OF_FOLDS = {
    "folds": "Roles of the images in each fold of a repeat",
    "generators": "Weights of a generator, fitted on the train part of a fold",
    "synthetic_sets": "Synthetic set: images that a generator of the fold made",
    "classifiers": "Weights of a classifier, fitted in a fold",
    "predictions": "Predictions of a classifier for the images of its fold",
}
FOLDERS = {
    "tables": "Tables of the report, each as CSV",
    "figures": "Figures of the report",
    "logs": "Log of every job",
    "benchmarks": "Time and memory of every job",
}


@dataclass(frozen=True)
class CrateFiles:
    """Files that the crate lists one by one."""

    folder: Path  # of the run: the crate's root
    workflow: Path  # copy of the workflow in that folder
    arms: list[Path]  # lists of arms
    generators: list[Path] = field(default_factory=list)
    synthetic: list[Path] = field(default_factory=list)
    folds: list[Path] = field(default_factory=list)
    tables: list[tuple[str, Path]] = field(default_factory=list)  # inputs: what each is, and where it lies


def metadata(files: CrateFiles, settings: dict[str, Any], licence: str = "") -> Entity:
    """The crate's metadata, as JSON-LD; `licence`: that of the images, where the config says what the set does not."""
    graph, folder = Graph(), files.folder
    descriptor = graph.add(METADATA, "CreativeWork", about=ref("./"))
    descriptor["conformsTo"] = [ref(CRATE), ref(WORKFLOW_CRATE)]
    root = graph.add("./", "Dataset")
    with ImageSet(folder / "images.h5") as source:
        attrs, count = source.attrs, len(source)
    began, ended = run_record.period(folder / "logs")
    formal, given = parameters.add(graph, settings)
    inputs = _add_inputs(graph, files, attrs, count)
    results = [*_add_results(graph, folder), *_add_fitted(graph, files)]
    main = _add_workflow(graph, files)
    main["input"] = [*_parameters_of(inputs), *refs(formal)]
    main["output"] = _parameters_of(results)
    action = graph.add(
        "#run",
        "CreateAction",
        name=f"MixLoc run {settings['run']}",
        description="All jobs of the run, from its images to its report",
        instrument=ref(main),
        startTime=began,
        endTime=ended,
        actionStatus="http://schema.org/CompletedActionStatus",
        object=refs([*inputs, *given]),
        result=refs(results),
    )
    listed = [entity for entity in (*inputs, *results) if not entity["@id"].startswith("#")]
    root |= {
        "name": f"MixLoc run {settings['run']}",
        "description": f"{ABOUT} {run_record.answer(folder / 'analysis.json')}".strip(),
        "datePublished": ended,
        "conformsTo": refs(
            graph.add(name, "CreativeWork", name=title, version=version) for name, (title, version) in PROFILES.items()
        ),
        "license": ref(_add_licence(graph, licence or attrs.get("licence", ""))),
        "citation": ref(graph.add(STUDY, "ScholarlyArticle", name=STUDY_TITLE, description="The study it starts from")),
        "hasPart": refs([main, *_add_folders(graph, files), *listed]),
        "mainEntity": ref(main),
        "mentions": ref(action),
    }
    return graph.document(CONTEXT)


def _add_inputs(graph: Graph, files: CrateFiles, attrs: dict[str, Any], count: int) -> list[Entity]:
    """The image set that everything was made from, and the tables that came with the images."""
    about = parameters.add_formal(graph, "images", "Image set: images, labels and groups", "File")
    origin = graph.add(
        "#source-of-the-images",
        "CreativeWork",
        name=attrs.get("source") or "images",
        description="Where the images come from",
        creditText=attrs.get("credit") or None,
        version=attrs.get("release") or None,
    )
    words = f"Image set of {count} images; digest of its content {attrs['digest']}"
    found = [_add_value(graph, files.folder, files.folder / "images.h5", about, words, isBasedOn=ref(origin))]
    for name, path in files.tables:
        words = f"Table that came with the images: {name}"
        about = parameters.add_formal(graph, f"table.{name}", words, "File")
        if path.resolve().is_relative_to(files.folder.resolve()):
            found.append(_add_value(graph, files.folder, path, about, words))
        else:  # the user's own file: its name and checksum, and not where it lies
            own = {"name": path.name, "description": words, "exampleOfWork": ref(about)}
            found.append(graph.add(f"#table/{name}", "CreativeWork", **own, **content(path)))
    return found


def _add_results(graph: Graph, folder: Path) -> list[Entity]:
    """Tables and page of the run, the declaration of its analysis, and its leak certificate."""
    declared = run_record.declaration(folder / "declaration.json")
    more = {
        "declaration": (f"; hash {declared['hash']}", {"dateCreated": declared["declared_at"]}),
        "leaks": (f": {run_record.certificate(folder / 'leaks.csv')}", {}),
    }
    found = []
    for name, (file, words) in RESULTS.items():
        about = parameters.add_formal(graph, name, words, "File")
        told, properties = more.get(name, ("", {}))
        found.append(_add_value(graph, folder, folder / file, about, f"{words}{told}", **properties))
    return found


def _add_fitted(graph: Graph, files: CrateFiles) -> list[Entity]:
    """What each fold has: roles, generators, synthetic sets, classifiers and predictions."""
    arms = [arm for path in files.arms for arm in arm_list.read(path)]
    paths = {
        "folds": files.folds,
        "generators": files.generators,
        "synthetic_sets": files.synthetic,
        "classifiers": [arm["classifier"] for arm in arms if "classifier" in arm],
        "predictions": [arm["predictions"] for arm in arms if "predictions" in arm],
    }
    found = []
    for name, words in OF_FOLDS.items():
        if paths[name]:
            about = parameters.add_formal(graph, name, words, "File")
            found += [_add_value(graph, files.folder, path, about, words) for path in paths[name]]
    return found


def _add_value(graph: Graph, folder: Path, path: Path, about: Entity, words: str, **more: Any) -> Entity:
    """A file of the crate that is the value of a parameter."""
    name = path.relative_to(folder).as_posix()
    return graph.add_file(folder, path, name=name, description=words, exampleOfWork=ref(about), **more)


def _parameters_of(values: list[Entity]) -> list[Entity]:
    """References to the parameters of these values, each once."""
    return refs(dict.fromkeys(value["exampleOfWork"]["@id"] for value in values))


def _add_workflow(graph: Graph, files: CrateFiles) -> Entity:
    """The workflow: its main file, language, authors, licence, and the software that it ran with."""
    versions = dict(run_record.versions(files.folder / "tables"))
    machine = ", ".join(versions.pop(name) for name in MACHINE if name in versions)
    software = [
        graph.add(f"#software/{name}", "SoftwareApplication", name=name, softwareVersion=version, url=HOMES.get(name))
        for name, version in versions.items()
    ]
    language = graph.add(
        SNAKEMAKE,
        "ComputerLanguage",
        name="Snakemake",
        version=versions.get("snakemake"),
        identifier=ref("https://doi.org/10.1093/bioinformatics/bts480"),
        url=ref("https://snakemake.readthedocs.io"),
    )
    authors = graph.add("#mixloc-authors", "Organization", name="The MixLoc authors")
    licence = graph.add(MIT, "CreativeWork", name="MIT licence", identifier="MIT", url=MIT)
    return graph.add_file(
        files.folder,
        files.workflow / "Snakefile",
        kind=["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        name="MixLoc",
        conformsTo=ref(WORKFLOW_PROFILE),
        description="Snakemake workflow: generators, synthetic sets, classifiers, comparisons, report",
        version=versions.get("MixLoc"),
        programmingLanguage=ref(language),
        creator=ref(authors),
        license=ref(licence),
        softwareRequirements=refs(software),
        runtimePlatform=machine or None,
    )


def _add_folders(graph: Graph, files: CrateFiles) -> list[Entity]:
    """Folders whose files are not listed one by one."""
    folders = {files.folder / name: words for name, words in FOLDERS.items()}
    folders[files.workflow] = "The workflow as it was run"
    return [
        graph.add_folder(files.folder, path, name=path.name, description=words)
        for path, words in folders.items()
        if path.is_dir()
    ]


def _add_licence(graph: Graph, licence: str) -> Entity:
    """Licence of the images, which what was fitted to them goes with; a person must say what the rest is under."""
    return graph.add(
        "#licence-of-the-images",
        "CreativeWork",
        name=licence or "not stated",
        description="Licence of the images. Weights and generated images were fitted to them. The code is under MIT.",
    )
