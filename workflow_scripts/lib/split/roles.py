"""Names of the roles: the use of a group of images in a fold."""

from __future__ import annotations


class Role:
    """The role of a group in a fold, as the table of folds names it."""

    TRAIN = "train"
    # Images of train groups that are kept aside: like reserve, but of proteins in the train part of all arms.
    RESERVE_SAME = "reserve_same"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    TEST = "test"
    RESERVE = "reserve"
    LOCKBOX = "lockbox"
    # Train groups that a label regime leaves without labels: their images may be read, their labels never.
    UNLABELLED = "unlabelled"
    # Nobody may read these images in this fold: relatives of test images where a value of a column is left out.
    UNUSED = "unused"


ROLES = (
    Role.TRAIN, Role.RESERVE_SAME, Role.VALIDATION, Role.CALIBRATION,
    Role.TEST, Role.RESERVE, Role.LOCKBOX, Role.UNUSED,
)  # fmt: skip
# Marks that a user may give an image; no mark counts as train.
MARKS = (Role.TEST, Role.VALIDATION, Role.CALIBRATION, Role.TRAIN, Role.UNUSED)
