"""The environment that Ray starts with, and the script that starts HAProxy."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Le

from serving.app import ray_environment
from serving.app.ray_environment import (
    CLUSTER_SETTINGS,
    METRICS_PORT,
    prepare_node_environment,
    prepare_ray_environment,
)
from serving.config import ServerConfig

LONGEST_S = 299.5
HAPROXY_CFG = """global
    stats socket /run/admin.sock
frontend prometheus
    bind :{metrics}
    http-request use-service prometheus-exporter
frontend stats
    bind *:{stats}
frontend other
    bind :{metrics}0
    bind *:{stats} ssl
    bind 10.0.0.1:{stats}
    bind *:8000
"""


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch) -> Iterator:
    """Prepares the environment around an HAProxy that only prints its arguments."""
    binary = tmp_path / "haproxy-binary"
    binary.write_text('#!/bin/sh\necho "pid $$"\nfor a in "$@"; do echo "$a"; done\n')
    binary.chmod(0o700)
    monkeypatch.setattr(ray_environment, "_haproxy_binary", lambda: str(binary))
    made: list[Path] = []

    def call(host: str = "127.0.0.1") -> Path:
        made.append(prepare_ray_environment(host, {"minilm--fp32": 2}, LONGEST_S))
        return made[-1]

    yield call
    for folder in made:
        shutil.rmtree(folder)


def test_a_node_refuses_nobody_and_leaves_its_head_s_ports_alone(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(ray_environment, "_haproxy_binary", lambda: "/bin/true")
    for key in [key for key in os.environ if key.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(key)
    before = dict(os.environ)
    folder = prepare_node_environment("127.0.0.1")
    try:
        edits = (folder / "answers.sed").read_text()
        assert "errorfile 503" in edits
        assert " 429 " not in edits
        assert os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(folder / "haproxy")
        assert os.environ["RAY_AUTH_MODE"] == "token"
        # Serve's controller reads those on the head, for all nodes.
        assert "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT" not in os.environ
        assert "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT" not in os.environ
    finally:
        shutil.rmtree(folder)
        os.environ.clear()
        os.environ.update(before)


def test_ray_gets_its_settings(prepare) -> None:
    prepare()
    expected = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "GOMP_SPINCOUNT": "10000",
        "OMP_WAIT_POLICY": "active",
        "RAY_worker_niceness": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert {name: os.environ.get(name) for name in expected} == expected


def test_what_ticks_in_an_idle_service_is_slowed_on_clusters_too(prepare) -> None:
    prepare()
    for name in ("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "RAY_SERVE_CONTROL_LOOP_INTERVAL_S"):
        assert os.environ[name] == CLUSTER_SETTINGS[name]
    # Ray's own defaults, in milliseconds and seconds.
    assert int(CLUSTER_SETTINGS["RAY_SERVE_METRICS_EXPORT_INTERVAL_MS"]) > 100
    assert 0.1 < float(CLUSTER_SETTINGS["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"]) <= 1


def test_no_request_is_given_up_before_its_deadline(prepare) -> None:
    prepare()
    bounds = [
        metadata.le
        for name in ("request_timeout_s", "generation_timeout_s")
        for metadata in ServerConfig.model_fields[name].metadata
        if isinstance(metadata, Le)
    ]
    assert bounds == [3_600, 3_600]
    on_clusters = 3_600
    for settings, longest_s in ((os.environ, LONGEST_S), (CLUSTER_SETTINGS, on_clusters)):
        # Of one that a new HAProxy has replaced, and of a server that says nothing.
        assert longest_s < int(settings["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) < longest_s + 60
        assert longest_s < int(settings["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]) < longest_s + 60


def test_a_dead_haproxy_is_noticed_within_seconds() -> None:
    name = "PROXY_HEALTH_CHECK_PERIOD_S"
    program = (
        "from ray.serve._private import constants as c; "
        f"print(c.{name} * c.PROXY_HEALTH_CHECK_UNHEALTHY_THRESHOLD)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **CLUSTER_SETTINGS},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) <= 6  # 30 of its own accord


def test_only_a_cluster_has_ray_s_metrics_page_and_dashboard(prepare) -> None:
    prepare()
    name = "RAY_enable_metrics_collection"
    assert os.environ[name] == "0"
    assert name not in CLUSTER_SETTINGS


def test_every_service_has_a_token_and_a_private_folder_of_its_own(prepare) -> None:
    first, token = prepare(), os.environ["RAY_AUTH_TOKEN"]
    second = prepare()
    assert first != second
    assert second.stat().st_mode & 0o777 == 0o700
    assert len(token) == 64
    assert token != os.environ["RAY_AUTH_TOKEN"]


def test_haproxy_s_files_lie_in_the_private_folder(prepare) -> None:
    folder = prepare()
    names = ("CONFIG_FILE_LOC", "SOCKET_PATH", "METRICS_SOCKET_PATH", "SERVER_STATE_FILE")
    for name in ("BINARY_PATH", *names):
        assert Path(os.environ[f"RAY_SERVE_HAPROXY_{name}"]).parent == folder


def test_a_socket_s_path_leaves_room_for_what_ray_appends(prepare) -> None:
    # A folder named after the node, and what HAProxy adds while it takes over the socket.
    longest = prepare() / ("0" * 56) / "metrics.sock.4194304.tmp"
    assert len(str(longest)) <= 107


def sample(metrics: str, stats: str) -> str:
    return HAPROXY_CFG.format(metrics=metrics, stats=stats)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.0.7", "0.0.0.0"])
def test_the_script_binds_haproxy_s_own_pages_to_the_host(prepare, host: str) -> None:
    folder = prepare(host)
    metrics = os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"]
    stats = os.environ["RAY_SERVE_HAPROXY_STATS_PORT"]
    config = folder / "haproxy.cfg"
    config.write_text(sample(metrics, stats))
    script = os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]
    subprocess.run([script, "-f", config, "-x", "a b"], check=True, capture_output=True)
    before, after = sample(metrics, stats).splitlines(), config.read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        (f"    bind :{metrics}", f"    bind {host}:{metrics}"),
        (f"    bind *:{stats}", f"    bind {host}:{stats}"),
    ]


def test_haproxy_is_not_started_with_a_file_that_could_not_be_edited(prepare) -> None:
    folder = prepare()
    script = os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]
    absent = folder / "absent.cfg"  # which ``sed`` can write as little as on a full disk
    started = subprocess.run([script, "-f", absent], capture_output=True, text=True)
    assert (started.returncode, started.stdout) == (1, "")
    assert f"{absent} cannot be edited" in started.stderr


def test_the_script_becomes_haproxy_with_the_same_process_and_arguments(prepare) -> None:
    folder = prepare()
    (folder / "haproxy.cfg").write_text("")
    arguments = ["-W", "-f", str(folder / "haproxy.cfg"), "two words"]
    process = subprocess.Popen(
        [str(folder / "haproxy"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    output, _ = process.communicate(timeout=10)
    assert output.splitlines() == [f"pid {process.pid}", *arguments]


def test_without_haproxy_ray_s_own_proxy_is_used(prepare, monkeypatch) -> None:
    monkeypatch.setattr(ray_environment, "_haproxy_binary", lambda: None)
    folder = prepare()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert list(folder.iterdir()) == []


def test_a_system_that_is_not_linux_has_no_haproxy(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ray_environment._haproxy_binary() is None


def test_ports_that_are_taken_are_not_used(prepare) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ray_environment._free_port(port) != port
    prepare()
    ports = {os.environ[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("METRICS", "STATS")}
    assert len(ports) == 2
    assert METRICS_PORT > 1024
