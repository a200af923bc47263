"""Submit a job script of Snakemake as a Kubernetes Job, by kubectl; print the Job's name.

    python profiles/kubernetes/submit.py --image IMAGE --claim CLAIM --mount /shared ... SCRIPT

The working directory must lie on the volume of CLAIM. It stands at the same path in the pod."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def manifest(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The Job that runs a script in a folder."""
    wanted = {"cpu": str(args.cpus), "memory": f"{args.mem_mb}M"}
    limits = {"memory": wanted["memory"]} | ({"nvidia.com/gpu": str(args.gpus)} if args.gpus else {})
    container = {
        "name": "mixloc",
        "image": args.image,
        "command": ["/bin/sh", args.script],
        "workingDir": str(folder),
        "resources": {"requests": wanted | limits, "limits": limits},
        "volumeMounts": [{"name": "shared", "mountPath": args.mount}],
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": args.claim}}],
    }
    spec = {
        "backoffLimit": 0,  # Snakemake restarts what failed, with more memory
        "activeDeadlineSeconds": 60 * args.minutes,
        "template": {"spec": pod},
    }
    about = {"generateName": "mixloc-", "namespace": args.namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def main() -> None:
    """Read the command line, submit, print the name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="image with MixLoc's environment")
    parser.add_argument("--claim", required=True, help="claim of a volume that many pods can write to")
    parser.add_argument("--mount", required=True, help="path of that volume, here and in the pods")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--mem-mb", type=int, default=2000)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("script", help="written by Snakemake")
    args = parser.parse_args()
    folder = Path.cwd()
    if not folder.is_relative_to(args.mount):
        sys.exit(f"{folder} does not lie on the shared volume at {args.mount}, so no pod would find it")
    command = ["kubectl", "create", "--filename=-", "--output=jsonpath={.metadata.namespace}/{.metadata.name}"]
    made = subprocess.run(  # noqa: S603 (fixed words; the manifest goes in as text)
        command, input=json.dumps(manifest(args, folder)), stdout=subprocess.PIPE, text=True
    )
    if made.returncode:
        sys.exit(made.returncode)
    print(made.stdout.strip())


if __name__ == "__main__":
    main()
