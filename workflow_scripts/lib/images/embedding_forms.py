"""Forms of a table of embeddings, by the end of its name; for checks of the config, without large libraries."""

ENDINGS = (".npy", ".h5", ".csv", ".parquet")
NEEDS_IDS = ".npy"  # holds numbers alone
