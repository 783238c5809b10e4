"""Ray: connect, keep tasks at work, count, and submit jobs."""

from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.cluster.jobs import submit
from deep_piano.infra.cluster.scheduling import Silence, completed

__all__ = ["Silence", "completed", "connected", "submit"]
