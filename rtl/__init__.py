"""SystemVerilog units and the Python that runs them. The room is reserved; version 0.1 ships no unit here."""
