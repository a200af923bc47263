# Generators and the synthetic sets made from them, fold by fold.
#
# Needs:  results/{run}/images.h5, results/{run}/repeat{repeat}/folds.csv
# Makes:  .../fold{fold}/generators/{generator}.safetensors, .../fold{fold}/synthetic/{plan}.h5, and beside it
#         {plan}.assess.csv, {plan}.fidelity.csv, {plan}.closest.csv, {plan}.assess.json


rule train_ddpm:
    """A class-conditional diffusion model, fitted on the fold's train part alone."""
    input:
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        code=code("train_ddpm"),
    output:
        # Not temp: another plan samples from it, and the certificate reads what it was fitted on.
        generator="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.safetensors",
        history="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.history.csv",
    params:
        settings=lambda wildcards: as_json(GENERATORS[wildcards.generator], threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_ddpm/repeat{repeat}_fold{fold}_{generator}.log",
    benchmark:
        "results/{run}/benchmarks/train_ddpm/repeat{repeat}_fold{fold}_{generator}.tsv"
    threads: THREADS * PROCESSES
    resources:
        mem_mb=growing(4000 * PROCESSES),
        runtime=720,
        launcher=LAUNCHER,
    conda:
        ENVIRONMENT
    shell:
        "python -m {resources.launcher}workflow_scripts.train_ddpm"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output.generator:q}"
        " --history {output.history:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_ddpm:
    """One synthetic set: a plan says which generator, labels, sampler and guidance."""
    input:
        unpack(asked_by_plan),
        generator=generator_of,
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        code=code("sample_ddpm"),
    output:
        # Not temp, though they are most of the disk: a job of the classifier that is asked for one more arm compares the
        # sets with those that its other arms were trained on, and would have all of them made again.
        "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.h5",
    params:
        baseline=baseline_flag,
        settings=lambda wildcards: as_json(PLANS[wildcards.plan], threads=THREADS),
        seed=CONFIG["seed"],
    wildcard_constraints:
        plan=GENERATED_PLANS,
    log:
        "results/{run}/logs/sample_ddpm/repeat{repeat}_fold{fold}_{plan}.log",
    benchmark:
        "results/{run}/benchmarks/sample_ddpm/repeat{repeat}_fold{fold}_{plan}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=360,
    conda:
        ENVIRONMENT
    shell:
        "python -m workflow_scripts.sample_ddpm"
        " --generator {input.generator:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " {params.baseline}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_simulator:
    """The ceiling of all generators: fresh simulated cells of fresh proteins, with the labels that a plan asks for."""
    input:
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        code=code("sample_simulator"),
    output:
        "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.h5",
    params:
        settings=lambda wildcards: as_json(
            {
                "plan": PLANS[wildcards.plan],
                "simulate_cells": {
                    key: value for key, value in CONFIG["simulate_cells"].items() if key not in ("images", "processes")
                },
            }
        ),
        seed=CONFIG["seed"],
    wildcard_constraints:
        plan=SIMULATED_PLANS,
    log:
        "results/{run}/logs/sample_simulator/repeat{repeat}_fold{fold}_{plan}.log",
    benchmark:
        "results/{run}/benchmarks/sample_simulator/repeat{repeat}_fold{fold}_{plan}.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=120,
    conda:
        ENVIRONMENT
    shell:
        "python -m workflow_scripts.sample_simulator"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule train_judge:
    """An independent judge of generated cells: a classifier of freshly simulated cells of other proteins."""
    input:
        code=code("train_judge"),
    output:
        "results/{run}/judge.safetensors",
    params:
        settings=lambda wildcards: as_json(run_settings.judge_settings(CONFIG), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_judge/train_judge.log",
    benchmark:
        "results/{run}/benchmarks/train_judge/train_judge.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "python -m workflow_scripts.train_judge"
        " --out {output:q}"
        " --seed {params.seed}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule assess_synthetic:
    """How good is a synthetic set? Beside real images of groups that neither its generator nor those asked have seen."""
    input:
        synthetic="results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.h5",
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        judge=judge,
        baseline=baseline,
        # Weights of the user's own encoder, where the config names some.
        encoder=encoder_weights(),
        code=code("assess_synthetic"),
    output:
        scores=report(
            "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.assess.csv",
            caption="../captions/assess.rst",
            category="Tables",
            labels={
                "table": "what a judge sees in generated images",
                "plan": "{plan}",
                "repeat": "{repeat}",
                "fold": "{fold}",
            },
        ),
        fidelity=report(
            "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.fidelity.csv",
            caption="../captions/fidelity.rst",
            category="Tables",
            labels={"table": "fidelity", "plan": "{plan}", "repeat": "{repeat}", "fold": "{fold}"},
        ),
        closest="results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.closest.csv",
        about="results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.assess.json",
    params:
        settings=lambda wildcards: as_json(
            CONFIG["assess_synthetic"] | {"judge": JUDGE, "baseline": CONFIG["analysis"]["baseline"]}, threads=THREADS
        ),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/assess_synthetic/repeat{repeat}_fold{fold}_{plan}.log",
    benchmark:
        "results/{run}/benchmarks/assess_synthetic/repeat{repeat}_fold{fold}_{plan}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "python -m workflow_scripts.assess_synthetic"
        " --synthetic {input.synthetic:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --judge {input.judge:q}"
        " --baseline {input.baseline:q}"
        " --scores {output.scores:q}"
        " --fidelity {output.fidelity:q}"
        " --closest {output.closest:q}"
        " --about {output.about:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
