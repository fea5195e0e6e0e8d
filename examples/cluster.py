"""A sweep on a Ray cluster.

On a cluster that runs (`ray start --head` on one node, `ray start --address ...` on the others), on a node:

    python examples/cluster.py auto /shared/lorasweep

Without arguments it starts two nodes on this machine that stand in for a cluster.
"""

import sys
import tempfile

import lorasweep

cluster = None
if len(sys.argv) == 3:
    address, storage = sys.argv[1:]
else:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    address, storage = cluster.address, tempfile.mkdtemp()

try:
    sweep = lorasweep.run(
        address=address,
        storage=storage,  # a folder that all nodes share, or a URI such as s3://bucket/lorasweep
        gpus_per_trial=0,  # leave it out to take a GPU per trial; 0.25 runs four trials on each
        trials=3,
        epochs=1,
        max_train_rows=300,
    )
    print(sweep.trials)
    print(sweep.winner.id, sweep.winner.hyperparameters, sweep.winner.test)
finally:
    if cluster is not None:
        cluster.shutdown()
