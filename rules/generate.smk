# Generators and the synthetic sets made from them, fold by fold.
#
# Needs:  results/{run}/images.h5, results/{run}/repeat{repeat}/folds.csv
# Makes:  .../fold{fold}/generators/{generator}.safetensors, .../fold{fold}/synthetic/{set}.h5, and beside it
#         {set}.assess.csv, {set}.fidelity.csv, {set}.closest.csv, {set}.images.csv, {set}.assess.json


rule train_ddpm:
    """A class-conditional diffusion model, fitted on the fold's train part alone."""
    input:
        unpack(asked_by_generator),
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
    output:
        # Not temp: another synthetic set samples from it, and the certificate reads what it was fitted on.
        generator="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.safetensors",
        history="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.history.csv",
    params:
        python=python,
        code=code("train_ddpm"),
        baseline=baseline_flag,
        origin=origin_flag,
        origin_digest=origin_digest,
        settings=lambda wildcards: as_json(
            stage_views.entry_settings(CONFIG, "generators", wildcards.generator), threads=THREADS
        ),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_ddpm/repeat{repeat}_fold{fold}_{generator}.log",
    benchmark:
        "results/{run}/benchmarks/train_ddpm/repeat{repeat}_fold{fold}_{generator}.tsv"
    priority: 10  # most waits for them: started late, the last one leaves cores idle at the end
    threads: THREADS * PROCESSES
    resources:
        mem_mb=growing(4000 * PROCESSES),
        runtime=720,
        launcher=LAUNCHER,
        strip_minutes=STRIP_MINUTES,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m {resources.launcher}workflow_scripts.train_ddpm"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " {params.baseline}"
        " {params.origin}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output.generator:q}"
        " --history {output.history:q}"
        " --progress results/{wildcards.run}/progress"
        " --strip-minutes {resources.strip_minutes}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_ddpm:
    """One synthetic set, sampled from a generator with the set's labels, sampler and guidance."""
    input:
        unpack(asked_by_set),
        generator=generator_of,
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
    output:
        # Not temp, though they take most of the disk. A job of train_classifier with one more arm compares the sets
        # with those that its other arms were trained on. It would have all of them made again.
        "results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.h5",
    params:
        python=python,
        code=code("sample_ddpm"),
        baseline=baseline_flag,
        weaker=weaker_flag,
        settings=lambda wildcards: as_json(
            stage_views.entry_settings(CONFIG, "synthetic_sets", wildcards.set), threads=THREADS
        ),
        seed=CONFIG["seed"],
    wildcard_constraints:
        set=GENERATED_SETS,
    log:
        "results/{run}/logs/sample_ddpm/repeat{repeat}_fold{fold}_{set}.log",
    benchmark:
        "results/{run}/benchmarks/sample_ddpm/repeat{repeat}_fold{fold}_{set}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=360,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.sample_ddpm"
        " --generator {input.generator:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " {params.baseline}"
        " {params.weaker}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_fold:
    """All synthetic sets of a fold that ask no baseline, in one process (compute.sets_together)."""
    input:
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
        generators=lambda wildcards: [
            in_fold(wildcards, f"generators/{name}.safetensors") for name in views.generators_for(CONFIG, TOGETHER)
        ],
    output:
        # Where none are made together, a file that nothing asks for: no set can have this name.
        [f"results/{{run}}/repeat{{repeat}}/fold{{fold}}/synthetic/{name}.h5" for name in TOGETHER or ["-"]],
    params:
        python=python,
        code=code("sample_fold"),
        generators=lambda wildcards, input: [
            f"{name}={path}"
            for name, path in zip(views.generators_for(CONFIG, TOGETHER), input.generators, strict=True)
        ],
        synthetic=lambda wildcards, output: [f"{name}={path}" for name, path in zip(TOGETHER, output, strict=True)],
        settings=lambda wildcards: as_json(stage_views.together_settings(CONFIG), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/sample_fold/repeat{repeat}_fold{fold}_sets.log",
    benchmark:
        "results/{run}/benchmarks/sample_fold/repeat{repeat}_fold{fold}_sets.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=360,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.sample_fold"
        " --generators {params.generators:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --synthetic {params.synthetic:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_simulator:
    """The ceiling of all generators: new simulated cells of new proteins, with the labels of a synthetic set."""
    input:
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
    output:
        "results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.h5",
    params:
        python=python,
        code=code("sample_simulator"),
        settings=lambda wildcards: as_json(stage_views.simulator_settings(CONFIG, wildcards.set)),
        seed=CONFIG["seed"],
    wildcard_constraints:
        set=SIMULATED_SETS,
    log:
        "results/{run}/logs/sample_simulator/repeat{repeat}_fold{fold}_{set}.log",
    benchmark:
        "results/{run}/benchmarks/sample_simulator/repeat{repeat}_fold{fold}_{set}.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=120,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.sample_simulator"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule train_judge:
    """An independent judge of generated cells: a classifier trained on new simulated cells of other proteins."""
    output:
        "results/{run}/judge.safetensors",
    params:
        python=python,
        code=code("train_judge"),
        settings=lambda wildcards: as_json(stage_views.judge_settings(CONFIG), threads=THREADS),
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
        "{params.python} -m workflow_scripts.train_judge"
        " --out {output:q}"
        " --seed {params.seed}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule assess_synthetic:
    """Fidelity of a synthetic set, beside real images of groups that neither generator nor encoders have seen."""
    input:
        synthetic="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.h5",
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
        judge=judge,
        baseline=baseline,
        # Weights of the user's own encoder, where the config names some.
        encoder=from_config(views.encoder_weights),
    output:
        scores=report(
            "results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.assess.csv",
            caption="../captions/assess.rst",
            category="Tables",
            labels={
                "table": "what a judge sees in generated images",
                "synthetic set": "{set}",
                "repeat": "{repeat}",
                "fold": "{fold}",
            },
        ),
        fidelity=report(
            "results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.fidelity.csv",
            caption="../captions/fidelity.rst",
            category="Tables",
            labels={"table": "fidelity", "synthetic set": "{set}", "repeat": "{repeat}", "fold": "{fold}"},
        ),
        closest="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.closest.csv",
        each="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.images.csv",
        about="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.assess.json",
    params:
        python=python,
        code=code("assess_synthetic"),
        settings=lambda wildcards: as_json(stage_views.assess_settings(CONFIG), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/assess_synthetic/repeat{repeat}_fold{fold}_{set}.log",
    benchmark:
        "results/{run}/benchmarks/assess_synthetic/repeat{repeat}_fold{fold}_{set}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(6000),  # 4,800 MB at the study's size
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.assess_synthetic"
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
        " --each {output.each:q}"
        " --about {output.about:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
