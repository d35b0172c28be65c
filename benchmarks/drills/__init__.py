"""Drills: a whole HeartGuard on a real InfluxDB under attack, killed, hung, copied. ``python -m benchmarks.drills``."""
