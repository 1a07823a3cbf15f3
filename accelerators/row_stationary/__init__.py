"""Row-stationary arrays (Eyeriss): spec, mapping with its closed forms, run-length compression, arithmetic, device."""
