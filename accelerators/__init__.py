"""Machines that multiply matrices: the systolic array (``accelerators.systolic``)."""
