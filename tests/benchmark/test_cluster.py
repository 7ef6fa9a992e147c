"""A cluster of several machines."""

import os
import subprocess
import sys
from pathlib import Path

from folder_runs import assert_same_records, run_records
from segfaith.results.records.runs import load_run


def test_a_node_that_is_lost_costs_no_sample(deadly: Path, tmp_path: Path) -> None:
    """A cluster of two machines, as Ray's own tests make it: one is taken away while it measures."""
    script = tmp_path / "cluster.py"
    script.write_text(
        f"""
import ray
from ray.cluster_utils import Cluster
from pathlib import Path
from folder_runs import content
from segfaith.benchmark.pool import Pool
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "object_store_memory": 10**8}})
other = cluster.add_node(num_cpus=1, object_store_memory=10**8)
cluster.wait_for_nodes()
with Pool(cluster.address) as own:
    own.hire(2, 1, gpu=False)
    prepared = prepare(make_settings(content({str(deadly)!r})))
    directory = Path({str(tmp_path / "together")!r})
    def once(sample_id):
        if other in cluster.list_all_nodes():  # with a worker that measures, or loads its model
            cluster.remove_node(other, allow_graceful=False)
            print("removed", flush=True)
    run_shards(prepared, directory, open_directory(directory, prepared), once, own.measure)
cluster.shutdown()
print("done")
"""
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": path, "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = [line for line in done.stdout.splitlines() if line in ("removed", "done")]  # Ray talks of the lost node too
    assert told == ["removed", "done"], done.stdout + done.stderr
    alone = run_records(deadly, tmp_path / "alone")
    assert_same_records(alone, load_run(tmp_path / "together").records)
