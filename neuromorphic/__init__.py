"""Spiking cores, their mapping and on-chip network. The room is reserved; version 0.1 ships no machine here."""
