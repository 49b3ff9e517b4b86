"""Telemetry in, figures out."""
