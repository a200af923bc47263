"""The config's section about the simulator: the embedded default data, of known truth."""

from typing import Literal

from workflow_scripts.lib.config.fields import Flag, Fraction, Section, key, number, whole

Compartment = Literal[
    "", "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nuclear bodies", "Golgi apparatus", "Microtubules",
    "Plasma membrane", "Mitochondria", "Cytosol", "Vesicles",
]  # fmt: skip
Factor = number(ge=0, le=5)


class SimulatedLabels(Section):
    """Which labels simulated proteins have."""

    genes_per_class: whole(1, 100_000) = key("Fewest proteins of a class, as far as there are enough genes.")
    co_occurrence: number(ge=0, le=2) = key("Co-occurrence of classes. 1: as in the Kaggle 2018 table; 0: independent.")


class Variance(Section):
    """Factors on the standard deviation that each level adds to a cell's appearance."""

    gene: Factor = key("Differences between proteins.")
    antibody: Factor = key("Differences between the antibodies of a protein.")
    plate: Factor = key("Differences between plates (staining batches).")
    cell_line: Factor = key("Differences between cell lines.")
    field: Factor = key("Differences between fields of view.")
    cell: Factor = key("Differences between the cells of a field.")


class LabelNoise(Section):
    """Errors of the label table: mean rates over the reliability tiers."""

    omission: Fraction = key("Probability that a true label is missing, though never the only one.")
    confusion: Fraction = key("Probability that a label is exchanged for a look-alike.")
    level: Literal["gene", "image"] = key("gene: all images of a protein share their errors; image: each has its own.")


class Tier(Section):
    """A reliability tier of proteins."""

    fraction: Fraction = key("Fraction of the genes, relative to the other tiers.")
    noise: number(ge=0, le=100) = key("Rate of label errors, relative to the other tiers.")


class Reliability(Section):
    """Reliability tiers of proteins, as the Atlas names them."""

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
    off_target_strength: number(ge=0, le=2) = key("Brightness of that, relative to the brightest true compartment.")
    faint: number(ge=0, le=0.2) = key("Typical brightness of a protein where it is not annotated, full scale 1.")
    bleed_through: number(ge=0, le=0.5) = key("Mean fraction of one channel's light that shows in another.")


class Optics(Section):
    """Faults of the microscope, and clutter."""

    defocus: Fraction = key("Fraction of fields that are out of focus.")
    photons: number(ge=1, le=10**6) = key("Photons per pixel at full scale; fewer are noisier.", "photons")
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

    duplicates: number(ge=0, le=0.5) = key(
        "Fraction of images that are copies of another protein's image, labels included; at most half."
    )
    duplicates_turned: Flag = key("Whether copies may be rotated and mirrored.")
    reference_class: Compartment = key("Class that can be read from the ER stain, or empty.")
    reference_strength: number(ge=0, le=10) = key(
        "The ER stain is 1 + this times brighter with it, as much dimmer without."
    )
    effect_class: Compartment = key("Class whose images differ from the others, or empty.")
    effect_diversity: Factor = key("Factor on the standard deviation of that class's appearance.")
    effect_noise: number(ge=0, le=20) = key("Factor on the pixel noise of that class.")


class SimulateCells(Section):
    """The embedded default data: procedural fluorescence cells of known truth."""

    images: whole(1, 10**7) = key("Number of images. The first ones do not depend on how many follow.", "images")
    genes: whole(2, 10**6) = key("Number of proteins, each with about images / genes images.")
    size: whole(32, 1024) = key("Side of an image.", "px")
    processes: whole(1, 256) = key("Worker processes; the images are the same for any number.")
    labels: SimulatedLabels = key("Which labels proteins have.")
    two_antibodies: Fraction = key("Fraction of genes with two antibodies.")
    shared_antibodies: Fraction = key("Fraction of genes that share an antibody, and so labels, with another gene.")
    plates: whole(1, 100_000) = key("Number of plates (staining batches).")
    cell_lines: whole(1, 1000) = key("Number of cell lines of the laboratory.")
    cell_lines_per_gene: whole(1, 1000) = key("Number of cell lines in which a protein is imaged.")
    fields: whole(1, 1000) = key("Number of fields of view per antibody and cell line.")
    variance: Variance = key("How much each level adds to the appearance.")
    noise: LabelNoise = key("Errors of the label table.")
    reliability: Reliability = key("Reliability tiers of the proteins.")
    staining: Staining = key("Faults of antibodies.")
    optics: Optics = key("Faults of the microscope, and clutter.")
    shift: Shift = key("Images as from a new laboratory.")
    plants: Plants = key("Planted artefacts of known truth.")
