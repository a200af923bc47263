"""write_model_package: a folder from which the classifiers answer as in the run, without MixLoc."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.small_run import CHANNELS, CLASSES, SIZE, SmallRun
from workflow_scripts import write_model_package
from workflow_scripts.lib.classify import model_package
from workflow_scripts.lib.judge.wording import model_card

ROOT = Path(__file__).resolve().parents[2]
# What is said before and after the lines of the docs: nothing of MixLoc can be imported in this process.
AROUND = """import sys, numpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "workflow_scripts":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
images = torch.from_numpy(numpy.load("images.npy"))
{lines}
numpy.save("probabilities.npy", probabilities.numpy())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run with the package of its arm."""
    made = SmallRun(tmp_path_factory.mktemp("package"))
    made.path("metrics.csv").write_text(
        "arm,repeat,fold,part,level,metric,class,value,low,high,positives,positive_groups,judged\n"
        "pool,mean,pooled,test,image,macro_f1,,0.7123,0.61,0.8,,,\n"
        "pool,mean,pooled,test,image,macro_f1,Golgi,0.1,,,,,\n"
        "other,mean,pooled,test,image,macro_f1,,0.9,0.8,1,,,\n"
    )
    made.path("leaks.csv").write_text("artefact,status\narm pool,clean\narm pool,clean\narm other,LEAK\n")
    settings = {
        "run": "small", "arm": {"name": "pool", "method": "pool", "synthetic_set": "painted"}, "confidence": 0.95,
        "preprocess_images": {"channels": CHANNELS, "size": SIZE, "pixel_size": None, "intensity": "fixed",
                              "white_level": {"uint16": 65535, "float": 1}},
        "told": {"origin": "a laboratory"},
    }  # fmt: skip
    status = write_model_package.main(
        [
            "--images",
            str(made.path("images.h5")),
            "--arms",
            *made.arms,
            "--thresholds",
            str(made.path("thresholds.csv")),
        ]
        + ["--metrics", str(made.path("metrics.csv")), "--leaks", str(made.path("leaks.csv"))]
        + ["--licence", str(ROOT / "LICENSE"), "--out", str(made.path("models/pool"))]
        + ["--log", str(made.path("log.txt")), "--settings", json.dumps(settings)]
    )
    assert status == 0
    return made


def documented() -> str:
    """The lines that the page shows."""
    text = (ROOT / "docs" / "after.md").read_text(encoding="utf-8")
    return without_blank(re.search(r"```python\n(import json, torch\n.*?)```", text, re.DOTALL)[1])


def without_blank(text: str) -> str:
    """Code without its empty lines, which formatting adds."""
    return "\n".join(line for line in text.splitlines() if line)


def test_the_lines_of_the_docs_answer_as_the_run_does_without_mixloc(run: SmallRun) -> None:
    folder = run.path("models/pool")
    np.save(folder / "images.npy", run.images[:7])
    assert len(documented().splitlines()) == 10
    done = subprocess.run(
        [sys.executable, "-c", AROUND.format(lines=documented())], cwd=folder, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    found = np.load(folder / "probabilities.npy")
    assert found == pytest.approx(run.probabilities(run.images[:7]), abs=1e-5)
    assert documented() in without_blank((folder / "README.md").read_text(encoding="utf-8"))


def test_the_package_says_what_it_needs(run: SmallRun) -> None:
    about = json.loads(run.path("models/pool/model.json").read_text())
    assert (about["classes"], about["channels"], about["size"]) == (CLASSES, CHANNELS, SIZE)
    assert about["thresholds"] == {"image": pytest.approx([0.45] * 3), "protein": pytest.approx([0.65] * 3)}
    assert about["scores"] == [{"metric": "macro_f1", "level": "image", "value": 0.7123, "interval": [0.61, 0.8]}]
    card = run.path("models/pool/README.md").read_text()
    for words in ("| macro-F1, per image | 0.712 | 0.610 to 0.800 |", "2 *clean*", "CC BY 4.0", "a laboratory",
                  "30", "MIT licence"):  # fmt: skip
        assert words in card, words
    assert "MIT" in run.path("models/pool/LICENSE").read_text()


def test_torchscript_answers_bit_for_bit_or_is_left_out(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.path("models/pool")
    assert json.loads((folder / "model.json").read_text())["torchscript"] == "ensemble.pt"
    found = torch.jit.load(folder / "ensemble.pt")(torch.from_numpy(run.images[:3]).float()).detach().numpy()
    assert found == pytest.approx(run.probabilities(run.images[:3]), abs=1e-5)
    members = write_model_package.ensemble.members_of(map(Path, run.arms), "pool", "arm")
    monkeypatch.setattr(torch, "equal", lambda one, other: False)
    assert "bit for bit" in model_package.torchscript(members, run.path("other.pt"))
    assert not run.path("other.pt").exists()


def test_the_code_in_the_package_imports_itself_alone() -> None:
    code = model_package.network_code()
    assert {"backbones.py", "classical_features.py", "network_choices.py", "registry.py"} <= set(code)
    assert not [name for name, text in code.items() if re.search(r"^\s*(from|import) workflow_scripts", text, re.M)]


def test_words_of_the_card_are_text_and_nothing_else() -> None:
    said = model_card._plain("a|b\n# <script>x</script> [c](javascript:d) `e`")
    assert said == r"a\|b # &lt;script&gt;x&lt;/script&gt; \[c\](javascript:d) \`e\`"
