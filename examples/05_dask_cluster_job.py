"""A fill job on a dask cluster: tiles are tasks, and a stopped job goes on where it stopped.

On this machine, with two worker processes and a simulated cube:

    python examples/05_dask_cluster_job.py

On a cluster, with stores that every worker can reach:

    python examples/05_dask_cluster_job.py cube.zarr filled.zarr --scheduler tcp://host:8786

SLURM: one task runs the scheduler, the others run workers, this script connects to them.

    #!/bin/bash
    #SBATCH --ntasks=8 --cpus-per-task=4 --mem-per-cpu=4G --time=02:00:00
    srun --ntasks=1 --overlap dask scheduler --scheduler-file scheduler.json &
    srun --ntasks=7 --overlap dask worker --scheduler-file scheduler.json --nthreads 4 &
    python examples/05_dask_cluster_job.py cube.zarr filled.zarr --scheduler-file scheduler.json

Kubernetes: with the operator of dask-kubernetes, in a pod of the same namespace.

    from dask_kubernetes.operator import KubeCluster
    cluster = KubeCluster(name="cubefill", image="an-image-with-cubefill", n_workers=8)
    # then pass --scheduler tcp://cubefill-scheduler:8786 to this script
"""

import argparse
import tempfile
from pathlib import Path

from distributed import Client, LocalCluster

import cubefill
from cubefill import simulate


def main() -> None:
    """Fill a cube on a cluster and print what came out."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        source, target = args.source, args.target
        if source is None:
            source, target = example_cube(Path(folder)), Path(folder) / "filled.zarr"
        with connect(args) as client:
            out = cubefill.run(
                source, target, method=args.method, ndvi=True, client=client, resume=True
            )
            print(f"{cubefill.__name__} wrote {', '.join(map(str, out.data_vars))} to {target}")
        if args.source is None:
            print(out["NDVI"].mean(("y", "x")).compute().to_series().round(3).to_string())


def connect(args: argparse.Namespace) -> Client:
    """A client of the given scheduler, or of a cluster of two processes on this machine."""
    if args.scheduler_file:
        return Client(scheduler_file=args.scheduler_file)
    if args.scheduler:
        return Client(args.scheduler)
    return Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))


def example_cube(folder: Path) -> Path:
    """A store with a simulated cube of red and near infrared."""
    scene = simulate.scene(size=128, dates=12, bands=("B04", "B08"), sar=False, dem=False)
    cubefill.write_cube(scene.cube, folder / "cube.zarr")
    return folder / "cube.zarr"


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Fill a cube on a dask cluster.")
    parser.add_argument("source", nargs="?", help="store with a cube; default: a simulated one")
    parser.add_argument("target", nargs="?", help="store to write")
    parser.add_argument("--scheduler", help="address, such as tcp://host:8786")
    parser.add_argument("--scheduler-file", help="file that the scheduler wrote")
    parser.add_argument("--method", default="auto")
    args = parser.parse_args()
    if args.source is not None and args.target is None:
        parser.error("source without target: use both")
    return args


if __name__ == "__main__":
    main()
