"""The parts of ci/gpu; the standard library alone."""
