"""Layout of an image set's HDF5 file, as `image_set` reads and `image_set_writer` writes it.

    images  uint8 (N, C, H, W), in chunks of about 1 MB     labels  uint8 (N, K), 0 or 1
    ids, groups and further text columns (gene, antibody, cell_line, reliability, ...)  (N,)
    attributes: channels, classes, source, licence, credit, format_version, digest, access_record, ...

A set in which images lack channels (data.missing_channel: zero) has two things more: `present`, uint8 (N, C), 0 where a
channel is missing and its pixels are zeros, and the column `missing_channels`, which names these channels.

With preprocess_images.intensity: train_part it has `raw`, uint16 (N, C, H, W), too: intensities as in the files.

Further images that came without labels are the last of a set. The attribute `further` counts them, and the column
`labelled`, which only such a set has, is 0 for them and 1 for the others.

Text is UTF-8. A file of another layout is refused."""

from __future__ import annotations

import h5py

FORMAT_VERSION = 1
FURTHER, LABELLED = "further", "labelled"  # attribute and column
PRESENT, MISSING, COMPLETE = "present", "missing_channels", "none"  # dataset, column, its value for whole images
TEXT = h5py.string_dtype("utf-8")


def array(file: h5py.File, name: str, axes: int, dtype: type | None = None) -> h5py.Dataset:
    """A dataset of a file, with so many axes and of this type (None: of text); ValueError where it is anything else."""
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != axes:
        raise ValueError(f"{name} is no array of {axes} axes")
    if h5py.check_string_dtype(dataset.dtype) is None if dtype is None else dataset.dtype != dtype:
        raise ValueError(f"{name} holds values of another type")
    # Data stored in another file is refused: it could be anything on this machine.
    if dataset.external or dataset.is_virtual or dataset.file.filename != file.filename:
        raise ValueError(f"{name} lies in another file")
    return dataset
