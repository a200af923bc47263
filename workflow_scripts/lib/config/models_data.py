"""The config's sections about data: where images come from, how they are simulated, read and split."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, create_model

from workflow_scripts.lib.classify.arm_choices import PUBLISHED
from workflow_scripts.lib.config.fields import (
    Channel,
    Distinct,
    Flag,
    Fraction,
    Maybe,
    Section,
    ShortText,
    Text,
    as_whole,
    key,
    matching,
    number,
    whole,
)
from workflow_scripts.lib.images.known_datasets import COLUMNS, SOURCES
from workflow_scripts.lib.images.label_maps import BUILT_IN, NUMBERINGS

PixelSize = Maybe[number(gt=0, le=1000)]
# Below the folder of images: no leading slash, no backslash, no two dots in a row; {id} somewhere.
FilePattern = Annotated[
    str,
    matching(
        r"^(([^./\\]|\.[^.\\])(\.?[^.\\])*)?\.?\{id\}(\.?[^.\\])*\.?$",
        "a pattern with {id} in it, below the folder of images",
    ),
]
# The compartments of simulated cells.
Compartment = Literal[
    "", "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nuclear bodies", "Golgi apparatus", "Microtubules",
    "Plasma membrane", "Mitochondria", "Cytosol", "Vesicles",
]  # fmt: skip

COLUMN_ABOUT = {
    "id": "Column with the Id of an image.",
    "labels": "Column with the labels of an image.",
    "group": "Column with a group that is never split.",
    "gene": "Column with the gene or protein.",
    "antibody": "Column with the antibody.",
    "cell_line": "Column with the cell line.",
    "reliability": "Column with the reliability of the labels.",
    "pixel_size": "Column with the micrometres per pixel of an image.",
}
Columns = create_model(
    "Columns",
    __base__=Section,
    __doc__="What the table calls these columns.",
    **{name: (Maybe[Text], key(COLUMN_ABOUT[name], default=None)) for name in COLUMNS},
)


class Data(Section):
    """Where images come from, and how their files and tables are to be read."""

    source: Literal[tuple(SOURCES)] = key(
        "simulated: made by simulate_cells; folder: your own images; the others: sets of the Human Protein Atlas."
    )
    images: Maybe[Text] = key("Folder with the image files.")
    table: Maybe[Text] = key("CSV table of the images, plain or gzipped, separated by commas, semicolons or tabs.")
    groups: Maybe[Text] = key("CSV table of further columns, joined by Id.")
    group_by: Maybe[Distinct[Text]] = key(
        "Images that share a value in any of these columns form one group, which is never split. "
        "null: group, gene and antibody, where known; []: each image is its own group."
    )
    files: Maybe[FilePattern | Annotated[dict[Channel, FilePattern], Field(min_length=1)]] = key(
        'File name pattern such as "{id}_{channel}.png", or one pattern per channel. '
        "Without {channel} one file holds all channels. null: as the source has it."
    )
    file_channels: Maybe[Annotated[Distinct[Channel], Field(min_length=1, max_length=64)]] = key(
        "Channels of a file that holds several, in their order. null: those of preprocess_images.channels."
    )
    planes: Maybe[dict[Channel, Literal["red", "green", "blue", "yellow"]]] = key(
        "Colour of the file that a channel is taken from, by channel."
    )
    bits: Maybe[Annotated[Distinct[Annotated[Literal[8, 16, 32], BeforeValidator(as_whole)]], Field(min_length=1)]] = (
        key(
            "Bits per pixel that files may have. null: those of the source; for a folder, what most files have.", "bits"
        )
    )
    columns: Maybe[Columns] = key("What the table calls its columns, where that is not the column's own name.")
    id_parts: Maybe[
        Annotated[
            str,
            matching(r"^[^{}]*(\{[a-z_]+\}[^{}]*)+$", "text that names columns in braces, such as {gene}_{antibody}"),
        ]
    ] = key('Columns that the Id consists of, such as "{gene}_{antibody}_{plate}_{well}_{field}".')
    labels: Maybe[Literal["numbers", "names"]] = key("Whether labels are class numbers or names. null: as most are.")
    label_separator: Maybe[Annotated[str, Field(min_length=1, max_length=8)]] = key(
        "What separates the labels of an image. null: | ; and, around numbers, blanks and commas."
    )
    pixel_size: PixelSize = key("Size of a pixel in all files, where no column says it.", "µm")
    unlabelled: Literal["invalid", "keep"] = key(
        "Images without a label: treated as invalid, or kept as images of no class."
    )
    on_invalid: Literal["fail", "skip"] = key(
        "What cannot be used: fail lists all of it and stops; skip leaves it out and says so."
    )
    invalid_limit: Fraction = key("Largest fraction of the images that skip may leave out.")
    classes: Maybe[Text] = key("CSV table with the number and name of each class.")
    class_names: Maybe[Literal[tuple(NUMBERINGS)] | Distinct[ShortText]] = key(
        "Class names in the order of their numbers, or the name of a known numbering."
    )
    label_map: Maybe[
        Literal[tuple(BUILT_IN)]
        | Annotated[dict[ShortText, Annotated[Distinct[ShortText], Field(min_length=1)]], Field(min_length=1)]
    ] = key("How classes are merged, renamed or selected: a built-in map, or {new class: [old classes]}.")
    unmapped: Literal["refuse", "drop"] = key(
        "Classes that the map does not name: refuse stops and lists them; drop forgets their labels."
    )
    emptied: Literal["keep", "drop"] = key(
        "Images that lose all labels by the map: keep them as images of no class, or drop them."
    )
    origin: str = key("Where the data come from; shown in the report.")
    release: str = key("Release of the data; shown in the report.")
    licence: str = key("Licence of the data; shown in the report.")
    credit: str = key("Whom to thank for the data; shown in the report.")


class FetchLimit(Section):
    """Part of the images to fetch."""

    images: whole(0, 10**9) = key("Number of images from the top of the table. 0: all.", "images")
    per_class: whole(0, 10**9) = key("Number of images of each class. 0: all.", "images")


class Kaggle(Section):
    """Downloads from Kaggle, with your own credentials (KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json)."""

    api: str = key("Address of Kaggle's API.", min_length=8, max_length=1000)
    test_images: Flag = key("Fetch the unlabelled test images of 2018 too; the target submission needs them.")
    archive_gb: number(gt=0, le=10_000) = key("Largest archive.", "GB")


class FetchImages(Section):
    """Downloads, where data.source is public, or kaggle2018 or kaggle2021 without data.images."""

    folder: Text = key("Downloads go to {folder}/{source}/. All runs share them, so nothing is fetched twice.")
    url: str = key(
        "Address of one channel of an Atlas image, from the parts of its Id: "
        "{gene}, {antibody}, {plate}, {well}, {field}, {more} and {channel}.",
        min_length=8,
        max_length=1000,
    )
    colours: dict[
        Channel,
        Annotated[str, matching(r"^[A-Za-z0-9_.-]{1,40}$", "a name of letters, digits, _, . and - (at most 40)")],
    ] = key("What the server calls a channel, by channel.")
    limit: FetchLimit = key("Fetch only a part of the images.")
    connections: whole(1, 32) = key("Files fetched at a time.")
    requests_per_second: number(gt=0, le=1000) = key("Requests per second of all connections together.", "1/s")
    timeout: number(gt=0, le=3600) = key("Longest wait without an answer.", "s")
    slowest: number(ge=0, le=10**9) = key("A slower download is broken off and tried again.", "bytes/s")
    retries: whole(0, 100) = key("Further tries of a file, where another try may help.")
    pause: number(ge=0, le=3600) = key("Wait before the first retry; it doubles before each further one.", "s")
    longest_pause: number(ge=0, le=86_400) = key("A server that asks for a longer pause than this is given up.", "s")
    redirects: whole(0, 20) = key("Redirects that are followed, one after the other.")
    file_mb: number(gt=0, le=100_000) = key("Largest file.", "MB")
    total_gb: number(gt=0, le=1_000_000) = key("Largest size of all files together.", "GB")
    verify: Flag = key("Compare files that are there with their checksums; false: with their sizes.")
    kaggle: Kaggle = key("Downloads from Kaggle.")


Sha256 = Annotated[str, matching("^[0-9a-f]{64}$", "a SHA-256: 64 hexadecimal digits, in small letters")]
Checksums = create_model(
    "Checksums",
    __base__=Section,
    __doc__="Checksums of weight files, by backbone.",
    **{name: (Sha256, key(f"SHA-256 of the weights of {name}.", default=None)) for name in PUBLISHED},
)


class FetchWeights(Section):
    """Weights of networks trained on ImageNet, where an arm's weights are imagenet; otherwise as in fetch_images."""

    folder: Text = key("Folder of the weights. All runs share it, so nothing is fetched twice.")
    url: Maybe[Annotated[str, Field(min_length=8, max_length=1000)]] = key(
        "Folder of a mirror, https://... null: where torchvision has them."
    )
    sha256: Checksums = key("Whole checksums by backbone. Without one, the eight digits in the file name are compared.")
    file_mb: number(gt=0, le=100_000) = key("Largest file.", "MB")


class SimulatedLabels(Section):
    """Which labels simulated proteins have."""

    genes_per_class: whole(1, 100_000) = key("Fewest proteins of a class, as far as there are enough genes.")
    co_occurrence: number(ge=0, le=2) = key(
        "Strength of class co-occurrence. 1: as in the Kaggle 2018 table; 0: classes are independent."
    )


class Variance(Section):
    """Factors on the standard deviation that each level of the hierarchy adds to a cell's appearance."""

    gene: number(ge=0, le=5) = key("Factor for differences between proteins.")
    antibody: number(ge=0, le=5) = key("Factor for differences between antibodies of a protein.")
    plate: number(ge=0, le=5) = key("Factor for differences between plates (staining batches).")
    cell_line: number(ge=0, le=5) = key("Factor for differences between cell lines.")
    field: number(ge=0, le=5) = key("Factor for differences between fields of view.")
    cell: number(ge=0, le=5) = key("Factor for differences between cells of a field.")


class LabelNoise(Section):
    """Errors of the label table: mean rates over the reliability tiers."""

    omission: Fraction = key("Probability that a true label is missing, but never the only one.")
    confusion: Fraction = key("Probability that a label is exchanged for a look-alike.")
    level: Literal["gene", "image"] = key("gene: all images of a protein share their errors; image: each has its own.")


class Tier(Section):
    """A reliability tier of proteins."""

    fraction: Fraction = key("Fraction of the genes, relative to the other tiers.")
    noise: number(ge=0, le=100) = key("Label error rate, relative to the other tiers.")


class Reliability(Section):
    """Reliability tiers, as the Atlas names them."""

    Enhanced: Tier = key("Tier Enhanced.")
    Supported: Tier = key("Tier Supported.")
    Approved: Tier = key("Tier Approved.")
    Uncertain: Tier = key("Tier Uncertain.")


class Staining(Section):
    """Faults of antibodies."""

    weak: Fraction = key("Fraction of antibodies that stain weakly.")
    weak_strength: Fraction = key("Brightness of weak antibodies, relative to the others.")
    saturation: Fraction = key("Fraction of antibodies exposed until they clip.")
    off_target: Fraction = key("Fraction of antibodies that also stain a wrong compartment.")
    off_target_strength: number(ge=0, le=2) = key(
        "Brightness of the wrong compartment, relative to the brightest true one."
    )
    faint: number(ge=0, le=0.2) = key("Typical brightness of a protein where it is not annotated, full scale 1.")
    bleed_through: number(ge=0, le=0.5) = key("Mean fraction of one channel's light that shows in another.")


class Optics(Section):
    """Faults of the microscope and clutter in the images."""

    defocus: Fraction = key("Fraction of fields that are out of focus.")
    photons: number(ge=1, le=10**6) = key("Photons per pixel at full scale; fewer give more shot noise.", "photons")
    read_noise: Fraction = key("Standard deviation of the sensor's noise, full scale 1.")
    vignetting: Fraction = key("Loss of light far from the bright spot of the field.")
    neighbours: Fraction = key("Fraction of images with a piece of another cell at the edge.")
    debris: Fraction = key("Fraction of images with bright debris.")


class Shift(Section):
    """Images that differ from the rest as a new laboratory would; column `shifted`."""

    fraction: Fraction = key("Fraction of images from a cell line seen nowhere else.")
    intensity: number(gt=0, le=10) = key("Their brightness, relative to the others.")


class Plants(Section):
    """Planted artefacts of known truth, to test whether an analysis finds them."""

    duplicates: Fraction = key("Fraction of images that are copies of another protein's image, labels included.")
    duplicates_turned: Flag = key("Whether copies may be rotated and mirrored.")
    reference_class: Compartment = key("Class that the ER stain gives away; empty: none.")
    reference_strength: number(ge=0, le=10) = key(
        "The ER stain is 1 + this times brighter with that class, and as much dimmer without."
    )
    effect_class: Compartment = key("Class whose images differ from the others; empty: none.")
    effect_diversity: number(ge=0, le=5) = key("Factor on the standard deviation of that class's appearance.")
    effect_noise: number(ge=0, le=20) = key("Factor on the pixel noise of that class.")


class SimulateCells(Section):
    """The embedded default data: procedural fluorescence cells of known truth."""

    images: whole(1, 10**7) = key("Number of images. The first ones do not depend on how many follow.", "images")
    genes: whole(2, 10**6) = key("Number of proteins; each has about images / genes images.")
    size: whole(32, 1024) = key("Side of an image.", "px")
    processes: whole(1, 256) = key("Worker processes; the images are the same for any number.")
    labels: SimulatedLabels = key("Which labels proteins have.")
    two_antibodies: Fraction = key("Fraction of genes with two antibodies.")
    shared_antibodies: Fraction = key("Fraction of genes that share an antibody, and so labels, with another gene.")
    plates: whole(1, 100_000) = key("Number of plates (staining batches).")
    cell_lines: whole(1, 1000) = key("Number of cell lines of the laboratory.")
    cell_lines_per_gene: whole(1, 1000) = key("Number of cell lines in which one protein is imaged.")
    fields: whole(1, 1000) = key("Number of fields of view per antibody and cell line.")
    variance: Variance = key("How much each level adds to the appearance.")
    noise: LabelNoise = key("Errors of the label table.")
    reliability: Reliability = key("Reliability tiers of the proteins.")
    staining: Staining = key("Faults of antibodies.")
    optics: Optics = key("Faults of the microscope and clutter.")
    shift: Shift = key("Images as from a new laboratory.")
    plants: Plants = key("Planted artefacts of known truth.")


class WhiteLevel(Section):
    """The pixel value that is white, by file type, where intensity is fixed. In 8 bits it is 255."""

    uint16: number(ge=1, le=65_535) = key("White in files of 16 bits.")
    float: number(gt=0) = key("White in files of floating point.")


class PreprocessImages(Section):
    """From image files to one image set."""

    size: whole(16, 1024, multiple_of=8) = key(
        "Side of the images of the set. Larger ones are scaled down by area averaging.",
        "px",
    )
    channels: Annotated[Distinct[Channel], Field(min_length=1, max_length=16)] = key("Channels of the set, in order.")
    pixel_size: PixelSize = key(
        "Pixel size of the set: images are scaled to it and their centre is cut out. null: images are scaled whole.",
        "µm",
    )
    intensity: Literal["fixed", "percentile"] = key(
        "fixed: pixel values as in the files; percentile: each channel of each image is stretched over its range."
    )
    white_level: WhiteLevel = key("Pixel values that are white, where intensity is fixed.")
    shards: whole(1, 10_000) = key("Jobs that read the images side by side; the set is the same for any number.")
    duplicates: Fraction = key(
        "Images whose perceptual hashes correlate by at least this are joined into a group. 0: off."
    )


PartOf = number(ge=0, lt=1)


class Fractions(Section):
    """Fractions of the images by role; the rest is the train part."""

    test: number(gt=0, lt=1) = key("Fraction tested in each fold.")
    calibration: PartOf = key("Fraction for decision thresholds. 0: the validation part serves for both.")
    validation: number(gt=0, lt=1) = key("Fraction for choosing the best checkpoint.")
    reserve: PartOf = key("Fraction kept aside, of further groups; only the arms more_real read it.")
    reserve_same: PartOf = key("Fraction kept aside, of train groups; only the arms more_real_same read it.")
    lockbox: PartOf = key("Fraction kept aside in all folds and repeats; scored once, at the very end.")


class MakeFolds(Section):
    """Which proteins play which role. Groups are never split."""

    repeats: whole(1, 100) = key("Complete repetitions, each with its own folds, generators and classifiers.")
    folds: whole(1, 50) = key("Folds of a repeat; their test parts do not overlap.")
    fractions: Fractions = key("Fractions of the images by role; the rest is the train part.")
    stratify_by: Maybe[ShortText] = key("Column, such as cell_line, that is balanced over the parts as classes are.")
    leave_out: Maybe[ShortText] = key("Column, such as cell_line: each fold tests one of its values.")
    roles_from: Maybe[ShortText] = key(
        "Column that says which images are test, validation, calibration or unused; the others share the other roles. "
        "Needs folds: 1."
    )
