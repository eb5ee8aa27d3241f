"""Faults on purpose: killed trainings and damaged videos."""
