"""Never compute twice."""
