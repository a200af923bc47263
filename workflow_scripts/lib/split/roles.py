"""Names of the roles: what a group of images is for in a fold."""

from __future__ import annotations


class Role:
    """The role of a group in a fold, as the table of folds names it."""

    TRAIN = "train"
    # Images of train groups that are kept aside: as reserve is, but of proteins that all arms know.
    RESERVE_SAME = "reserve_same"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    TEST = "test"
    RESERVE = "reserve"
    LOCKBOX = "lockbox"
    # Nobody may read these images in this fold: relatives of test images where a value of a column is left out.
    UNUSED = "unused"


ROLES = (
    Role.TRAIN, Role.RESERVE_SAME, Role.VALIDATION, Role.CALIBRATION,
    Role.TEST, Role.RESERVE, Role.LOCKBOX, Role.UNUSED,
)  # fmt: skip
# What a user may have marked an image as; not at all is as good as train.
MARKS = (Role.TEST, Role.VALIDATION, Role.CALIBRATION, Role.TRAIN, Role.UNUSED)
