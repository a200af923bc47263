# Figures and the report.
#
# Needs:  image sets, histories of training, metrics.csv, comparisons.csv, analysis.json, leaks.csv
# Makes:  results/{run}/figures/*.{svg,pdf,png}, results/{run}/intensity.csv, results/{run}/training.csv,
#         results/{run}/report.html and tables/


rule plot_data:
    """Figures of the data: classes, co-occurrence, groups, intensities, and an unselected contact sheet."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        view=in_run("repeat0/fold0/images.h5") if BY_TRAIN_PART else [],
    output:
        beside(*(f"data_{name}" for name in DATA_FIGURES)),
        classes=report(
            "results/{run}/figures/data_classes.svg",
            caption="../captions/data_classes.rst",
            category="Data",
            labels={"figure": "classes"},
        ),
        cooccurrence=report(
            "results/{run}/figures/data_cooccurrence.svg",
            caption="../captions/data_cooccurrence.rst",
            category="Data",
            labels={"figure": "co-occurrence"},
        ),
        groups=report(
            "results/{run}/figures/data_groups.svg",
            caption="../captions/data_groups.rst",
            category="Data",
            labels={"figure": "groups"},
        ),
        intensity=report(
            "results/{run}/figures/data_intensity.svg",
            caption="../captions/data_intensity.rst",
            category="Data",
            labels={"figure": "intensity"},
        ),
        histograms=report(
            "results/{run}/figures/data_histograms.svg",
            caption="../captions/data_histograms.rst",
            category="Data",
            labels={"figure": "intensity by plate"},
        ),
        samples=report(
            "results/{run}/figures/data_samples.svg",
            caption="../captions/data_samples.rst",
            category="Data",
            labels={"figure": "contact sheet"},
        ),
        table="results/{run}/intensity.csv",
    params:
        python=python,
        code=code("plot_data"),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        view=lambda wildcards, input: ["--view", input.view] if input.view else [],
        settings=lambda wildcards: as_json(stage_views.data_settings(CONFIG)),
    log:
        "results/{run}/logs/plot_data/plot_data.log",
    benchmark:
        "results/{run}/benchmarks/plot_data/plot_data.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.plot_data"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --classes {output.classes:q}"
        " --cooccurrence {output.cooccurrence:q}"
        " --groups {output.groups:q}"
        " --intensity {output.intensity:q}"
        " --histograms {output.histograms:q}"
        " {params.view:q}"
        " --samples {output.samples:q}"
        " --table {output.table:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule plot_images:
    """Unselected generated images beside held-out real ones; and the pairs most like a copy."""
    input:
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
        synthetic="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.h5",
        closest="results/{run}/repeat{repeat}/fold{fold}/synthetic/{set}.closest.csv",
    output:
        beside("images_repeat{repeat}_fold{fold}_{set}", "closest_repeat{repeat}_fold{fold}_{set}"),
        figure=report(
            "results/{run}/figures/images_repeat{repeat}_fold{fold}_{set}.svg",
            caption="../captions/images.rst",
            category="Generated images",
            labels={"figure": "real and generated", "synthetic set": "{set}", "repeat": "{repeat}", "fold": "{fold}"},
        ),
        pairs=report(
            "results/{run}/figures/closest_repeat{repeat}_fold{fold}_{set}.svg",
            caption="../captions/closest.rst",
            category="Generated images",
            labels={
                "figure": "closest to training images",
                "synthetic set": "{set}",
                "repeat": "{repeat}",
                "fold": "{fold}",
            },
        ),
    params:
        python=python,
        code=code("plot_images"),
        settings=lambda wildcards: as_json(CONFIG["report"]["panels"]),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/plot_images/repeat{repeat}_fold{fold}_{set}.log",
    benchmark:
        "results/{run}/benchmarks/plot_images/repeat{repeat}_fold{fold}_{set}.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.plot_images"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --synthetic {input.synthetic:q}"
        " --closest {input.closest:q}"
        " --out {output.figure:q}"
        " --pairs {output.pairs:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule plot_training:
    """Training curves of generators and classifiers."""
    input:
        histories=every_fold("generators/{generator}.history.csv", generator=USED_GENERATORS),
        arms=all_arms,
    output:
        beside("training_generators", "training_classifiers"),
        generators=report(
            "results/{run}/figures/training_generators.svg",
            caption="../captions/training_generators.rst",
            category="Training",
            labels={"figure": "generators"},
        ),
        classifiers=report(
            "results/{run}/figures/training_classifiers.svg",
            caption="../captions/training_classifiers.rst",
            category="Training",
            labels={"figure": "classifiers"},
        ),
        table="results/{run}/training.csv",
    params:
        python=python,
        code=code("plot_training"),
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        places=PLACES,
        histories=of_each(USED_GENERATORS, "repeat{repeat}/fold{fold}/generators/{name}.history.csv"),
        settings=lambda wildcards: as_json(
            {"controls": {name: entry["control"] for name, entry in ARMS.items() if entry.get("control")}}
        ),
    log:
        "results/{run}/logs/plot_training/plot_training.log",
    benchmark:
        "results/{run}/benchmarks/plot_training/plot_training.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.plot_training"
        " --histories {params.histories:q}"
        " --arms {params.arms:q}"
        " --places {params.places:q}"
        " --generators {output.generators:q}"
        " --classifiers {output.classifiers:q}"
        " --table {output.table:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule plot_arms:
    """Figures of the arms: comparison with controls, classes, validation beside test, learning curve, sweeps, map."""
    input:
        metrics="results/{run}/metrics.csv",
        comparisons="results/{run}/comparisons.csv",
        analysis="results/{run}/analysis.json",
        fidelity=every_fold("synthetic/{set}.fidelity.csv", set=USED_SETS),
    output:
        beside(
            "arms_forest",
            "arms_classes",
            "arms_gap",
            "arms_worth",
            "arms_usefulness",
            "arms_sweeps",
            "arms_map",
            "arms_ranks",
        ),
        forest=report(
            "results/{run}/figures/arms_forest.svg",
            caption="../captions/arms_forest.rst",
            category="Arms",
            labels={"figure": "arms beside their controls"},
        ),
        classes=report(
            "results/{run}/figures/arms_classes.svg",
            caption="../captions/arms_classes.rst",
            category="Arms",
            labels={"figure": "class by class"},
        ),
        gap=report(
            "results/{run}/figures/arms_gap.svg",
            caption="../captions/arms_gap.rst",
            category="Arms",
            labels={"figure": "validation beside test"},
        ),
        worth=report(
            "results/{run}/figures/arms_worth.svg",
            caption="../captions/arms_worth.rst",
            category="Arms",
            labels={"figure": "worth in real images"},
        ),
        usefulness=report(
            "results/{run}/figures/arms_usefulness.svg",
            caption="../captions/arms_usefulness.rst",
            category="Arms",
            labels={"figure": "fidelity against usefulness"},
        ),
        sweeps=report(
            "results/{run}/figures/arms_sweeps.svg",
            caption="../captions/arms_sweeps.rst",
            category="Arms",
            labels={"figure": "ratio and guidance"},
        ),
        map=report(
            "results/{run}/figures/arms_map.svg",
            caption="../captions/arms_map.rst",
            category="Arms",
            labels={"figure": "when it pays"},
        ),
        ranks=report(
            "results/{run}/figures/arms_ranks.svg",
            caption="../captions/arms_ranks.rst",
            category="Arms",
            labels={"figure": "mean ranks"},
        ),
    params:
        python=python,
        code=code("plot_arms"),
        places=PLACES,
        fidelity=of_each(USED_SETS, "repeat{repeat}/fold{fold}/synthetic/{name}.fidelity.csv"),
        settings=lambda wildcards: as_json({key: CONFIG[key] for key in ("arms", "synthetic_sets", "train_classifier")}),
    log:
        "results/{run}/logs/plot_arms/plot_arms.log",
    benchmark:
        "results/{run}/benchmarks/plot_arms/plot_arms.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.plot_arms"
        " --metrics {input.metrics:q}"
        " --comparisons {input.comparisons:q}"
        " --analysis {input.analysis:q}"
        " --forest {output.forest:q}"
        " --classes {output.classes:q}"
        " --gap {output.gap:q}"
        " --worth {output.worth:q}"
        " --fidelity {params.fidelity:q}"
        " --places {params.places:q}"
        " --usefulness {output.usefulness:q}"
        " --sweeps {output.sweeps:q}"
        " --map {output.map:q}"
        " --ranks {output.ranks:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule report:
    """The report: the answer in a sentence, evidence, data, leak certificate, settings, versions and run times."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        arms=all_arms,
        metrics="results/{run}/metrics.csv",
        comparisons="results/{run}/comparisons.csv",
        analysis="results/{run}/analysis.json",
        strata="results/{run}/strata.csv",
        leaks="results/{run}/leaks.csv",
        thresholds="results/{run}/thresholds.csv",
        training="results/{run}/training.csv",
        assess=every_fold("synthetic/{set}.{table}", set=USED_SETS, table=["assess.csv", "fidelity.csv", "assess.json"]),
        arm_figures=[
            f"results/{{run}}/figures/arms_{name}.svg"
            for name in ("forest", "classes", "gap", "worth", "usefulness", "sweeps", "map")
        ],
        training_figures=[f"results/{{run}}/figures/training_{name}.svg" for name in ("generators", "classifiers")],
        panels=expand(
            "results/{{run}}/figures/{figure}_repeat{repeat}_fold{fold}_{set}.svg",
            figure=["images", "closest"],
            repeat=REPEATS,
            fold=FOLDS,
            set=USED_SETS,
        ),
        data_figures=[f"results/{{run}}/figures/data_{name}.svg" for name in DATA_FIGURES],
        intensity="results/{run}/intensity.csv",
        left_out="results/{run}/left_out.csv",
        cost="results/{run}/cost.json",
        study="results/{run}/study.csv" if CONFIG["forensics"]["models"] else [],
        stress=(
            ["results/{run}/stress.csv", "results/{run}/stress_areas.csv", "results/{run}/figures/stress.svg"]
            if CORRUPTIONS
            else []
        ),
    output:
        page=report(
            "results/{run}/report.html",
            caption="../captions/report.rst",
            category="The page",
            labels={"page": "the whole run on one page"},
        ),
        tables=directory("results/{run}/tables"),
    params:
        python=python,
        code=code("report", "workflow_scripts/lib/page/report.html", BASE_STYLES, "benchmarks/judge_calibration.json"),
        template=lambda wildcards, input: own_path("workflow_scripts/lib/page/report.html"),
        repeats=len(REPEATS),
        folds=len(FOLDS),
        sets=USED_SETS,
        run_dir=lambda wildcards, output: str(Path(output.page).parent),
        # Only if it exists: the report does not wait for it. By its digest, so that the report follows its changes.
        study=lambda wildcards, input: ["--study", input.study] if input.study else [],
        forensics=lambda wildcards: views.forensics_flag(CONFIG)[0],
        forensics_digest=lambda wildcards: views.forensics_flag(CONFIG)[1],
        # The report links to the gallery where there is one.
        gallery=lambda wildcards: Path(in_run("gallery/index.html")).exists(),
        ledger=LEDGER,
        openings=lambda wildcards: views.digest(LEDGER, 8),
        settings=lambda wildcards: as_json({"report": CONFIG["report"], "config": stage_views.of_run(CONFIG)}),
    log:
        "results/{run}/logs/report/report.log",
    benchmark:
        "results/{run}/benchmarks/report/report.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.report"
        " --run-dir {params.run_dir:q}"
        " --repeats {params.repeats:q}"
        " --folds {params.folds:q}"
        " --sets {params.sets:q}"
        " --lockbox-ledger {params.ledger:q}"
        " {params.study:q} {params.forensics:q}"
        " --template {params.template:q}"
        " --out {output.page:q}"
        " --tables {output.tables:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
