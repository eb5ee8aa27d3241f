"""Test recovery from killed trainings and damaged videos."""
