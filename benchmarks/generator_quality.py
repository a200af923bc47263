"""Quality per minute: generators trained for the same time on the same images, judged by the same encoder.

    MIXLOC_HPA_CELLS=… PYTHONPATH=PEERS python -m benchmarks.generator_quality --out sheets
    PYTHONPATH=PEERS python -m benchmarks.generator_quality --images images.h5 --device cuda --minutes 5 --out sheets

Groups are split once: some for the encoder (a classifier trained beforehand), some to train generators on, some to
judge by. How many steps of each contestant fit into the minutes is measured beforehand, in turn, several times. Then
each trains for so many steps in a process of its own, so that a machine that gets busy meanwhile favours nobody. Each
makes one image for each held-out image's combination of labels. For the peers a combination is a class; held-out images
whose combination no training image has are left out for all. Sampling is not counted in the minutes.

Printed are the Fréchet distances from the held-out images, corrected for sample size, and the floor: training images
instead of generated ones. Beside them stand the excess over the floor and the ratio of our excess to each peer's. Its
error is the jackknife over blocks of held-out groups, which does not know the luck of training; for that use
--repeats.

Peers train at their published settings; `diffusers@0.001` is the same at another learning rate. They sample by their
own samplers (--peer-steps, --peer-guidance). Contact sheets go to --out: uncurated, real ones first; the same place on
every sheet asks for the same labels. Needs what benchmarks/peers.py says."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import generator_data, generator_runs, peers
from benchmarks.generator_data import Cells, Encoder
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images.orientation import oriented

AIM = 0.5
BLOCKS = 10  # of held-out groups, for the jackknife
TRIAL = (2, 10)  # steps of a peer in each number format; the last count
OURS_TO_THEIRS = 6  # steps of ours for one of a peer's where paces are measured, so that both take about as long


def train_ours(
    cells: Cells, args: argparse.Namespace, steps: int, where: torch.device
) -> tuple[Any, list[tuple[float, ...]], dict[str, float]]:
    """Our generator after so many steps, and the course of its training."""
    settings = generator_data.generator_settings(args.generator, args.settings) | {"steps": steps}
    made, trained = generator_runs.train(cells, settings, args.seed, where, device.fast_dtype(where))
    return made, trained.history, {"seconds": trained.seconds, "steps": steps, "batch": settings["batch"]}


def train_peer(
    cells: Cells, name: str, args: argparse.Namespace, steps: int, where: torch.device
) -> tuple[peers.Peer, dict[str, float]]:
    """A peer after so many steps, in the number format that suits it best."""
    torch.manual_seed(derive(args.seed, "peer", name))
    base, _, rate = name.partition("@")
    classes, numbers = peers.combinations(cells.labels)
    peer = peers.PEERS[base](cells.images.shape[1], len(numbers), cells.images.shape[-1], where)
    peer.learning_rate = float(rate) if rate else peers.LEARNING_RATE
    images = torch.from_numpy(cells.images)
    rng, generator = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)

    def step(fraction: float) -> None:
        rows = torch.from_numpy(rng.integers(len(cells), size=args.peer_batch))
        loss = peer.step(
            oriented(images[rows], torch.randint(8, (len(rows),), generator=generator)), classes[rows], fraction
        )
        if where.type == "cuda" and peer.steps % 10 == 0:
            float(loss)

    # A few steps in each number format are part of the training.
    taken: dict[torch.dtype, float] = {}
    for dtype in dict.fromkeys([torch.float32, device.fast_dtype(where)]):
        peer.dtype = dtype
        for count in TRIAL:
            before = time.monotonic()
            for _ in range(count):
                step(0.0)
            taken[dtype] = time.monotonic() - before
    peer.dtype = min(taken, key=lambda dtype: taken[dtype])
    started, first = time.monotonic(), peer.steps
    while peer.steps < steps:
        step(peer.steps / steps)
    spent = time.monotonic() - started
    pace = (peer.steps - first) / spent if spent else 0.0
    facts = {"seconds": spent, "steps": peer.steps, "batch": args.peer_batch, "pace": pace}
    return peer, facts | {"bf16": peer.dtype != torch.float32}


def measure_pace(cells: Cells, name: str, args: argparse.Namespace, where: torch.device) -> dict[str, float]:
    """Steps a second of a contestant, and the seconds that pass before they come at that pace."""
    if name != args.generator:
        return {"pace": train_peer(cells, name, args, 2 * sum(TRIAL) + args.pace_steps, where)[1]["pace"], "lead": 0.0}
    history = train_ours(cells, args, args.pace_steps * OURS_TO_THEIRS, where)[1]
    # The first step is not like the others; where a network is compiled, it is minutes, which count.
    first, last = history[0], history[-1]
    return {"pace": (last[0] - first[0]) / (last[-1] - first[-1]), "lead": first[-1]}


def contestant(name: str, folder: Path, args: argparse.Namespace, where: torch.device) -> None:
    """What the process of one contestant does: train, sample, write its images; or, without steps, measure its pace."""
    given = np.load(folder / "given.npz")
    cells = Cells(given["images"], given["labels"], given["groups"], json.loads(str(given["classes"])), "")
    wanted, sets = given["wanted"], {}
    if not args.steps:
        np.savez(folder / f"{name}.npz", facts=json.dumps(measure_pace(cells, name, args, where)))
        return
    if name == args.generator:
        made, _, facts = train_ours(cells, args, args.steps, where)
        started = time.monotonic()
        for sampler in args.samplers:
            synthetic_set = generator_runs.synthetic_set(
                sampler=sampler, guidance={"scale": args.guidance, "interval": [0.2, 20]}
            )
            sets[f"{name}, {sampler}"] = generator_runs.sample(made, wanted, synthetic_set, args.seed, where)
        facts["sampling"] = (time.monotonic() - started) / len(sets)
    else:
        peer, facts = train_peer(cells, name, args, args.steps, where)
        _, numbers = peers.combinations(cells.labels)
        classes = torch.tensor([numbers[row.tobytes()] for row in wanted])
        base = name.partition("@")[0]
        steps = args.peer_steps.get(base, peers.STEPS[base])
        started = time.monotonic()
        for guidance in dict.fromkeys(args.peer_guidance if base == "denoising" else [1.0]):
            key = f"{name}, {steps} steps" + (f", guidance {guidance:g}" if base == "denoising" else "")
            sets[key] = peer.sample(classes, steps, guidance).numpy()
        facts["sampling"] = (time.monotonic() - started) / len(sets)
    np.savez(folder / f"{name}.npz", facts=json.dumps(facts), names=json.dumps(list(sets)), images=list(sets.values()))


def run_one(
    name: str, folder: Path, args: argparse.Namespace, steps: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a contestant says of itself, and its images; a process of its own."""
    given = vars(args) | {"steps": steps, "images": None, "out": None}
    command = [sys.executable, "-m", "benchmarks.generator_quality", "--contestant", name, str(folder)]
    if subprocess.run([*command, json.dumps(given)], cwd=generator_data.ROOT).returncode:  # noqa: S603
        sys.exit(f"contestant {name} failed, see above")
    with np.load(folder / f"{name}.npz") as found:
        facts = json.loads(str(found["facts"]))
        names = json.loads(str(found["names"])) if "names" in found else []
        return facts, dict(zip(names, found["images"], strict=True)) if names else {}


def run_contestants(
    names: list[str], train: Cells, wanted: np.ndarray, args: argparse.Namespace
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Images of each contestant, a process each, and which contestant each set of images is of."""
    sets: dict[str, np.ndarray] = {}
    owner: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(
            folder / "given.npz", images=train.images, labels=train.labels, groups=train.groups, wanted=wanted,
            classes=json.dumps(train.classes),
        )  # fmt: skip
        paces: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(args.pace_rounds):
            for name in names:
                paces[name].append(run_one(name, folder, args, 0)[0])
        for name in names:
            pace, lead = (float(np.median([found[key] for found in paces[name]])) for key in ("pace", "lead"))
            steps = max(1, int((60 * args.minutes - lead) * pace))
            facts, made = run_one(name, folder, args, steps)
            for key, images in made.items():
                sets[key], owner[key] = images, name
            every = ", ".join(f"{found['pace']:.2f}" for found in paces[name])
            print(
                f"{name}: {steps} steps of {facts['batch']:.0f}{', bf16' if facts.get('bf16') else ''}, for "
                f"{args.minutes:g} min at {pace:.2f} a second ({every}); took {facts['seconds'] / 60:.2f} min, "
                f"sampling {facts['sampling']:.0f} s",
                flush=True,
            )
    return sets, owner


def judge(
    encode: Encoder, train: Cells, held: Cells, sets: dict[str, np.ndarray], seed: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Excess over the floor of each set, and the same with each block of held-out groups left out."""
    rows = np.random.default_rng(seed).permutation(len(train))[: len(held)]
    floor = train.part(rows)
    features = {name: encode(images) for name, images in sets.items()}
    real, beside = encode(held.images), encode(floor.images)

    def excess(kept: np.ndarray, show: bool) -> dict[str, float]:
        # A generated image leaves together with the real one whose labels it has.
        others = {name: (found[kept], None) for name, found in features.items()}
        found = generator_runs.distances(real[kept], held.groups[kept], others | {"floor": (beside, floor.groups)})
        if show:
            for name, value in found.items():
                print(f"  {name:36} {value.value:8.4f} ({value.low:.4f} to {value.high:.4f})")
        return {name: found[name].value - found["floor"].value for name in others}

    print("Fréchet distance from the held-out images (95 % interval)")
    whole = excess(np.arange(len(held)), True)
    names, owner = np.unique(held.groups, return_inverse=True)
    block = np.random.default_rng(seed).permutation(len(names))[owner] % BLOCKS
    parts = [excess(np.flatnonzero(block != left), False) for left in range(BLOCKS)]
    return whole, {name: np.array([part[name] for part in parts]) for name in sets}


def verdicts(
    ours: str, whole: dict[str, float], parts: dict[str, np.ndarray], owner: dict[str, str]
) -> dict[str, float]:
    """Print and return the ratio of the excess of each set of ours to that of each peer's best set of images."""
    ratios = {}
    for peer in dict.fromkeys(owner.values()):
        if peer == ours:
            continue
        best = min((name for name in whole if owner[name] == peer), key=lambda name: whole[name])
        for name in (name for name in whole if owner[name] == ours):
            ratio, jack = whole[name] / whole[best], parts[name] / parts[best]
            error = math.sqrt((BLOCKS - 1) / BLOCKS * float(((jack - jack.mean()) ** 2).sum()))
            said = "holds" if whole[best] > 0 and ratio <= AIM else "DOES NOT HOLD"
            print(
                f"excess over the floor: {name} {whole[name]:.4f}, {best} {whole[best]:.4f}; ratio {ratio:.2f} "
                f"(standard error {error:.2f}; aim: at most {AIM}: {said})",
                flush=True,
            )
            ratios[f"{name} to {peer}"] = ratio
    return ratios


def usable(train: Cells, held: Cells) -> np.ndarray:
    """Held-out images whose combination of labels a training image has: the peers know no others."""
    known = {row.tobytes() for row in train.labels}
    return np.flatnonzero([row.tobytes() in known for row in held.labels])


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    out = generator_data.common_flags(__doc__)
    out.add_argument("--contestants", nargs="+", default=["unet", *peers.PEERS])
    out.add_argument("--minutes", type=float, default=10.0, help="of training, each, at the pace measured beforehand")
    out.add_argument("--pace-rounds", type=int, default=3, help="times the paces of all are measured in turn")
    out.add_argument("--pace-steps", type=int, default=60, help="of a peer, where paces are measured")
    out.add_argument("--repeats", type=int, default=1, help="trainings of each with other seeds, on the same split")
    out.add_argument("--count", type=int, default=0, help="images at most of each contestant; 0: one a held-out image")
    out.add_argument("--guidance", type=float, default=1.0, help="of ours; 1: none")
    out.add_argument("--samplers", nargs="+", default=["dpmpp_2m", "dpmpp_2m_sde"], help="of ours")
    out.add_argument("--peer-batch", type=int, default=32)
    out.add_argument("--peer-steps", type=json.loads, default={}, help='JSON, such as {"denoising": 100}')
    out.add_argument("--peer-guidance", type=float, nargs="+", default=[peers.GUIDANCE["denoising"], 1.0])
    out.add_argument("--encoder-steps", type=int, default=600)
    out.add_argument("--out", type=Path, help="folder for contact sheets, outside the repository")
    return out.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print distances, excesses and ratios."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--contestant"]:
        # The child's command line: name, folder, and all settings of the parent.
        args = argparse.Namespace(**json.loads(argv[3]))
        contestant(argv[1], Path(argv[2]), args, generator_data.use_device(args.device, args.threads))
        return
    args = parse_args(argv)
    where = generator_data.use_device(args.device, args.threads)
    cells = generator_data.load_cells(args, hpa=True)
    parts = generator_data.split(cells, args.seed)
    encode, score = generator_data.train_encoder(cells, parts, args.encoder_steps, args.seed, where)
    train, held = cells.part(parts["train"]), cells.part(parts["held"])
    chosen = usable(train, held)
    left_out = len(held) - len(chosen)
    if 0 < args.count < len(chosen):
        chosen = np.sort(np.random.default_rng(args.seed).choice(chosen, args.count, replace=False))
    held = held.part(chosen)
    print(f"{cells.source}; {generator_data.machine(where)}; encoder: mean average precision {score:.3f}")
    print(
        f"{len(train)} images of {len(np.unique(train.groups))} groups to train on; {len(held)} of "
        f"{len(np.unique(held.groups))} groups to judge by ({left_out} left out: combinations that train has not)",
        flush=True,
    )
    names = [args.generator, *(name for name in args.contestants if name.partition("@")[0] in peers.PEERS)]
    ratios: dict[str, list[float]] = {}
    for repeat in range(args.repeats):
        args.seed = derive(args.seed, "repeat", repeat) % 2**31 if repeat else args.seed
        sets, owner = run_contestants(names, train, held.labels, args)
        if args.out is not None:
            for name, images in ({"real": held.images} | sets).items():
                generator_data.contact_sheet(args.out / f"{name.replace(', ', '-')}-{repeat}.png", images[:120])
        for pair, ratio in verdicts(args.generator, *judge(encode, train, held, sets, args.seed), owner).items():
            ratios.setdefault(pair, []).append(ratio)
    if args.repeats > 1:
        for pair, found in ratios.items():
            print(
                f"ratio of {pair} over {args.repeats} repeats: median {np.median(found):.2f}, all {np.round(found, 2)}"
            )


if __name__ == "__main__":
    main()
