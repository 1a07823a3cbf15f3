"""Compiled cycle loop of a mesh of routers (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit

PORTS = 5
LOCAL = 4


@njit(cache=True, nogil=True, inline="always")
def _direction(flit, x, y, y_bits, payload_bits):
    """The output that a flit wants in the router at (x, y)."""
    to_y = (flit >> payload_bits) & ((1 << y_bits) - 1)
    to_x = flit >> (payload_bits + y_bits)
    if to_x != x:
        return 1 if to_x > x else 3
    if to_y != y:
        return 2 if to_y > y else 0
    return LOCAL


@njit(cache=True, nogil=True)
def mesh_cycles(
    rows, columns, x0, y0, y_bits, payload_bits, flits, packets, head, count, turn, held,
    source_first, source_next, source_flit, source_from, source_packet, numbered, entered,
    ready, cycles, until_empty, passed, log, record, in_valid, in_flit, in_ready, out_valid, out_flit,
):  # fmt: skip
    """Cycles of a mesh; returns how many ran and how many packets left.

    flits, packets: (routers, 5, depth) contents of the FIFOs and the numbers of their packets; head, count: (routers, 5); turn:
    (routers, 5) by output; held: (routers,) flits in a router. source_*: packets in order of their port, ``source_first``
    (ports + 1,) where each port's begin, ``source_next`` (ports,) the next of each, ``source_packet`` their places in
    ``entered``; packets are numbered from ``numbered`` on. ready: (pattern, ports). passed: (routers, 5, 5) flits by input and
    output. log: (room, 4) packet, cycle, port, flit of what left. The last five are written if ``record``.
    """
    depth = flits.shape[2]
    ports = rows * columns * PORTS
    left = 0
    waiting = source_flit.size
    for port in range(ports):
        waiting -= source_next[port] - source_first[port]
    inside = held.sum()
    # The moves of a cycle are all chosen before any is made; an exit is a negative port.
    from_port, to_port = np.empty(ports, np.int64), np.empty(ports, np.int64)
    asked = np.empty(PORTS, np.int64)
    for t in range(cycles):
        if until_empty and waiting == 0 and inside == 0:
            return t, left
        moves = 0
        if record:
            for port in range(ports):
                in_ready[t, port] = count[port // PORTS, port % PORTS] < depth
        for router in range(rows * columns):
            if held[router] == 0:
                continue
            row, column = router // columns, router % columns
            for entry in range(PORTS):
                asked[entry] = -1
                if count[router, entry]:
                    asked[entry] = _direction(
                        flits[router, entry, head[router, entry]], x0 + column, y0 + row, y_bits, payload_bits
                    )
            for output in range(PORTS):
                chosen = -1
                for k in range(PORTS):
                    candidate = (turn[router, output] + k) % PORTS
                    if asked[candidate] == output:
                        chosen = candidate
                        break
                if chosen < 0:
                    continue
                port = router * PORTS + output
                target = -1
                if output == 0 and row > 0:
                    target = (router - columns) * PORTS + 2
                elif output == 1 and column < columns - 1:
                    target = (router + 1) * PORTS + 3
                elif output == 2 and row < rows - 1:
                    target = (router + columns) * PORTS
                elif output == 3 and column > 0:
                    target = (router - 1) * PORTS + 1
                if target >= 0:
                    taken = count[target // PORTS, target % PORTS] < depth
                else:
                    taken = ready[t % ready.shape[0], port]
                if record:
                    out_valid[t, port] = True
                    out_flit[t, port] = flits[router, chosen, head[router, chosen]]
                if taken:
                    turn[router, output] = (chosen + 1) % PORTS
                    passed[router, chosen, output] += 1
                    from_port[moves] = router * PORTS + chosen
                    to_port[moves] = target if target >= 0 else -1 - port
                    moves += 1
                else:
                    turn[router, output] = chosen
        # What the sources offer is taken by what was free before anything moved.
        for port in range(ports):
            at = source_next[port]
            if at == source_first[port + 1] or source_from[at] > t:
                continue
            router, entry = port // PORTS, port % PORTS
            if record:
                in_valid[t, port] = True
                in_flit[t, port] = source_flit[at]
            if count[router, entry] < depth:
                place = (head[router, entry] + count[router, entry]) % depth
                flits[router, entry, place] = source_flit[at]
                packets[router, entry, place] = numbered + source_packet[at]
                count[router, entry] += 1
                held[router] += 1
                entered[source_packet[at]] = t
                source_next[port] = at + 1
                waiting -= 1
                inside += 1
        for move in range(moves):
            router, entry = from_port[move] // PORTS, from_port[move] % PORTS
            place = head[router, entry]
            flit, packet = flits[router, entry, place], packets[router, entry, place]
            head[router, entry] = (place + 1) % depth
            count[router, entry] -= 1
            held[router] -= 1
            if to_port[move] >= 0:
                router, entry = to_port[move] // PORTS, to_port[move] % PORTS
                place = (head[router, entry] + count[router, entry]) % depth
                flits[router, entry, place] = flit
                packets[router, entry, place] = packet
                count[router, entry] += 1
                held[router] += 1
            else:
                log[left, 0], log[left, 1], log[left, 2], log[left, 3] = packet, t, -1 - to_port[move], flit
                left += 1
                inside -= 1
    return cycles, left
