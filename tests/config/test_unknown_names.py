"""Whatever the config names and does not have, the line asks what was meant."""

from __future__ import annotations

import pytest

from tests.helpers.configs import arm, checked, generator, synthetic_set
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config import check
from workflow_scripts.lib.images import label_maps


@pytest.mark.parametrize(
    ("overlay", "asked"),
    [
        (arm("pool", synthetic_set="Balancd"), "balanced"),
        (synthetic_set(generator="Unet"), "unet"),
        (arm("pool", control="resample"), "resample_real"),
        (arm("pool", baseline="realonly"), "real_only"),
        (arm("pool", regime="fewe"), "few"),
        (arm("pool", method="pol"), "pool"),
        (arm("pool", channels=["Green"]), "green"),
        (generator(reference_fraction=1, reference_channels=["Green"]), "green"),
        (synthetic_set(reference_channels=["gren"]), "green"),
        ({"analysis": {"baseline": "real-only"}}, "real_only"),
        ({"analysis": {"primary_arm": "Pool"}}, "pool"),
        ({"analysis": {"family": ["pool", "mixloss"]}}, "mix_loss"),
        ({"report": {"panels": {"protein_channel": "GREEN"}}}, "green"),
        ({"report": {"panels": {"colours": {"gren": "blue"}}}}, "green"),
        ({"preprocess_images": {"channels": ["red", "Green"]}}, "green"),
        ({"train_classifier": {"loss": "focall"}}, "focal"),
        ({"train_classifer": {}}, "train_classifier"),
    ],
)
def test_an_unknown_name_is_asked_after(overlay: dict, asked: str) -> None:
    with pytest.raises(check.ConfigError, match=rf"did you mean {asked}\?"):
        checked(overlay)


def test_a_colour_is_a_name_or_a_number_in_quotes() -> None:
    assert checked({"report": {"panels": {"colours": {"green": "#3060ff", "red": "cyan"}}}})
    for wrong in ("purple-ish", "#3060f", None):
        with pytest.raises(check.ConfigError, match=r"report\.panels\.colours\.green.* or #rrggbb in quotes"):
            checked({"report": {"panels": {"colours": {"green": wrong}}}})


def test_a_class_that_the_images_do_not_have_is_asked_after() -> None:
    with pytest.raises(UserError, match=r"did you mean Nucleoli\?"):
        label_maps._resolved([("inside", ["Nucleolii"])], ["Nucleus", "Nucleoli"])


def test_nothing_is_asked_where_nothing_resembles_it() -> None:
    assert meant("zzz", ["unet"]) == meant(None, ["unet"]) == meant("u" * 99, ["u" * 99]) == ""
    assert meant("UNET", ["minimal", "unet"]) == " (did you mean unet?)"
