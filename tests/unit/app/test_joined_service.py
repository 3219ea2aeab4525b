"""Joining a cluster that is not there, or that serves already; all else needs real Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serving.app.joined_service import JoinedService
from serving.errors import StartError


def test_ray_s_client_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(StartError, match=r"^--address ray://head:10001: .* on a node of the"):
        JoinedService("ray://head:10001")


def test_where_no_cluster_is_the_message_says_what_starts_one(monkeypatch) -> None:
    def fail(**settings: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(
        StartError, match=r"^--address auto: cannot join: Could not .* Does `quantserve node`"
    ):
        JoinedService("auto")


def test_a_cluster_that_serves_already_is_left_alone(monkeypatch) -> None:
    left: list[bool] = []
    monkeypatch.setattr("ray.init", lambda **settings: None)
    monkeypatch.setattr("ray.shutdown", lambda: left.append(True))
    served = SimpleNamespace(applications={"gateway": None, "another": None})
    monkeypatch.setattr("ray.serve.status", lambda: served)
    with pytest.raises(StartError, match=r"the cluster serves already: another, gateway; end that"):
        JoinedService("10.0.0.1:6379")
    assert left == [True]
