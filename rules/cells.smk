# Single cells out of whole fields of view, before anything else reads them:
#
#   snakemake --cores 4 cells --configfile fields.yaml
#
# Needs:  the folder of fields and its tables (fetched images are made first), and data.cells
# Makes:  results/{run}/cells/: images/, table.csv, groups.csv, nuclei.csv, left_out.csv, about.json, index.html


rule cut_cells:
    """A square around each nucleus of the fields, as a folder of images with a table."""
    input:
        unpack(from_config(given_images.fields_to_cut)),
    output:
        **({"groups": "results/{run}/cells/groups.csv"} if CONFIG["data"]["groups"] else {}),
        images=directory("results/{run}/cells/images"),
        table="results/{run}/cells/table.csv",
        nuclei="results/{run}/cells/nuclei.csv",
        left_out="results/{run}/cells/left_out.csv",
        about="results/{run}/cells/about.json",
        page="results/{run}/cells/index.html",
    params:
        python=python,
        code=code("cut_cells", "workflow_scripts/lib/page/fields.html", BASE_STYLES),
        raw=raw_flags,
        folder="results/{run}/cells",
        template=lambda wildcards, input: own_path("workflow_scripts/lib/page/fields.html"),
        settings=lambda wildcards: as_json(stage_views.cutting(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/cut_cells/cut_cells.log",
    benchmark:
        "results/{run}/benchmarks/cut_cells/cut_cells.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.cut_cells"
        " {params.raw}"
        " --template {params.template:q}"
        " --out {params.folder:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule cells:
    """The cells alone, with a page on which to see whether they were found."""
    input:
        from_config(given_images.cells_page),
