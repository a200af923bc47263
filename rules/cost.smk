# Prediction of a run's cost, from the measured rates of earlier runs.
#
#   snakemake --cores 4 cost --configfile presets/hpa.yaml     # predicts, and does nothing else
#
# Needs:  nothing but the config; it looks into results/*/ for earlier runs, and into benchmarks/rates.json
# Makes:  results/{run}/cost.json: hours, disk, memory and wall-clock; the report compares them with the facts


rule predict_cost:
    """Core-hours, GPU-hours, disk and wall-clock of the run on the cores that Snakemake was given."""
    input:
        # Earlier runs and the file of rates are no inputs: each new run would make all predictions again.
        unpack(from_config(given_images.known_tables)),
    output:
        "results/{run}/cost.json",
    params:
        python=python,
        code=code("predict_cost"),
        earlier=lambda wildcards: "results",
        rates=lambda wildcards, input: own_path("benchmarks/rates.json"),
        # Another number of cores changes the prediction, which only the report needs.
        settings=lambda wildcards: as_json(
            {"config": job_costs.counted(CONFIG)},
            **dict(zip(("cores", "gpus"), snakemake_checks.room(workflow), strict=True)),
        ),
    log:
        "results/{run}/logs/predict_cost/predict_cost.log",
    benchmark:
        "results/{run}/benchmarks/predict_cost/predict_cost.tsv"
    priority: 100  # before what it predicts
    localrule: True  # seconds, and the rates of earlier runs lie here
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=10,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.predict_cost"
        " --earlier {params.earlier:q}"
        " --rates {params.rates:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule cost:
    """The prediction alone, shown in its log."""
    input:
        in_run("cost.json"),
