"""sample_ddpm: one synthetic set for one fold, as a synthetic set says, from a trained generator.

    python -m workflow_scripts.sample_ddpm --generator generators/unet.safetensors --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --out synthetic/as_train.h5 --settings '{...}'

Writes an image set (HDF5) in the layout of a real one, with ids syn-000000, syn-000001, ... and group `synthetic`.
Column `reference` names the train image whose channels an image was given or that it is a variation of, column
`against` the class that guidance pushed away from, where the synthetic set has such. Its provenance is that of the generator,
together with the training rows that the synthetic set was made from and, where the synthetic set asks the fold's baseline (--baseline, a
list of arms whose first it is), the validation rows that this looked at, and what the baseline was fitted on.
A batch's images depend on the seed and on the batch's number alone."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress, duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import baseline_errors, diffusion, generator_choices, generator_file, out_of_memory
from workflow_scripts.lib.generate.baseline_errors import Opinion
from workflow_scripts.lib.generate.diffusion import Guidance
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.requests import Orders, set_orders
from workflow_scripts.lib.images.image_set import ImageSet, write_images
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help."""
    p = arguments.parser(__doc__)
    p.add_argument("--generator", type=Path, required=True, help="trained generator (safetensors)")
    p.add_argument("--images", type=Path, required=True, help="image set that the generator was trained on (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--baseline", type=Path, help="list of arms (JSON) that begins with the fold's baseline, if asked")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--out", type=Path, required=True, help="synthetic set to write (HDF5)")
    return p.parse_args(argv)


def sample_ddpm(
    generator: Path,
    images: Path,
    table: Path,
    repeat: int,
    fold: int,
    baseline: Path | None,
    seed: int,
    out: Path,
    settings: dict[str, Any],
) -> None:
    """Make one synthetic set; goes on from a checkpoint beside `out` where a killed run left one."""
    settings = dict(settings)
    seed = derive(seed, repeat, fold, "plan", settings["name"])
    device.use_threads(settings.pop("threads"))
    with files.lock(out, lambda holder: stage.log.info("waiting for process %s, which writes %s", holder, out)):
        made = generator_file.read(generator)
        problem = generator_choices.set_problem(settings, made.settings, made.channels)
        if problem:
            raise UserError(f"synthetic set {settings['name']}: {problem}")
        with ImageSet(images) as source:
            if made.classes != source.classes or made.channels != source.channels or made.size != source.size:
                raise UserError(f"the generator was trained on other classes, channels or sizes than those of {images}")
            opinion = _opinion(baseline, source, table, repeat, fold, settings)
            rows = role_table.rows(table, fold, source.ids, Role.TRAIN)
            orders = set_orders(settings, made, source, rows, opinion, seed)
        where = device.device()
        provenance = orders.provenance
        code = source_code.stage_digest("sample_ddpm")
        task = [settings, seed, made.digest, provenance.to_json(), orders.digest(), device.rounding(where), code]
        digest = files.digest(task)
        if _finished(out, digest):
            stage.log.info("%s was finished meanwhile by another process: kept", out)
            return
        resume = Resume(out.with_name(f"{out.stem}.resume.pt"), digest)
        stage.log.info(
            "synthetic set %s: %d images%s, %s, %d evaluations, guidance %g, %s",
            settings["name"],
            len(orders.labels),
            f" varied from noise level {settings['start_noise']:g}" if settings.get("start_noise") else "",
            settings["sampler"],
            settings["evaluations"],
            settings["guidance"]["scale"],
            device.describe(where),
        )
        attrs: dict[str, Any] = {
            "source": f"generator {made.settings['name']}, synthetic set {settings['name']}",
            "provenance": provenance.to_json(),
            "generator": json.dumps(made.settings, sort_keys=True),
            "generator_digest": made.digest,
            "synthetic_set": json.dumps(settings, sort_keys=True),
            "repeat": repeat,
            "fold": fold,
            "task_digest": digest,
        }
        started = time.monotonic()
        images_made = make_images(made, orders, settings, seed, where, resume)
        spent = time.monotonic() - started
        with write_images(out, made.channels, made.classes, made.size, attrs | orders.attrs) as writer:
            count = len(images_made)
            ids = [f"syn-{number:06d}" for number in range(count)]
            writer.append(images_made, orders.labels, ids, ["synthetic"] * count, orders.columns(made.classes))
        resume.clear()
    stage.log.info("%d images in %s (%.1f a second)", count, duration(spent), count / max(spent, 1e-9))


def _opinion(
    baseline: Path | None, source: ImageSet, table: Path, repeat: int, fold: int, settings: dict[str, Any]
) -> Opinion | None:
    if not generator_choices.asks_baseline(settings):
        return None
    if baseline is None:
        raise UserError(f"synthetic set {settings['name']} asks the fold's trained baseline: --baseline arms/job0.json")
    return baseline_errors.ask(baseline, source, table, repeat, fold)


def _finished(out: Path, digest: str) -> bool:
    if not out.exists():
        return False
    with ImageSet(out) as source:
        return source.attrs.get("task_digest") == digest


def make_images(
    made: Generator,
    orders: Orders,
    settings: dict[str, Any],
    seed: int,
    where: torch.device,
    resume: Resume,
) -> np.ndarray:
    """Images uint8 (n, C, s, s) as ordered, batch by batch; finished batches survive a kill."""
    network = out_of_memory.Divided(made.network(where, device.fast_dtype(where)))
    objective = diffusion.make_objective(made.settings["objective"])
    low, high = settings["guidance"]["interval"]
    guidance = Guidance(settings["guidance"]["scale"], low, high)
    pixels = made.pixels.on(where)
    limits = pixels.limits(where) if settings["clip"] else None
    batches = range(0, len(orders.labels), settings["batch"])
    saved = resume.load()
    done: list[torch.Tensor] = saved["batches"] if saved else []
    start_noise = settings.get("start_noise")
    levels = diffusion.noise_levels(objective, settings["sampler"], settings["evaluations"], start_noise)
    calls = len(levels) * (2 if settings["sampler"] == "heun" else 1)
    with Progress("sample", total=len(batches) * calls) as bar, torch.inference_mode():
        for number, start in enumerate(batches):
            if number < len(done):
                continue
            part = slice(start, start + settings["batch"])
            condition, against = orders.conditions(part, pixels, where)
            denoise = diffusion.conditional(objective, network, condition, guidance, against, limits)
            x = diffusion.sample(
                objective,
                _counted(denoise, bar, number * calls),
                (len(condition.labels), len(made.channels), made.size, made.size),
                settings["sampler"],
                settings["evaluations"],
                torch.Generator().manual_seed(derive(seed, "batch", number)),
                where,
                (pixels.to_network(orders.real[part].to(where)), start_noise) if start_noise else None,
            )
            done.append(orders.with_given(_checked(pixels.to_bytes(x), x, number).cpu(), part))
            bar.update((number + 1) * calls)
            if resume.due():
                resume.save({"batches": done})
    return torch.cat(done).numpy()


def _counted(denoise: diffusion.Denoise, bar: Progress, before: int) -> diffusion.Denoise:
    # Batches are long where the chain has a thousand steps, so the bar moves with every call.
    count = before

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        nonlocal count
        count += 1
        bar.update(count)
        return denoise(x, sigma)

    return counting


def _checked(images: torch.Tensor, x: torch.Tensor, number: int) -> torch.Tensor:
    if not bool(torch.isfinite(x).all()):
        raise UserError(f"batch {number} holds pixels that are no numbers: lower guidance.scale or train again")
    return images


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return stage.run(
        "sample_ddpm",
        args,
        lambda: sample_ddpm(
            args.generator,
            args.images,
            args.folds,
            args.repeat,
            args.fold,
            args.baseline,
            args.seed,
            args.out,
            args.settings,
        ),
    )


if __name__ == "__main__":
    stage.leave(main())
