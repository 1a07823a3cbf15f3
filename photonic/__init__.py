"""Optical meshes and engines. The room is reserved; version 0.1 ships no machine here."""
