"""The model of the whole config: its sections, and those about judging, reporting, the study and computing.

The models say what each key means and what it may be. Defaults stand in config.yaml alone; a key of a list's entry may
be left out where it is optional here. What only several sections together can tell is checked in check.py."""

from typing import Annotated, Literal

from pydantic import Field, create_model

from workflow_scripts.lib.config.fields import (
    Channel,
    Colour,
    Distinct,
    Flag,
    Maybe,
    Name,
    Section,
    Some,
    Text,
    key,
    matching,
    number,
    one_of,
    optional,
    text,
    whole,
)  # fmt: skip
from workflow_scripts.lib.config.models_after import Clean, Export, Gallery, ModelPackage, Predict
from workflow_scripts.lib.config.models_classify import Arm, Embeddings, TrainClassifier
from workflow_scripts.lib.config.models_data import Data, FetchImages, FetchWeights, MakeFolds, PreprocessImages, Regime
from workflow_scripts.lib.config.models_generate import AssessSynthetic, Generator, SyntheticSet
from workflow_scripts.lib.config.models_simulate import SimulateCells
from workflow_scripts.lib.images.corruption_choices import CORRUPTIONS
from workflow_scripts.lib.judge.analysis_choices import CLAIMS, LEVELS, METRICS, RULES
from workflow_scripts.lib.study.switches import SWITCHES

Fewest = whole(1, 1000)
Switches = Some[Literal[tuple(SWITCHES)]]
ReplayMetric = Literal["macro_f1", "macro_f1_half", "map"]
BREACH = r"^[A-Za-z0-9_ -]+:(fit|select|threshold)$"
Breach = Annotated[str, matching(BREACH, 'text of the form artefact:purpose, such as "arm leaky:fit"')]


class Analysis(Section):
    """How arms are judged; declared, and hashed, before the first test prediction."""

    primary_arm: Text | list[Text] = key(
        "Arm that the report's first sentence is about; tested before all others. A list: the first that the run has."
    )
    baseline: Text = key("Arm that every other arm is compared with.")
    metric: Literal[METRICS] = key("Primary metric: macro-F1 or mean average precision. The other is secondary.")
    level: Literal[LEVELS] = key("Primary level; protein: the mean over a protein's images.")
    claim: Literal[CLAIMS] = key(
        "What the verdict holds for: trainings on these proteins, or on other proteins too. The other stands beside it."
    )
    threshold_rule: Literal[RULES] = key(
        "Decision thresholds: one per class, one for all, 0.5, or 0.5 and else the most probable class."
    )
    # One group alone tells nothing of how groups differ: its interval would have no width.
    minimum_positive_groups: whole(2, 1000) = key("Positive test groups from which on a class is judged.", "groups")
    minimum_calibration_groups: Fewest = key(
        "With fewer positive calibration groups a class uses the pooled threshold.", "groups"
    )
    refit_thresholds: Flag = key("Fit thresholds again in each draw, so that intervals cover their variance.")
    draws: whole(100, 100_000) = key("Draws of the Bayesian bootstrap over groups.", "draws")
    confidence: number(ge=0.5, le=0.999) = key(
        "Confidence level, simultaneous over the family except for the primary arm."
    )
    smallest_effect: number(gt=0, le=1) = key("Smallest difference of interest, in the primary metric.")
    family: Literal["all"] | Some[str] = key("Arms that share the error rate: all, or a list of names.")


class StressTest(Section):
    """Scores on test images that are corrupted on purpose, without any training."""

    corruptions: Literal["all"] | Distinct[one_of(CORRUPTIONS)] = key(
        "What is done to test images, at five strengths each: all, or a list. Empty: no stress test."
    )
    declared: Flag = key("Declare the area under the curves as a secondary metric, with the analysis.")
    draws: whole(100, 100_000) = key("Draws of the bootstrap over groups.", "draws")


class WriteSubmission(Section):
    """Predictions for the unlabelled test images of the Kaggle 2018 competition (target submission)."""

    arm: Maybe[Text] = key("Arm whose predictions are handed in. null: analysis.primary_arm.")
    images: Maybe[Text] = key("Folder of the test images. null: where fetch_images puts them.")
    sample: Maybe[Text] = key("The competition's sample_submission.csv. null: the one beside the images.")
    batch: whole(1, 100_000) = key("Images in memory at a time.", "images")


class Panels(Section):
    """Panels of real beside generated images (plot_images)."""

    per_class: whole(1, 12) = key("Images of each kind in a row.", "images")
    combinations: whole(0, 50) = key(
        "Rows for the commonest class combinations, after those of single classes.", "rows"
    )
    protein_channel: text(40) = key(
        "Channel that is also shown alone. Generators with reference_channels: others make it, and are trained again "
        "when it changes."
    )
    colours: dict[Channel, Colour] = key(
        "Colours of channels in all pictures. Other channels have the colour of their name or dye."
    )


class Report(Section):
    """The report page."""

    title: text(200) = key(
        "Title of the page; {groups} in it stands for what the groups are, such as proteins or wells."
    )
    demonstration: Flag = key("Say at the top of the page that the run is a demonstration.")
    demonstration_text: text(2000, ge=0) = key("What the page says about the demonstration.")
    panels: Panels = key("Panels of real beside generated images.")


Replay = create_model(
    "Replay",
    __base__=Section,
    __doc__="The reference study's suspicious choices: true as the study did it, false as MixLoc does it.",
    **{name: (Flag, key(switch.about)) for name, switch in SWITCHES.items()},
)


class ReplayTraining(Section):
    """Keys in place of those of train_classifier."""

    steps: whole(1, 10**7) = optional("Optimiser steps.", "steps")
    batch: whole(2, 65_536) = optional("Images per step.", "images")
    checkpoints: whole(1, 10_000) = optional("Times a model is scored on the validation part.")
    learning_rate: number(gt=0, le=10) = optional("Highest learning rate.")


class ReplaySets(Section):
    """Synthetic sets whose generator and sampler the replay uses; labels follow from the switches."""

    study: Text = key("Synthetic set of the study's way (no_time: true).")
    mixloc: Text = key("Synthetic set of MixLoc's way (no_time: false).")


class Plateau(Section):
    """The schedule of the switch scheduler_minimises."""

    factor: number(gt=0, lt=1) = key("Factor on the learning rate.")
    patience: whole(0, 10_000) = key("Checks without a fall of the score before the rate is cut.", "checks")


class Forensics(Section):
    """Which of the study's choices move validation, test, and the gap between them (target forensics)."""

    models: list[Arm] = key("What is trained: entries as in arms, without synthetic_set. Empty: no forensics.")
    switches: Literal["all"] | Switches = key("Choices that are varied: all, or a list of keys of replay.")
    runs: whole(1, 256) = key("Rows of the two-level design; a power of two.", "runs")
    repeats: whole(1, 100) = key("Repetitions, each with its own folds, as many as in make_folds.")
    shards: whole(1, 1000) = key("Jobs into which the trainings of a fold are divided.", "jobs")
    training: ReplayTraining = key("Keys in place of those of train_classifier.")
    synthetic_sets: ReplaySets = key("How images are generated with no_time, and without it.")
    count: whole(1, 10**7) = key("Number of synthetic images, whatever the synthetic sets say.", "images")
    shown_from: whole(8, 4096) = key("Side at which images are made with shown_larger.", "px")
    plateau: Plateau = key("The schedule of the switch scheduler_minimises.")
    metric: ReplayMetric = key("Metric of the figure; macro_f1_half: at 0.5, else the most probable class.")
    confidence: number(gt=0, lt=1) = key("Confidence level of the intervals, which are single, not simultaneous.")


class Compute(Section):
    """How work is spread. Threads are a setting because another number changes the last bits of sums."""

    threads: whole(1, 256) = key("Threads of every training job. Another number trains everything again.", "threads")
    arms_per_job: whole(1, 1000) = key("Arms trained in one process.", "arms")
    processes: whole(1, 64) = key("GPUs, or without any processes on the CPU, that share one training.", "processes")
    arms_at_once: whole(1, 64) = key("Arms of a job that train side by side in one process.", "arms")
    strip_minutes: whole(0, 1440) = key(
        "Time between sample strips of a generator in training, on the progress page. 0: none.", "min"
    )
    sets_together: Flag = key("All synthetic sets of a fold that need no baseline are sampled in one process.")
    environment: Literal["mixloc", "mixloc-cuda", "mixloc-encoders", "mixloc-formats"] = key(
        "With --sdm conda, the environment of stages under envs/."
    )


class Config(Section):
    """The settings of a MixLoc run."""

    run: Name = key("Name of the run; results go to results/{run}/.")
    seed: whole(0, 2**53) = key("Every random number of the run derives from it.")
    runs: Distinct[Name] = key("Two finished runs that the target compare puts on one page.")
    data: Data = key("Where images come from, and how their files and tables are to be read.")
    fetch_images: FetchImages = key("Downloads of images.")
    fetch_weights: FetchWeights = key("Downloads of ImageNet weights.")
    simulate_cells: SimulateCells = key("The default data: procedural fluorescence cells.")
    preprocess_images: PreprocessImages = key("From image files to one image set.")
    make_folds: MakeFolds = key("Which proteins play which role.")
    regimes: Annotated[list[Regime], Field(min_length=1)] = key(
        "Label regimes. Arms, generators and synthetic sets may name one; the first is the default."
    )
    generators: list[Generator] = key("Generators, each trained once per repeat and fold if a synthetic set uses it.")
    synthetic_sets: list[SyntheticSet] = key("Synthetic sets: images drawn from one generator in one way.")
    assess_synthetic: AssessSynthetic = key("How synthetic sets are compared with real images.")
    embeddings: Embeddings = key("Features that arms may take in place of pixels.")
    train_classifier: TrainClassifier = key("How an arm is trained.")
    arms: Annotated[list[Arm], Field(min_length=1)] = key("Arms: ways of training a classifier that are compared.")
    analysis: Analysis = key("How arms are judged.")
    stress_test: StressTest = key("Scores on corrupted test images.")
    write_submission: WriteSubmission = key("Predictions for the Kaggle 2018 competition.")
    predict: Predict = key("Predictions of an arm for new images.")
    model_package: ModelPackage = key("Weights and model card of an arm.")
    gallery: Gallery = key("Page for browsing generated images beside real ones.")
    export: Export = key("Generated images as files with a table.")
    clean: Clean = key("What the target clean deletes of a finished run: nothing, what needs no training, or models.")
    report: Report = key("The report page.")
    violations: Distinct[Breach] = key("Leaks that are made on purpose; the run fails on any other.")
    replay: Replay = key("The reference study's choices, where forensics does not vary them.")
    forensics: Forensics = key("Which of the study's choices made its result.")
    compute: Compute = key("How work is spread over cores and GPUs.")
