"""Two nodes, each with a network of its own, train what two processes of one node train, to the bit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from support.tiny import tiny_config

from distilora.config.parse import to_tree

pytestmark = pytest.mark.slow
PREFIX, PORT, MINUTES = "10.213.7", 29533, 4  # addresses that lie in no other network of the tests
ADAPTER = "model/adapter/adapter_model.safetensors"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Names of two network namespaces that a cable joins: PREFIX.1 and PREFIX.2."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root, and the command ip")
    names = [f"distilora-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", "cable1", "netns", names[0], "type", "veth", "peer", "name", "cable2", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine gives no network namespaces: {error.stderr.strip()}")
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"{PREFIX}.{number}/24", "dev", f"cable{number}")
            for device in ("lo", f"cable{number}"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def accelerate_config(rank: int) -> dict[str, object]:
    """The file that `accelerate config` writes on node `rank` of two, one process each; the run's own device is used."""
    return {
        "compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "machine_rank": rank, "num_machines": 2,
        "num_processes": 2, "main_process_ip": f"{PREFIX}.1", "main_process_port": PORT, "main_training_function": "main",
        "mixed_precision": "no", "rdzv_backend": "static", "same_network": True, "use_cpu": False,
    }  # fmt: skip


def test_two_nodes_are_one(nodes: list[str], encoder: Path, reviews: Path, tmp_path: Path) -> None:
    changes = {"training__epochs": 2, "training__token_budget": 64, "adapter__last_blocks": 1}
    for name in ("one", "two"):
        config = tiny_config(tmp_path / name, reviews, encoder, **changes)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(to_tree(config)), "utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}
    one = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "distilora",
        "train",
    ]
    done = subprocess.run(
        [*one, str(tmp_path / "one.yaml")], capture_output=True, text=True, env=environment, timeout=60 * MINUTES
    )
    assert done.returncode == 0, done.stderr
    processes = []
    for rank, node in enumerate(nodes):
        (tmp_path / f"node{rank}.yaml").write_text(yaml.safe_dump(accelerate_config(rank)), "utf-8")
        launch = ["ip", "netns", "exec", node, sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                  str(tmp_path / f"node{rank}.yaml"), "-m", "distilora", "train", str(tmp_path / "two.yaml")]  # fmt: skip
        own = environment | {"GLOO_SOCKET_IFNAME": f"cable{rank + 1}"}
        processes.append(subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own))
    try:
        said = [process.communicate(timeout=60 * MINUTES)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    assert ["encoder: " in one for one in said] == [True, False]  # the first node alone speaks
    weights = [load_file(tmp_path / name / ADAPTER) for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
