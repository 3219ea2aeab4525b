"""How a replica comes to its access to the node's cores."""

from __future__ import annotations

import fcntl
import logging

from serving.cores.exclusive import ExclusiveCores
from serving.cores.turn import CoreTurn, shared_folder
from serving.cores.unshared import UnsharedCores
from serving.errors import MayPass
from serving.machine.cores import core_numbers
from serving.seams import Cores, DeviceName

logger = logging.getLogger("ray.serve.quantserve")


def join(device: DeviceName, most: int, *, exclusive: bool = False) -> Cores:
    """Share the node's cores with its other replicas, where that is possible and of use.

    Args:
        device: Where the replica's kernels run; only those of the CPU need cores.
        most: Cores to take at most.
        exclusive: Take so many, and share them with nobody; may wait until they are free.

    Raises:
        MayPass: Others have the exclusive cores that are asked for.
    """
    if device != "cpu" or not hasattr(fcntl, "F_OFD_SETLK"):
        return UnsharedCores(most)
    if exclusive:
        try:
            return ExclusiveCores(most, core_numbers(), shared_folder())
        except OSError as error:
            raise MayPass(f"cores: exclusive: {error}") from None
    try:
        return CoreTurn(most, core_numbers(), shared_folder())
    except OSError as error:
        logger.warning("the cores are not shared by turns: %s", error)
        return UnsharedCores(most)
