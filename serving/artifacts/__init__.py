"""Artifacts: what is prepared once of a source, kept in a store and opened by every replica."""

from serving.artifacts.ensuring import ensure
from serving.artifacts.identity import key_of
from serving.artifacts.key import ArtifactKey
from serving.artifacts.manifest import Manifest
from serving.artifacts.preparing import PreparingEvent, prepare_all
from serving.artifacts.request import AgreementFloor, ArtifactRequest, CalibrationOrigin
from serving.artifacts.store import Artifact, ArtifactStore

__all__ = [
    "AgreementFloor",
    "Artifact",
    "ArtifactKey",
    "ArtifactRequest",
    "ArtifactStore",
    "CalibrationOrigin",
    "Manifest",
    "PreparingEvent",
    "ensure",
    "key_of",
    "prepare_all",
]
