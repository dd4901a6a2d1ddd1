"""What tests do to a server: faults on demand, and recordings of what clients sent, to be run again.

A server has none of this unless it is made with ``instruments``; then commands take a way through here.
"""

from kvserver.testing.faults import Faults, Rule, UnmetFaultError
from kvserver.testing.instruments import Instruments
from kvserver.testing.recording import Difference, Recording, RecordingError

__all__ = ["Difference", "Faults", "Instruments", "Recording", "RecordingError", "Rule", "UnmetFaultError"]
