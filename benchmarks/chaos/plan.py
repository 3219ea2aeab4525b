"""Which faults there are, how long each lasts, and which alerts have to fire."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.chaos.faults import (
    EndedByOperator,
    Fault,
    FillDisk,
    Freeze,
    Kill,
    Misbehave,
    TakeMemory,
    Together,
)

REPLICA = "ServeReplica:minilm--fp32:"
OBEDIENT = "ServeReplica:minilm--obedient:"
GATEWAY = "ServeReplica:gateway:"
QUALITY = "ServeReplica:quality:"
CONTROLLER = "ServeController"
HAPROXY = "haproxy.cfg"

MISLED = ("minilm:obedient",)
ALL = ("minilm:fp32", "minilm:int8-dynamic", *MISLED, "smollm2:q4_1")


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault and its time.

    Attributes:
        what: In words, for the table.
        fault: What is done.
        least_s: Seconds from its begin to its end.
        most_s: Likewise, if alerts that have to fire have not by then.
        alerts: Those that have to.
        needs_disk: Whether it is about the small disk.
        may_lose: Variants of which requests may be lost that are sent while it lasts.
    """

    what: str
    fault: Fault
    least_s: float = 0
    most_s: float = 0
    alerts: tuple[str, ...] = ()
    needs_disk: bool = False
    may_lose: tuple[str, ...] = ()


FAULTS = {
    "kill-replica": Planned("SIGKILL of a replica", Kill(REPLICA)),
    "kill-gateway": Planned("SIGKILL of a gateway", Kill(GATEWAY, most=1)),
    "kill-quality": Planned("SIGKILL of the quality process", Kill(QUALITY)),
    "kill-haproxy": Planned(
        "SIGKILL of HAProxy", Kill(HAPROXY), alerts=("IngressInterrupted",), may_lose=ALL
    ),
    "kill-controller": Planned("SIGKILL of Ray Serve's controller", Kill(CONTROLLER)),
    "stop-controller": Planned(
        "SIGSTOP of Ray Serve's controller", Freeze(CONTROLLER), 20, 120, ("ControllerSilent",)
    ),
    "stop-replica": Planned("SIGSTOP of a replica", Freeze(REPLICA), 10, 10),
    "stop-gateway": Planned("SIGSTOP of the gateway", Freeze(GATEWAY), 10, 10),
    "full-disk": Planned(
        "a full disk under artifacts and evidence",
        FillDisk(),
        20,
        200,
        ("EvidenceNotKept",),
        needs_disk=True,
    ),
    "full-disk-restart": Planned(
        "a full disk on which a replica and the quality process start",
        Together((FillDisk(), Kill(REPLICA), Kill(QUALITY))),
        20,
        20,
        needs_disk=True,
    ),
    "memory": Planned("memory taken but for 3 GiB", TakeMemory(), 20, 20),
    "hang": Planned(
        "a variant that hangs",
        Misbehave("hang"),
        20,
        150,
        ("RequestsFailing",),
        may_lose=MISLED,
    ),
    "nan": Planned(
        "a variant that computes NaN, until its replica is ended by hand",
        # A replacement whose first probe gives NaN has failed, and nobody tries again.
        Together((EndedByOperator(OBEDIENT), Misbehave("nan"))),
        20,
        280,
        ("RequestsFailing", "VariantDown"),
        may_lose=MISLED,
    ),
    "unopenable": Planned(
        "SIGKILL of a replica that cannot load again",
        Together((Misbehave("unopenable"), Kill(OBEDIENT))),
        20,
        20,
    ),
    "slow": Planned(
        "a variant ten times slower",
        Misbehave("slow"),
        20,
        150,
        ("LatencyBudgetBurnsFast",),
        # On a CPU where that is slower than the load comes, requests end at their deadline.
        may_lose=MISLED,
    ),
}
