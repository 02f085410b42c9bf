"""The simulator of the whole: a cluster, or a server with its drives, in one thread, in made-up time, from a seed.

The code that runs is the code that ships: gateways, router, members, hosts, replicas, peers and their frames, shard
stores, volumes, upkeep, the map's keeper. What is under it is made up, and every file here says at its top which
faults are legal:

    loop.py         time, order, processes that die between any two of their steps; threads.py: threads as greenlets
    network.py      connections over links that lose, delay, cut, reset, and bring what was given up late
    disks.py        disks that lose, tear, fill, slow down, fail once or for good; files.py: system calls on them
    leveldb.py      LevelDB as a model
    coordinator.py  documents with compare-and-swap, reached late, twice or not at all
    world.py        machines and clients' way in; cluster.py: nodes and gateways; server.py: the single server with its drives
    workload.py     what clients do: objects.py, versions.py, aging.py, settings.py and policies.py have areas each; clients.py:
                    how they try again as SDKs do, and what they note
    judge.py        what must hold of what they were told
    faults.py       the faults of a seed; atlas.py: kept within what the README promises; made.py: some made for one rule
    run.py          seeds from the command line
    broken.py       faults put back, which must be found; rules.py: rules left out

After the faults the cluster must become whole by itself, and then everything acknowledged must be there.

What is not simulated, and what covers it:

| what | by |
|---|---|
| the S3 endpoint: HTTP, signatures, policies, who may what | tests/server, tests/access, tests/s3, tests/clients |
| how LevelDB finds its bytes, its own system calls at a power failure | tests/crash/test_power_loss.py, tests/cluster/test_power.py |
| certificates and TLS between peers | tests/peer/test_tcp.py |
| etcd and Kubernetes as coordinators, and their clients | tests/cluster/test_coordinator.py, tests/kube |
| a process that starts itself again in place, its sockets kept open | tests/server/test_dying_drive.py, tests/test_restart.py |
| `--workers`: gateways over a Unix socket | tests/server/test_running.py |
| how a node is put together (server/standalone.py, server/cluster.py): `Node.run` and `Server.run` repeat it | tests/cluster/test_six_nodes.py |
| nodes that are added and taken away by a planner | tests/cluster/test_six_nodes.py, tests/sim/test_moves.py, tests/kube |
| drives that are added to a server, drained and taken away | tests/crash/test_growing_points.py, tests/cluster/test_growing.py, tests/server/test_growing_drives.py |
| directories that were made and not synced; small files that are damaged on the disk | tests/crash/test_power_loss.py, tests/damage.py |
| two instructions of one process that really run at the same time | nothing: one thread has the interpreter lock |
| events and their receivers, encryption, inventory, rewrapping | tests/events, tests/encryption |
"""
