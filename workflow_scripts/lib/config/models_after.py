"""The config's sections about what is done with a finished run: each belongs to a target that is asked for by name."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from workflow_scripts.lib.config.fields import Maybe, Name, Section, Some, Text, key, number, whole


def _word(value: Any) -> Any:
    """YAML reads yes and no as true and false."""
    return {True: "yes", False: "show", "no": "show"}.get(value, value) if isinstance(value, bool | str) else value


Clean = Annotated[Literal["show", "yes", "all"], BeforeValidator(_word)]


class Predict(Section):
    """Predictions of an arm for new images (target predict)."""

    name: Name = key("Name of the predictions, which go to results/{run}/predicted/{name}/.")
    images: Maybe[Text] = key(
        "Folder of the new images (with data.cells: whole fields), or a CSV table of their Ids in that folder."
    )
    table: Maybe[Text] = key("CSV table with their Ids, and columns to group by. null: all images in the folder.")
    arm: Maybe[Text] = key("Arm that predicts. null: analysis.primary_arm.")
    batch: whole(1, 100_000) = key("Images in memory at a time.", "images")
    unlike: number(ge=0.5, lt=1) = key(
        "An image is unlike the training images if it is farther from them than this fraction of calibration images."
    )


class ModelPackage(Section):
    """Weights and model card of an arm, to be used without MixLoc (target model_package)."""

    arm: Maybe[Name] = key("Arm that is packed, into results/{run}/models/{arm}/. null: analysis.primary_arm.")


class Gallery(Section):
    """Page for browsing generated images beside real ones of train parts (target gallery)."""

    images: whole(10, 20_000) = key("Images on the page, generated and real; of more, a sample is drawn.", "images")
    size: whole(8, 256) = key("Side at which images are shown, at most; larger ones are averaged down.", "px")
    megabytes: number(ge=1, le=500) = key("Size of the page, at most; the quality of its pictures follows.", "MB")


class Export(Section):
    """Generated images as files with a table (target export)."""

    sets: Maybe[Some[Name]] = key("Synthetic sets that are exported. null: all that arms use.")
    format: Literal["png", "ome_tiff"] = key("A PNG file for each channel, or an OME-TIFF file for each image.")
