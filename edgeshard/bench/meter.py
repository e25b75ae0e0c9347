"""Measure the processor time, bytes and memory that a system uses during a trial."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

from edgeshard.bench import resource_usage
from edgeshard.bench.measurement import ResourcesUsed
from edgeshard.bench.system import System


class ResourceMeter:
    """Counts what agents, servers and this process (which may do a system's last work) use from now on.

    Args:
        system: the started system.
        agents: the agents' process ids.
        folder: a folder on the disk whose writes are counted.
    """

    def __init__(self, system: System, agents: Sequence[int], folder: Path) -> None:
        self._system = system
        self._agents = agents
        self._folder = folder
        gc.collect()
        os.sync()  # so that no earlier write reaches the disk during the trial
        self._device_before = resource_usage.device_bytes_written(folder)
        self._before = self._usage()

    def _usage(self) -> resource_usage.ProcessUsage | None:
        servers = self._system.servers()
        if servers is None or not resource_usage.is_supported():
            return None
        return resource_usage.process_usage([*self._agents, os.getpid(), *resource_usage.with_descendants(servers)])

    def read(self) -> ResourcesUsed:
        """Return what was used since the beginning."""
        before, after, servers = self._before, self._usage(), self._system.servers()
        if before is None or after is None or servers is None:
            return ResourcesUsed()
        used = after - before
        servers = resource_usage.with_descendants(servers)
        memory = resource_usage.memory_bytes([*self._agents, *servers])
        peak = resource_usage.peak_memory_bytes(servers)
        return ResourcesUsed(used.cpu_s, self._written_bytes(), used.dirtied_bytes, memory, peak)

    def _written_bytes(self) -> int | None:
        os.sync()  # what is still in the page cache counts too
        before, after = self._device_before, resource_usage.device_bytes_written(self._folder)
        return None if before is None or after is None else after - before
