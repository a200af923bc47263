"""The config's sections about data: where images come from, and how they are read and split."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, create_model

from workflow_scripts.lib.classify.network_choices import PUBLISHED
from workflow_scripts.lib.config.fields import (
    Channel,
    Distinct,
    Flag,
    Fraction,
    Maybe,
    Name,
    Section,
    Some,
    Text,
    as_whole,
    key,
    matching,
    number,
    optional,
    text,
    whole,
)  # fmt: skip
from workflow_scripts.lib.images.format_choices import STACKS
from workflow_scripts.lib.images.known_datasets import COLUMNS, MISSING_CHANNEL, SOURCES, TRAIN_PART
from workflow_scripts.lib.images.label_maps import BUILT_IN, NUMBERINGS

PixelSize = Maybe[number(gt=0, le=1000)]
Address = text(1000, ge=8)
Megabytes = number(gt=0, le=100_000)
Bits = Annotated[Literal[8, 16, 32], BeforeValidator(as_whole)]
Columns = create_model(
    "Columns",
    __base__=Section,
    __doc__="What the table calls these columns.",
    **{name: (Maybe[Text], key(f"Column that holds what MixLoc calls {name}.", default=None)) for name in COLUMNS},
)
# Below the folder of images: no leading slash, no backslash, no two dots in a row; {id} somewhere.
FILE = r"^(([^./\\]|\.[^.\\])(\.?[^.\\])*)?\.?\{id\}(\.?[^.\\])*\.?$"
FilePattern = Annotated[str, matching(FILE, "a pattern with {id} in it, below the folder of images")]
PARTS = r"^[^{}]*(\{[a-z_]+\}[^{}]*)+$"
IdParts = Annotated[str, matching(PARTS, "text that names columns in braces, such as {gene}_{antibody}")]
Colour = Annotated[str, matching("^[A-Za-z0-9_.-]{1,40}$", "a name of letters, digits, _, . and - (at most 40)")]
Sha256 = Annotated[str, matching("^[0-9a-f]{64}$", "a SHA-256: 64 hexadecimal digits, in small letters")]
OwnMap = Annotated[dict[text(80), Some[text(80)]], Field(min_length=1)]


class FurtherImages(Section):
    """Further images without labels, which a label regime may show (regimes[].unlabelled: seen)."""

    images: Maybe[Text] = optional("Folder with the image files. null: data.images.")
    table: Maybe[Text] = optional("Table of the images, without labels. null: all files beyond data.table.")


class Cells(Section):
    """Single cells, which are cut out of whole fields of view before preprocessing."""

    nucleus_channel: Maybe[Channel] = optional("Channel in which nuclei are found; not needed with masks.")
    masks: Maybe[FilePattern] = optional(
        'Label images of the nuclei, such as "{id}_mask.png", below data.images. null: nuclei are found.'
    )
    unit: Maybe[Literal["px", "um"]] = optional(
        "Unit of the lengths below: pixels of the field, or µm (squared for areas). null: px."
    )
    size: Maybe[number(gt=0, le=100_000)] = optional(
        "Side of the square around a nucleus. null: as preprocess_images cuts out, or 2.5 diameters.", "px or µm"
    )
    diameter: Maybe[number(gt=0, le=100_000)] = optional(
        "Diameter of a typical nucleus. null: learned from eight fields.", "px or µm"
    )
    smallest: Maybe[number(ge=0)] = optional(
        "Smaller nuclei are left out. null: a quarter of the typical area; with masks none.", "px² or µm²"
    )
    largest: Maybe[number(gt=0)] = optional(
        "Larger nuclei are left out. null: four times the typical area; with masks none.", "px² or µm²"
    )


class Data(Section):
    """Where images come from, and how their files and tables are to be read."""

    source: Literal[tuple(SOURCES)] = key(
        "Made by simulate_cells, your own folder, or a set of the Human Protein Atlas."
    )
    images: Maybe[Text] = key("Folder with the image files.")
    table: Maybe[Text] = key("Table of the images: CSV with commas, semicolons or tabs, gzipped or not; or Parquet.")
    groups: Maybe[Text] = key("Table of further columns, joined by Id.")
    unlabelled: Maybe[FurtherImages] = key(
        "Further images without labels; files are named, and columns called, as for the labelled ones."
    )
    cells: Maybe[Cells] = key("The images are whole fields: single cells are cut out around their nuclei. null: no.")
    group_by: Maybe[Distinct[Text]] = key(
        "Images that share a value in one of these columns are one group, which is never split. null: group, gene and "
        "antibody, where known; []: each image is a group."
    )
    files: Maybe[FilePattern | Annotated[dict[Channel, FilePattern], Field(min_length=1)]] = key(
        'File names: "{id}_{channel}.png", or {channel: "{id}_ch0.tif", ...}. Without {channel} one file holds all.'
    )
    file_channels: Maybe[Annotated[Some[Channel], Field(max_length=64)]] = key(
        "Channels of a file that holds several, in their order. null: those of preprocess_images."
    )
    stack: Literal[tuple(STACKS)] = key(
        "Files with several focal planes or time points: refused, read as channels, the maximum over them, "
        "or the middle one."
    )
    planes: Maybe[dict[Channel, Literal["red", "green", "blue", "yellow"]]] = key(
        "For files in colour: which colour of its file a channel is."
    )
    bits: Maybe[Some[Bits]] = key(
        "Bits per pixel that files may have. null: as the source has, or most files do.", "bits"
    )
    columns: Maybe[Columns] = key("What the table calls its columns, where their names differ.")
    id_parts: Maybe[IdParts] = key(
        'Columns that the Id consists of, such as "{gene}_{antibody}_{plate}_{well}_{field}".'
    )
    labels: Maybe[Literal["numbers", "names"]] = key("Whether labels are class numbers or names. null: as most are.")
    label_separator: Maybe[text(8)] = key("Separates labels. null: | ; and, around numbers, blanks and commas.")
    pixel_size: PixelSize = key("Size of a pixel in all files, where no column says it.", "µm")
    no_label: Literal["invalid", "keep"] = key("Images without a label: invalid, or kept as images of no class.")
    on_invalid: Literal["fail", "skip"] = key("Invalid images: fail lists them and stops; skip leaves them out.")
    invalid_limit: Fraction = key("Largest fraction of the images that skip may leave out.")
    missing_channel: Literal[MISSING_CHANNEL] = key(
        "Images that lack the file of a channel: refuse, as any invalid image; zero fills it with zeros and tells the "
        "networks; drop_image leaves them out, and they do not count as invalid."
    )
    classes: Maybe[Text] = key("CSV table with the number and name of each class.")
    class_names: Maybe[Literal[tuple(NUMBERINGS)] | Distinct[text(80)]] = key(
        "Class names in the order of their numbers, or the name of a known numbering."
    )
    label_map: Maybe[Literal[tuple(BUILT_IN)] | OwnMap] = key(
        "How classes are merged, renamed or selected: a built-in map, or {new class: [old classes]}."
    )
    unmapped: Literal["refuse", "drop"] = key(
        "Classes that label_map leaves out: stop and list them, or drop their labels."
    )
    emptied: Literal["keep", "drop"] = key(
        "Images that lose all labels by label_map: kept as images of no class, or dropped."
    )
    origin: str = key("Where the data come from; shown in the report.")
    release: str = key("Release of the data; shown in the report.")
    licence: str = key("Licence of the data; shown in the report.")
    credit: str = key("Whom to thank for the data; shown in the report.")


class FetchLimit(Section):
    """A part of the images, to begin with."""

    images: whole(0, 10**9) = key("Number of images from the top of the table. 0: all.", "images")
    per_class: whole(0, 10**9) = key("Number of images of each class. 0: all.", "images")


class Kaggle(Section):
    """Downloads with your own credentials: KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json."""

    api: Address = key("Address of Kaggle's API.")
    test_images: Flag = key("Fetch the unlabelled test images of 2018 too; the target submission needs them.")
    archive_gb: number(gt=0, le=10_000) = key("Largest archive.", "GB")


class FetchImages(Section):
    """Downloads of images, where data.source is public, or kaggle2018 or kaggle2021 without data.images."""

    folder: Text = key("Downloads go to {folder}/{source}/. All runs share them: nothing is fetched twice.")
    url: Address = key(
        "Address of one channel of an image, from the parts of its Id: {gene}, {antibody}, {plate}, {well}, {field}, "
        "{more} (what follows the field) and {channel}."
    )
    colours: dict[Channel, Colour] = key("What the server calls a channel.")
    limit: FetchLimit = key("A part of the images, to begin with.")
    connections: whole(1, 32) = key("Files fetched at a time.")
    requests_per_second: number(gt=0, le=1000) = key("Requests per second of all connections together.", "1/s")
    timeout: number(gt=0, le=3600) = key("Longest wait without an answer.", "s")
    slowest: number(ge=0, le=10**9) = key("A slower download is broken off and tried again.", "bytes/s")
    retries: whole(0, 100) = key("Further tries of a file, where another try may help.")
    pause: number(ge=0, le=3600) = key("Wait before the first retry; it doubles before each further one.", "s")
    longest_pause: number(ge=0, le=86_400) = key("A server that asks for a longer pause than this is given up.", "s")
    redirects: whole(0, 20) = key("Redirects that are followed, one after the other.")
    file_mb: Megabytes = key("Largest file.", "MB")
    total_gb: number(gt=0, le=1_000_000) = key("Largest size of all files together.", "GB")
    verify: Flag = key("Compare files that are there with their checksums; false: with their sizes.")
    kaggle: Kaggle = key("Downloads from Kaggle.")


Checksums = create_model(
    "Checksums",
    __base__=Section,
    __doc__="Checksums of files of weights.",
    **{name: (Sha256, key(f"SHA-256 of the weights of {name}.", default=None)) for name in PUBLISHED},
)


class FetchWeights(Section):
    """Downloads of ImageNet weights, where an arm has weights: imagenet. Servers are treated as in fetch_images."""

    folder: Text = key("Folder of the weights. All runs share it: nothing is fetched twice.")
    url: Maybe[Address] = key("Folder of a mirror, https://... null: where torchvision has them.")
    sha256: Checksums = key("Whole checksums by backbone; otherwise the eight digits in a file's name decide.")
    file_mb: Megabytes = key("Largest file.", "MB")


class WhiteLevel(Section):
    """The pixel value that is white, where intensity is fixed; 255 in files of 8 bits."""

    uint16: number(ge=1, le=65_535) = key("White in files of 16 bits.")
    float: number(gt=0) = key("White in files of floating point.")


class PreprocessImages(Section):
    """From image files to one image set."""

    size: whole(16, 1024, multiple_of=8) = key("Side of the set's images; larger ones are averaged down by area.", "px")
    channels: Annotated[Some[Channel], Field(max_length=16)] = key("Channels of the set, in order.")
    pixel_size: PixelSize = key("Images are scaled to this and their centre is cut out. null: scaled whole.", "µm")
    intensity: Literal["fixed", "percentile", TRAIN_PART] = key(
        "Pixel values as in the files; each image stretched over its range; or all over the range of the fold's train "
        "part."
    )
    intensity_column: Maybe[text(80)] = key(
        "intensity train_part: column, such as the plate, each of whose values has a range of its own. null: none."
    )
    white_level: WhiteLevel = key("Pixel values that are white, where intensity is fixed.")
    shards: whole(1, 10_000) = key(
        "Jobs that read images side by side; the set is the same, but another number makes everything again.", "jobs"
    )
    duplicates: Fraction = key(
        "Images whose perceptual hashes correlate by this much are compared by their pixels; near-duplicates become "
        "one group. 0: off."
    )


PartOf = number(ge=0, lt=1)


class Fractions(Section):
    """Fractions of the images by role; the rest is the train part."""

    test: number(gt=0, lt=1) = key("Tested in each fold.")
    calibration: PartOf = key("For decision thresholds. 0: the validation part serves for both.")
    validation: number(gt=0, lt=1) = key("For choosing the best checkpoint.")
    reserve: PartOf = key("Images of further groups, kept aside: only arms more_real read them.")
    reserve_same: PartOf = key("Further images of train groups, kept aside: only arms more_real_same read them.")
    lockbox: PartOf = key("Kept aside in all folds and repeats; scored once, at the very end (target lockbox).")


class MakeFolds(Section):
    """Which proteins play which role. Groups are never split."""

    repeats: whole(1, 100) = key("Complete repetitions, each with its own folds, generators and classifiers.")
    folds: whole(1, 50) = key("Folds of a repeat; their test parts do not overlap.")
    fractions: Fractions = key("Fractions of the images by role.")
    stratify_by: Maybe[text(80)] = key("Column, such as cell_line, that is balanced over the parts as classes are.")
    leave_out: Maybe[text(80)] = key("Column, such as cell_line: each fold tests one of its values.")
    show_left_out: number(ge=0, le=0.9) = key(
        "leave_out: fraction of the groups with the tested value that is shown without labels instead of tested, to "
        "label regimes with unlabelled: seen."
    )
    roles_from: Maybe[text(80)] = key(
        "Column that says which images are test, and perhaps validation, calibration or unused. Needs folds: 1."
    )


class Regime(Section):
    """A label regime: which part of the train groups is labelled, and what may be read of the others."""

    name: Name = key("Name of the regime.")
    labelled: number(gt=0, le=1) = key("Fraction of the train groups; a smaller one lies within a larger one.")
    unlabelled: Literal["seen", "unused"] = key(
        "Whether images of the other train groups, and of data.unlabelled, may be seen without labels, or are not used."
    )
    selection: Literal["same", "full"] = key(
        "Whether validation and calibration have the same fraction of their groups, or all of them."
    )
