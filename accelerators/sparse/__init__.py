"""Machines that skip zeros: sparse formats with their indices, lanes that wait for one another, tiles that are skipped whole."""
