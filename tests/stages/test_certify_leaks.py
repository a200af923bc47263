"""certify_leaks: whatever kind of artefact read a test image, or a relative of one, the certificate fails the run."""

import dataclasses
import json

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.helpers.arms_data import CHANNELS, CLASSES, ENTRIES, SECTION, SIZE, cells
from workflow_scripts import certify_leaks as stage_program
from workflow_scripts import train_classifier
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.judge.leak_checks import Rules, check_further
from workflow_scripts.lib.scores import prediction_file, stress_file
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.label_order import label_ranks
from workflow_scripts.lib.split.regimes import Regime

KINDS = ["generator", "synthetic", "arm"]
NAMES = {"generator": "generator unet", "synthetic": "synthetic as_train", "arm": "arm real_only"}


def run(
    world, violations: tuple[str, ...] = (), encoders=(), regimes: dict | None = None, **made
) -> tuple[int, pd.DataFrame | None]:
    """The exit status and the certificate for a world with all kinds of artefacts, some of them given."""
    artefacts = [made.get(kind) or getattr(world, kind)() for kind in KINDS]
    out = world.folder / "leaks.csv"
    out.unlink(missing_ok=True)
    status = stage_program.main(
        ["--images", str(world.images), "--folds", f"0={world.folds}", "--artefacts", *map(str, artefacts)]
        + ["--thresholds", str(made.get("thresholds") or world.thresholds()), "--out", str(out)]
        + ["--settings", json.dumps({"violations": violations, "encoders": encoders} | (regimes or {}))]
        + ["--log", str(world.folder / "log.txt")]
    )
    return status, pd.read_csv(out) if out.exists() else None


def leaks(table: pd.DataFrame) -> list[tuple]:
    return [
        (row.artefact, row.purpose, row.overlap_images, row.overlap_groups)
        for row in table[table["status"] == "LEAK"].itertuples()
    ]


def with_one_more(world, purpose: str, row: int) -> AccessRecord:
    record = world.record()
    record.record(purpose, [row])
    return record


def test_clean_artefacts_pass(world):
    status, table = run(world)
    assert status == 0
    assert set(table["status"]) == {"clean"}
    fitted = table[table["purpose"] == "fit"].set_index("artefact")
    assert dict(fitted["images"]) == {
        "generator unet": 12,
        "synthetic as_train": 12,
        "arm real_only": 12,
        "thresholds": 0,
    }
    assert (fitted["allowed_roles"] == "train").all()
    assert list(table.loc[table["purpose"] == "scored", "images"]) == [12]
    assert "one role a group" in set(table["purpose"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("purpose", "role"), [("fit", "test"), ("fit", "validation"), ("select", "test")])
def test_one_planted_row_fails_the_run(world, capsys, kind, purpose, role):
    record = with_one_more(world, purpose, world.rows(role)[0])
    status, table = run(world, **{kind: getattr(world, kind)(record)})
    assert status == 1
    assert leaks(table) == [(NAMES[kind], purpose, 1, 1)]
    shown = capsys.readouterr().err
    assert f"certify_leaks failed: LEAK: {NAMES[kind]} (repeat 0, fold 0), purpose {purpose!r}: 1 images" in shown


@pytest.mark.parametrize("role", ["test", "validation", "train"])
def test_thresholds_may_know_the_calibration_part_only(world, role):
    rows = np.append(world.rows("calibration"), world.rows(role)[0])
    status, table = run(world, thresholds=world.thresholds(rows))
    assert status == 1
    assert leaks(table) == [("thresholds", "threshold", 1, 1)]


def test_thresholds_come_from_validation_where_there_is_no_calibration_part(world):
    roles = np.where(world.roles == "calibration", "train", world.roles)
    role_table.write(world.folds, world.ids, world.groups, roles)
    assert run(world, thresholds=world.thresholds(world.rows("validation")))[0] == 0
    assert run(world, thresholds=world.thresholds(world.rows("calibration")))[0] == 1


def test_relatives_of_test_images_are_leaks_even_where_folds_tear_the_group(world):
    # Row 0 is a test image; its relative, row 24, is called a training image.
    roles = world.roles.copy()
    roles[24, 0] = "train"
    role_table.write(world.folds, world.ids, world.groups, roles)
    scored = np.flatnonzero(roles[:, 0] == "test")
    record = with_one_more(world, "fit", 24)
    status, table = run(world, generator=world.generator(record), arm=world.arm(scored=scored))
    assert status == 1
    assert leaks(table) == [("generator unet", "fit", 0, 1), ("folds.csv", "one role a group", 2, 1)]


def test_unused_images_may_be_relatives_but_must_not_be_read(world):
    # Row 24 is a relative of row 0, a test image; it stands aside in this fold, and so does a train image, row 1.
    roles = world.roles.copy()
    roles[[24, 1], 0] = "unused"
    role_table.write(world.folds, world.ids, world.groups, roles)
    train = np.flatnonzero(roles[:, 0] == "train")
    clean = {"arm": world.arm(world.record(fit=train), scored=np.flatnonzero(roles[:, 0] == "test"))}
    kept = world.record(fit=train)
    status, table = run(world, generator=world.generator(kept), synthetic=world.synthetic(kept), **clean)
    assert status == 0
    assert set(table["status"]) == {"clean"}
    for row, groups in ((24, 1), (1, 0)):
        record = world.record(fit=np.append(train, row))
        status, table = run(world, generator=world.generator(record), synthetic=world.synthetic(kept), **clean)
        assert status == 1
        assert leaks(table) == [("generator unet", "fit", 1, groups)]


def test_a_declared_violation_passes_and_a_declaration_without_one_does_not(world, capsys):
    record = with_one_more(world, "select", world.rows("test")[0])
    status, table = run(world, ("arm real_only:select",), arm=world.arm(record))
    assert status == 0
    assert (table["status"] == "declared").sum() == 1
    # The declaration covers this artefact and purpose alone.
    assert run(world, ("arm real_only:fit",), arm=world.arm(record))[0] == 1
    assert run(world, ("arm real_only:select",), generator=world.generator(record), arm=world.arm(record))[0] == 1
    capsys.readouterr()
    assert run(world, ("arm real_only:select",))[0] == 1
    assert "violations declares 'arm real_only:select', but no artefact shows it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_artefacts_of_another_image_set_are_refused(world, capsys, kind):
    for record in (AccessRecord("another", 48), AccessRecord(world.digest, 47)):
        record.record("fit", [1])
        assert run(world, **{kind: getattr(world, kind)(record)})[0] == 1
        assert f"{NAMES[kind]} was made from another image set" in capsys.readouterr().err


@pytest.mark.parametrize("scored", ["too few", "wrong", "twice"])
def test_an_arm_must_be_scored_on_exactly_the_test_part(world, scored):
    rows = world.rows("test")
    wrong = {"too few": rows[1:], "wrong": np.append(rows, world.rows("train")[0]), "twice": np.append(rows, rows[0])}
    status, table = run(world, arm=world.arm(scored=wrong[scored]))
    assert status == 1
    assert leaks(table) == [("arm real_only", "scored", 1, 0)]


def test_without_known_proteins_the_certificate_says_so(world, write_set, capsys):
    groups = list(world.ids)
    write_set(world.images, list(world.ids), groups, grouped_by="")
    role_table.write(world.folds, world.ids, world.ids, world.roles)
    with stage_program.ImageSet(world.images) as source:
        world.digest = source.digest
    status, table = run(world)
    assert status == 0
    read = table[(table["purpose"] == "fit") & (table["images"] > 0)]
    assert set(read["status"]) == {"not excluded"}
    assert "not excluded" in capsys.readouterr().err
    leaky = with_one_more(world, "fit", world.rows("test")[0])
    assert leaks(run(world, generator=world.generator(leaky))[1]) == [("generator unet", "fit", 1, 1)]


@pytest.mark.parametrize(
    "about",
    [{"access_record": ""}, {"access_record": '{"images": "x", "count": 48, "rows": {"fit": "AAAA"}}'}, {"fold": "x"}],
)
def test_artefacts_without_a_record_are_refused(world, capsys, about):
    assert run(world, generator=world.generator(**about))[0] == 1
    assert "unet.safetensors does not say what it was made from" in capsys.readouterr().err


def test_nothing_to_certify_and_bad_arguments(world, capsys):
    words = [
        "--images",
        str(world.images),
        "--out",
        str(world.folder / "leaks.csv"),
        "--settings",
        '{"violations": []}',
    ]
    assert stage_program.main([*words, "--folds", f"0={world.folds}"]) == 1
    assert "nothing to certify" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stage_program.main([*words, "--folds", str(world.folds)])
    assert "must be a repeat and its table" in capsys.readouterr().err
    generator = str(world.generator(repeat="3"))
    assert stage_program.main([*words, "--folds", f"0={world.folds}", "--artefacts", generator]) == 1
    assert "no table of roles is given for repeat 3" in capsys.readouterr().err


def test_thresholds_of_another_image_set_are_refused(world, capsys):
    assert run(world, thresholds=world.thresholds(digest="another"))[0] == 1
    assert "thresholds was made from another image set" in capsys.readouterr().err
    path = world.thresholds()
    path.write_text(path.read_text().replace("cell-02", "cell-99"))
    assert run(world, thresholds=path)[0] == 1
    assert "speaks of image 'cell-99'" in capsys.readouterr().err


def test_an_encoder_of_the_users_own_is_not_called_clean(world):
    status, table = run(world, encoders=[{"architecture": "resnet50", "weights": "/some/where/mine.safetensors"}])
    assert status == 0
    row = table[table["purpose"] == "pre-training"].iloc[0]
    assert (row["artefact"], row["status"]) == ("encoder resnet50 (mine.safetensors)", "pre-training overlap: unknown")


def test_an_arm_that_starts_from_weights_of_the_users_own_is_not_called_clean(world):
    status, table = run(world, regimes={"weights": {"real_only": "/some/where/mine.pth"}})
    row = table[table["status"] == "pre-training overlap: unknown"]
    assert status == 0 and len(row) == row["fold"].nunique()
    assert set(row["artefact"]) == {"arm real_only"}
    assert set(row["purpose"]) == {"pre-training of mine.pth"}


# --- reserves: who reads what ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A fold with both kinds of reserve, and arms trained on it; every third image of train groups is kept aside."""
    folder = tmp_path_factory.mktemp("trained")
    images, labels = cells(120, 1)
    groups = np.array([f"g{index // 6:02d}" for index in range(120)])
    cycle = ("train", "train", "reserve", "validation", "calibration", "test")
    roles = np.array([cycle[index // 6 % 6] for index in range(120)], dtype=object)
    roles[(roles == "train") & (np.arange(120) % 3 == 0)] = "reserve_same"
    with write_images(folder / "images.h5", CHANNELS, CLASSES, SIZE, {"grouped_by": "gene"}) as writer:
        writer.append(images, labels, [f"i{index:03d}" for index in range(120)], list(groups))
    with ImageSet(folder / "images.h5") as source:
        role_table.write(folder / "folds.csv", source.ids, source.groups, roles[:, None])
        record = AccessRecord(source.digest, 120)
    record.record("fit", np.flatnonzero(roles == "train"))
    made, wanted = cells(30, 2)
    about = {"access_record": record.to_json(), "repeat": 0, "fold": 0}
    with write_images(folder / "syn.h5", CHANNELS, CLASSES, SIZE, about) as writer:
        writer.append(made, wanted, [f"syn-{index}" for index in range(30)], ["synthetic"] * 30)
    entries = [
        ENTRIES["real_only"], ENTRIES["pool"], ENTRIES["more_real"], ENTRIES["more_real_same"],
        {"name": "half", "method": "real_only", "real_fraction": 0.5},
        {"name": "more_planned", "method": "more_real", "synthetic_set": "p"},
    ]  # fmt: skip
    given = {"arms": entries, "train_classifier": SECTION | {"steps": 3}, "threads": 1}
    line = ["--images", str(folder / "images.h5"), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"]
    line += ["--synthetic", f"p={folder / 'syn.h5'}", "--arms-dir", str(folder / "arms"), "--seed", "1"]
    line += ["--manifest", str(folder / "arms/job0.json"), "--settings", json.dumps(given)]
    assert train_classifier.main([*line, "--log", str(folder / "log")]) == 0
    return folder, roles, groups


def of(folder, name):
    return prediction_file.read_predictions(folder / "arms" / name / "predictions.h5")


def test_only_more_real_reads_reserve(trained) -> None:
    folder, roles, groups = trained
    rows = {name: set(np.flatnonzero(roles == name)) for name in np.unique(roles.astype(str))}
    fitted = {}
    for name in ("real_only", "half", "more_real", "more_real_same", "more_planned", "pool"):
        found = of(folder, name)
        fitted[name] = set(AccessRecord.from_json(found.access_record).of("fit"))
        assert found.numbers["synthetic_seen"] == (12 if name == "pool" else 0)
        assert found.numbers["steps"] == 3
    assert fitted["real_only"] == fitted["pool"] == rows["train"]
    assert fitted["more_real"] == fitted["more_planned"] == rows["train"] | rows["reserve"]
    assert fitted["more_real_same"] == rows["train"] | rows["reserve_same"]
    assert fitted["half"] < rows["train"]
    kept = groups[sorted(fitted["half"])]
    assert len(set(kept)) == 4 and set(np.flatnonzero(np.isin(groups, kept) & (roles == "train"))) == fitted["half"]
    for name, images in fitted.items():
        numbers = of(folder, name).numbers
        assert numbers["real_images"] == len(images)
        assert numbers["real_groups"] == len(set(groups[sorted(images)]))


def certify(folder, artefacts=()) -> tuple[int, str]:
    line = [
        "--images",
        str(folder / "images.h5"),
        "--folds",
        f"0={folder / 'folds.csv'}",
        "--out",
        str(folder / "leaks.csv"),
    ]
    line += ["--artefacts", *map(str, artefacts or [folder / "arms/job0.json", folder / "syn.h5"])]
    given = json.dumps({"violations": [], "encoders": []})
    return stage_program.main([*line, "--settings", given, "--log", str(folder / "log")])


def test_the_certificate_lets_more_real_have_its_reserve(trained) -> None:
    assert certify(trained[0]) == 0


@pytest.mark.parametrize(
    ("method", "role"),
    [
        ("real_only", "reserve"), ("real_only", "reserve_same"), ("more_real", "reserve_same"),
        ("more_real_same", "reserve"), ("more_real", "validation"), ("unheard_of", "reserve"),
    ],
)  # fmt: skip
def test_nobody_else_may_read_a_reserve(trained, tmp_path, capsys, method, role) -> None:
    folder, roles, _ = trained
    arm = of(folder, "real_only")
    record = AccessRecord.from_json(arm.access_record)
    record.record("fit", np.flatnonzero(roles == role)[:1])
    arm.access_record, arm.settings = record.to_json(), arm.settings | {"method": method}
    prediction_file.write_predictions(tmp_path / "sly.h5", arm)
    (tmp_path / "job.json").write_text(json.dumps({"arms": [{"arm": "real_only", "predictions": "sly.h5"}]}))
    assert certify(folder, [tmp_path / "job.json"]) == 1
    assert "LEAK: arm real_only (repeat 0, fold 0), purpose 'fit': 1 images" in capsys.readouterr().err


def test_a_generator_must_not_know_the_reserve(trained, tmp_path, capsys) -> None:
    folder, roles, _ = trained
    with ImageSet(folder / "syn.h5") as made:
        record = made.inherited()
    record.record("fit", np.flatnonzero(roles == "reserve_same")[:2])
    about = {"access_record": record.to_json(), "repeat": 0, "fold": 0}
    with write_images(tmp_path / "syn.h5", CHANNELS, CLASSES, SIZE, about) as writer:
        writer.append(cells(3, 2)[0], cells(3, 2)[1], ["a", "b", "c"], ["synthetic"] * 3)
    assert certify(folder, [tmp_path / "syn.h5"]) == 1
    # Their groups are those of train images: the images are the leak, the groups are not.
    assert "2 images of 0 groups that are not train" in capsys.readouterr().err


def stress(world, purpose: str | None = None, row: int = 0, leave_out: int = 0):
    """Answers under stress for the test images of fold 0, one of them read for another purpose where that is given."""
    rows = world.rows("test")[leave_out:]
    record = world.record(score=rows)
    if purpose:
        record.record(purpose, [row])
    path = world.folder / stress_file.NAME
    ids, groups = world.ids[rows], world.groups[rows]
    stress_file.write(path, stress_file.Stress(0, 0, world.digest, record.to_json(), [("defocus", 1)], ids, groups))
    return path


def certified(world, path) -> tuple[int, pd.DataFrame]:
    status = stage_program.main(
        ["--images", str(world.images), "--folds", f"0={world.folds}", "--artefacts", str(path)]
        + ["--out", str(world.folder / "leaks.csv"), "--log", str(world.folder / "log.txt")]
        + ["--settings", json.dumps({"violations": [], "encoders": []})]
    )
    return status, pd.read_csv(world.folder / "leaks.csv")


def test_a_stress_test_reads_the_test_part_for_scoring_and_all_of_it(world):
    status, table = certified(world, stress(world))
    assert status == 0 and set(table["status"]) == {"clean"}
    read = table[table["artefact"] == "stress test"].set_index("purpose")["images"]
    assert dict(read) == {"fit": 0, "select": 0, "threshold": 0, "scored": len(world.rows("test"))}


def test_a_stress_test_that_selects_on_test_images_is_a_leak(world):
    status, table = certified(world, stress(world, "select", world.rows("test")[0]))
    assert status == 1
    assert leaks(table) == [("stress test", "select", 1, 1)]


def test_a_stress_test_of_a_part_of_the_test_images_is_told(world):
    status, table = certified(world, stress(world, leave_out=2))
    assert status == 1
    assert leaks(table) == [("stress test", "scored", 2, 0)]


def test_a_synthetic_set_may_be_called_stress(world):
    made = world.synthetic()
    status, table = certified(world, made.rename(made.with_name(stress_file.NAME)))
    assert status == 0 and set(table["artefact"]) == {"synthetic stress", "folds.csv"}


# --- label regimes ---------------------------------------------------------------------------------------------------

FEW = {"name": "few", "labelled": 0.5, "unlabelled": "seen", "selection": "same"}


@pytest.fixture
def few(world):
    """The settings of a certificate in which the arm has half of the labels and the generator all, and the world."""
    member = np.unique(world.groups, return_inverse=True)[1]
    labels = np.ones((48, 1), dtype=np.uint8)
    ranks = np.stack([label_ranks(labels, member, world.roles[:, fold], 3) for fold in (0, 1)], axis=1)
    role_table.write(world.folds, world.ids, world.groups, world.roles, ranks)
    artefacts = {"arm real_only": {"regime": "few", "through": ["all"]}}
    roles = role_table.read(world.folds, 0, world.ids, Regime(**FEW))
    own = world.record(
        **{purpose: np.flatnonzero(roles == role) for purpose, role in (("fit", "train"), ("select", "validation"))}
    )
    return world, roles, own, {"regimes": [FEW], "artefacts": artefacts}


def test_artefacts_of_a_regime_may_see_what_it_shows_and_inherit_what_another_labels(few):
    world, roles, own, regimes = few
    own.record("fit", np.flatnonzero(roles == "unlabelled"), labels=False)
    record = own.merged(world.record().inherited_from("all"))
    status, table = run(world, regimes=regimes, arm=world.arm(record))
    assert status == 0 and set(table["status"]) == {"clean"}
    arm = table[table["artefact"] == "arm real_only"].set_index("purpose")
    assert arm.loc["fit, labels", ["images", "allowed_roles"]].tolist() == [6, "train under few"]
    assert arm.loc["fit, images alone", ["images", "allowed_roles"]].tolist() == [6, "train or unlabelled under few"]
    assert arm.loc["fit, labels, through all", ["images", "allowed_roles"]].tolist() == [12, "train under all"]


def test_what_comes_back_to_a_regime_in_which_it_began_is_allowed_there(few):
    world, roles, own, regimes = few
    regimes["artefacts"]["arm real_only"]["through"] = []
    status, table = run(world, regimes=regimes, arm=world.arm(own.merged(own.inherited_from("few"))))
    assert status == 0 and "fit, labels, through few" in set(table["purpose"])
    hidden = world.record(fit=np.flatnonzero(roles == "unlabelled")[:1]).inherited_from("few")
    assert run(world, regimes=regimes, arm=world.arm(own.merged(hidden)))[0] == 1, "but by its rules"


def test_one_label_of_an_unlabelled_image_fails_the_run(few, capsys):
    world, roles, own, regimes = few
    own.record("fit", [np.flatnonzero(roles == "unlabelled")[0]])
    status, table = run(world, regimes=regimes, arm=world.arm(own))
    assert status == 1
    assert leaks(table) == [("arm real_only", "fit, labels", 1, 1)], "under all it is a train image"
    assert "purpose 'fit, labels': 1 images of 1 groups that are not train under few" in capsys.readouterr().err
    assert run(world, ("arm real_only:fit",), regimes=regimes, arm=world.arm(own))[0] == 0, "unless it is meant"


@pytest.mark.parametrize("role", ["validation", "calibration"])
def test_an_image_that_the_regime_does_not_use_must_not_even_be_seen(few, role):
    world, roles, own, regimes = few
    unused = np.flatnonzero((roles == "unused") & (world.roles[:, 0] == role))[0]
    purpose, name = ("select", "select") if role == "validation" else ("threshold", "threshold")
    own.record(purpose, [unused], labels=False)
    status, table = run(world, regimes=regimes, arm=world.arm(own))
    assert status == 1
    assert leaks(table) == [("arm real_only", f"{name}, images alone", 1, 0)]


def test_what_nothing_could_hand_on_was_read_past_the_rules(few):
    world, roles, own, regimes = few
    hidden = world.record(fit=np.flatnonzero(roles == "unlabelled")[:1]).inherited_from("all")
    regimes["artefacts"]["arm real_only"]["through"] = []
    status, table = run(world, regimes=regimes, arm=world.arm(own.merged(hidden)))
    assert status == 1
    assert [name for name, *_ in leaks(table)] == ["arm real_only"]
    assert leaks(table)[0][1:3] == ("fit, labels, through all", 1)


# --- further images --------------------------------------------------------------------------------------------------

MORE = {"name": "more", "labelled": 1, "unlabelled": "seen", "selection": "same"}
UNDER_MORE = {"regimes": [MORE], "artefacts": {"arm real_only": {"regime": "more", "through": []}}}


@pytest.fixture
def with_further(world, write_set):
    """The world, whose last 8 images are further ones: relatives of train images, or of nobody."""
    rows = np.flatnonzero(np.arange(48) >= 40)
    groups = world.groups.copy()
    groups[rows] = [world.groups[world.rows("train")[0]]] * 2 + [f"new-{row}" for row in rows[2:]]
    return with_columns(world, write_set, groups, list(groups))


def with_columns(world, write_set, groups: np.ndarray, genes: list[str]):
    """The world with the last 8 images as further ones, and a column of genes."""
    world.images.unlink()
    write_set(world.images, list(world.ids), list(groups), grouped_by="gene", further=8)
    with h5py.File(world.images, "r+") as file:
        file.create_dataset("columns/gene", data=np.array(genes, dtype=object), dtype=h5py.string_dtype())
        file.attrs["columns"] = json.dumps(["gene"])
    roles = world.roles.copy()
    roles[40:] = "unlabelled"
    role_table.write(world.folds, world.ids, groups, roles)
    with ImageSet(world.images) as source:
        return dataclasses.replace(world, groups=groups, roles=roles, digest=source.digest)


def test_further_images_may_be_seen_where_a_regime_shows_them(with_further):
    own = with_further.record()
    own.record("fit", with_further.rows("unlabelled"), labels=False)
    status, table = run(with_further, regimes=UNDER_MORE, arm=with_further.arm(own))
    assert status == 0 and set(table["status"]) == {"clean"}
    about = table.set_index(["artefact", "purpose"])["images"]
    assert about["arm real_only", "fit, images alone"] == 8 and about["folds.csv", "further images apart"] == 8


def test_a_further_image_whose_protein_nobody_tells_is_not_called_clean(with_further, write_set):
    world = with_columns(with_further, write_set, with_further.groups, [*with_further.groups[:47], ""])
    own = world.record()
    own.record("fit", world.rows("unlabelled"), labels=False)
    status, table = run(world, regimes=UNDER_MORE, arm=world.arm(own))
    told = table[table["status"] == "not excluded"]
    assert status == 0 and set(zip(told["artefact"], told["purpose"], strict=True)) == {
        ("arm real_only", "fit"), ("arm real_only", "fit, images alone"), ("folds.csv", "further images apart"),
    }  # fmt: skip
    assert set(table["status"]) == {"clean", "not excluded"}
    assert "proteins are unknown: not excluded" in (world.folder / "log.txt").read_text()


def test_a_label_of_a_further_image_that_was_read_fails_the_run(with_further, capsys):
    own = with_further.record()
    own.record("fit", with_further.rows("unlabelled")[:2])
    status, table = run(with_further, regimes=UNDER_MORE, arm=with_further.arm(own))
    assert status == 1
    assert leaks(table) == [("arm real_only", "fit, labels", 2, 0)], "of them, and of no relative"
    assert "2 images of 0 groups that are not train under more" in capsys.readouterr().err


def test_a_further_image_is_seen_by_nothing_whose_regime_shows_none(with_further):
    own = with_further.record()
    own.record("fit", with_further.rows("unlabelled")[:1], labels=False)
    status, table = run(with_further, generator=with_further.generator(own))
    assert status == 1 and leaks(table) == [("generator unet", "fit, images alone", 1, 0)]


def test_a_further_image_beside_its_relative_in_the_test_part_is_told(with_further):
    groups = with_further.groups.copy()
    groups[47] = groups[with_further.rows("test")[0]]
    rules = Rules(groups, set(), np.ones(48, dtype=bool), np.arange(48) >= 40)
    checked = check_further(0, 0, with_further.roles[:, 0], rules)
    assert (checked.status, checked.images, checked.overlap_images, checked.overlap_groups) == ("LEAK", 8, 1, 1)


def test_what_a_generator_from_elsewhere_has_read_is_unknown_wherever_it_went(world):
    record = dataclasses.replace(world.record(), unknown=frozenset({"theirs"}))
    status, table = run(world, synthetic=world.synthetic(record), arm=world.arm(record))
    assert status == 0
    unknown = table[table["status"] == "training overlap: unknown"]
    assert list(unknown["artefact"]) == [NAMES["synthetic"], NAMES["arm"]]
    assert set(unknown["purpose"]) == {"training elsewhere of theirs"} and set(unknown["allowed_roles"]) == {"unknown"}
    assert set(table["status"]) == {"clean", "training overlap: unknown"}
    assert "a generator came from elsewhere: unknown" in (world.folder / "log.txt").read_text()
