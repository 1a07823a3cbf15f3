"""Units in gates: synthesis with Yosys, cells and area, and what toggles in the netlists."""
