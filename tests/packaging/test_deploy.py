"""What deploys the service passes the linters of its formats, and agrees with the service's own times. Nothing here is run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DRAIN = 30  # --drain-seconds by default


def linted(name: str, *words: str) -> None:
    done = subprocess.run([Path(sys.executable).parent / name, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def manifests() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_the_dockerfile() -> None:
    linted("hadolint", str(DEPLOY / "Dockerfile"))
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_the_manifests() -> None:
    linted("kubernetes-validate", "--strict", str(DEPLOY / "kubernetes.yaml"))
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    words = container["args"]
    grace = int(words[words.index("--grace") + 1])
    assert pod["terminationGracePeriodSeconds"] > grace + DRAIN
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert manifests()["PodDisruptionBudget"]["spec"]["minAvailable"] < manifests()["Deployment"]["spec"]["replicas"]


def test_the_compose_file() -> None:
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN
