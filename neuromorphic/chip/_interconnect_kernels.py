"""Compiled loops of the on-chip network (numba): the exact event loop, and packets one after another.

A port is 8 · router + number: 0–3 links to the north, east, south and west, 4 the way out to the tile's cores, 5 the way in. A
queue is named the same way: 0–4 the inputs of a router, 5 the packets that wait in a tile to get in. Nothing is ever at port 7,
which stands for none. Times are whole picoseconds.

Arrays of the network: to: (ports,) queue behind a port, −1: none; back: (ports,) port before a queue; hop, hold: (ports,) time
to get through a port and time that it is taken; kind: (ports,) what it is; unit: (ports,) what it shares: itself, or a channel
between chips; router_of: (cores,); column, row: (routers,). Packets: first: (steps + 1,); source, target: (packets,) cores;
spike: (packets,) or empty, packets of one spike are one multicast; release: (packets,) seconds or empty, all at 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OUT = 4
IN = 5
NEVER = np.iinfo(np.int64).max
DIGIT = 11


@njit(cache=True, nogil=True)
def release_order(times, count, order, spare, bins):
    """Numbers of the first ``count`` times in ascending order, those of one time in their own order, into ``order``.

    A radix sort, because the packets of a step are some thousands and a comparison sort would take as long as their way.
    """
    low = high = times[0]
    ascending = True
    for k in range(count):
        order[k] = k
        ascending &= k == 0 or times[k - 1] <= times[k]
        low, high = min(low, times[k]), max(high, times[k])
    if ascending:
        return
    shift = 0
    while (high - low) >> shift:
        bins[:] = 0
        for k in range(count):
            bins[1 + (((times[k] - low) >> shift) & ((1 << DIGIT) - 1))] += 1
        for b in range(1 << DIGIT):
            bins[b + 1] += bins[b]
        for k in range(count):
            digit = ((times[order[k]] - low) >> shift) & ((1 << DIGIT) - 1)
            spare[bins[digit]] = order[k]
            bins[digit] += 1
        order[:count] = spare[:count]
        shift += DIGIT


# By 3 · sign of the way east + sign of the way south + 4: first along x. A table, because a branch would be guessed wrong.
TOWARD = np.array([3, 3, 3, 0, OUT, 2, 1, 1, 1], np.uint8)


@njit(cache=True, nogil=True)
def _toward(dx, dy):
    """The output towards a destination so far to the east and to the south."""
    return TOWARD[np.uint64(3 * ((dx > 0) - (dx < 0)) + (dy > 0) - (dy < 0) + 4)]


@njit(cache=True, nogil=True)
def _picoseconds(release, packet):
    return np.int64(np.rint(release[packet] * 1e12)) if release.size else np.int64(0)


@njit(cache=True, nogil=True)
def paths(first, source, target, release, router_of, column, row, chip_x, chip_y, hop, alone, longest, inside, received):
    """What does not depend on contention; returns the most links of the packets of a step.

    hop: (4,) picoseconds into a router, along x, along y, between chips. By step: alone: sum of the times at which the packets
    would be delivered were each alone; longest: their maximum; inside: packets that stay in their tile; received: by core.
    """
    most = 0
    for step in range(first.size - 1):
        links = 0
        for k in range(first[step], first[step + 1]):
            a, b = router_of[source[k]], router_of[target[k]]
            x, y = abs(column[a] - column[b]), abs(row[a] - row[b])
            crossed_x, crossed_y = abs(chip_x[a] - chip_x[b]), abs(chip_y[a] - chip_y[b])
            time = _picoseconds(release, k) + hop[0] + (crossed_x + crossed_y) * hop[3]
            time += (x - crossed_x) * hop[1] + (y - crossed_y) * hop[2]
            alone[step] += time
            longest[step] = max(longest[step], time)
            inside[step] += a == b
            received[step, target[k]] += 1
            links += x + y
        most = max(most, links)
    return most


@njit(cache=True, nogil=True)
def expand(first, neuron, core_of, route_first, route_core, sent_first, source, target, spike):
    """Packets of spikes, one a core that a neuron sends to, into the last three, (packets,) each, if they have room."""
    at = 0
    for step in range(first.size - 1):
        for k in range(first[step], first[step + 1]):
            n = neuron[k]
            for route in range(route_first[n], route_first[n + 1]):
                if source.size:
                    source[at], target[at], spike[at] = core_of[n], route_core[route], n
                at += 1
        sent_first[step + 1] = at


@njit(cache=True, nogil=True)
def pace(first, source, spike, begin, interval, release):
    """Releases (packets,) of packets that each core sends one after another, every ``interval`` from ``begin`` (cores,) on."""
    sent = np.zeros(begin.size, np.int64)
    for step in range(first.size - 1):
        sent[:] = 0
        for k in range(first[step], first[step + 1]):
            again = spike.size > 0 and k > first[step] and spike[k] == spike[k - 1] and source[k] == source[k - 1]
            sent[source[k]] += not again
            release[k] = begin[source[k]] + interval * (sent[source[k]] - 1)


@njit(cache=True, nogil=True)
def _account(step, here, hop, hold, unit, kind, held, used, busiest, load):
    """Notes the packets ``here`` (ports,) of a step: by port, by kind of port, and the least time that the busiest unit needs.

    That is until its last packet is through: those before it, each with the time it takes the unit, and the way into a router.
    """
    held[:] = 0
    for port in range(here.size):
        load[port] += here[port]
        used[step, kind[port]] += here[port]
        held[unit[port]] += here[port]
    for port in range(here.size):
        if here[port]:
            within = 0 if port & 7 == IN else hop[port & ~7 | IN]
            busiest[step] = max(busiest[step], within + (held[unit[port]] - 1) * hold[port] + hop[port])


@njit(cache=True, nogil=True)
def _grow(step_first, step_last, source, target, spike, router_of, column, row, to, child, leaf, leaf_next, root, lead):
    """Trees of the spikes of a step: paths from their source, each link once; returns how many spikes there are.

    child: (nodes, 4) the node behind each link, −1: none; leaf: (nodes,) first packet that ends there, ``leaf_next`` the others;
    root, lead: (spikes,) their first node and their first packet.
    """
    nodes = spikes = 0
    for k in range(step_first, step_last):
        if k == step_first or spike[k] != spike[k - 1] or source[k] != source[k - 1]:
            root[spikes], lead[spikes] = nodes, k - step_first
            child[nodes], leaf[nodes] = -1, -1
            nodes += 1
            spikes += 1
        node, router, goal = root[spikes - 1], router_of[source[k]], router_of[target[k]]
        while router != goal:
            output = _toward(column[goal] - column[router], row[goal] - row[router])
            if child[node, output] < 0:
                child[node, output] = nodes
                child[nodes], leaf[nodes] = -1, -1
                nodes += 1
            node, router = child[node, output], to[8 * router + output] >> 3
        leaf_next[k - step_first] = leaf[node]
        leaf[node] = k - step_first
    return spikes


@njit(cache=True, nogil=True)
def exact_steps(
    begin, end, first, source, target, spike, release, links_most, router_of, column, row,
    to, back, hop, hold, kind, unit, units, lane_first, lane_port, flow, flows, room, depth, pick,
    latency, total, busiest, used, load, delivered,
):  # fmt: skip
    """Steps ``begin`` to ``end``, each from an empty network: every router decides as soon as, and only when, something changes.

    At one instant, first all that arrives or gets free is noted, then every output that may pass something decides; what it
    decides is noticed nowhere before a later instant. So the order within an instant does not matter.

    Events of one delay follow one another, so that a queue for each delay keeps them in order: ``flow`` (2, ports) which one, for
    arriving behind a port and for leaving it; each has ``room``, a power of 2.

    lane_first, lane_port: ports of each channel, units from the number of ports on. depth: (queues,). pick: (5, 32) whose turn it
    is, by who is first and who asks. Written: latency, total, busiest: (steps,) last and sum of deliveries, see ``_account``;
    used: (steps, kinds); load: (ports,); delivered: (packets,) or empty.
    """
    ports = to.size
    # p, q, r, g, v are port, queue, router, flit and unit as unsigned numbers: numba need not ask of such an index whether it is
    # negative, which would take a fifth of the time.
    all_ports = np.uint64(ports)
    most = 0
    for step in range(begin, end):
        most = max(most, first[step + 1] - first[step])
    trees = spike.size > 0
    nodes = links_most + most if trees else most
    time, order, spare = np.empty(most, np.int64), np.empty(most, np.int32), np.empty(most, np.int32)
    bins = np.empty((1 << DIGIT) + 1, np.int32)
    child = np.empty((nodes if trees else 0, 4), np.int32)
    leaf = np.empty(nodes if trees else 0, np.int32)
    leaf_next, lead, root = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    # The flit behind each, in routers' queues and, from ``nodes`` on, in those of the tiles: a packet that gets into its router
    # faster than it makes way for the next is in both.
    behind = np.empty(2 * nodes + 1, np.int32)
    spill = 2 * nodes
    goal_x, goal_y = np.empty(most, np.int32), np.empty(most, np.int32)
    front, back_end, count = np.full(ports, -1, np.int32), np.full(ports, -1, np.int32), np.zeros(ports, np.int32)
    asks, left = np.zeros(ports, np.uint8), np.zeros(ports, np.uint8)
    turn = np.zeros(ports, np.uint8)
    free, woken = np.zeros(units, np.int64), np.zeros(units, np.uint8)
    lane_turn = np.zeros(lane_first.size, np.int32)
    awake, fresh = np.empty(units + 1, np.int32), np.empty(ports + 1, np.int32)
    here, held = np.zeros(ports, np.int64), np.zeros(units, np.int64)
    wrap = room - 1
    event_time = np.empty((flows, room), np.int64)
    event = np.empty((flows, room), np.int64)
    head, tail = np.zeros(flows, np.int64), np.zeros(flows, np.int64)
    for step in range(begin, end):
        start, packets = first[step], first[step + 1] - first[step]
        if packets == 0:
            continue
        sent = packets
        if trees:
            sent = _grow(
                start, start + packets, source, target, spike, router_of, column, row, to, child, leaf, leaf_next, root, lead
            )
        else:
            for k in range(packets):
                goal = router_of[target[start + k]]
                goal_x[k], goal_y[k] = column[goal], row[goal]
        for k in range(sent):
            time[k] = _picoseconds(release, start + (lead[k] if trees else k))
        release_order(time, sent, order, spare, bins)
        turn[:] = 0
        free[:] = 0
        lane_turn[:] = 0
        here[:] = 0
        at = 0
        last = 0
        whole = 0
        while True:
            now = time[order[at]] if at < sent else NEVER
            for f in range(flows):
                if head[f] != tail[f]:
                    now = min(now, event_time[f, np.uint64(head[f] & wrap)])
            if now == NEVER:
                break
            wakes = starts = 0
            while at < sent and time[order[at]] == now:
                k = order[at]
                at += 1
                queue = 8 * router_of[source[start + (lead[k] if trees else k)]] + IN
                flit = root[k] if trees else k
                behind[nodes + flit] = -1
                ahead = front[queue]
                fresh[starts] = queue
                starts += ahead < 0
                front[queue] = flit if ahead < 0 else ahead
                behind[spill if ahead < 0 else nodes + back_end[queue]] = flit
                back_end[queue] = flit
            for f in range(flows):
                h = head[f]
                e = tail[f]
                while h != e and event_time[f, np.uint64(h & wrap)] == now:
                    what = event[f, np.uint64(h & wrap)]
                    h += 1
                    if what >= 0:
                        q, g = np.uint64(what >> 32), np.uint64(what & 0xFFFFFFFF)
                        behind[g] = -1
                        ahead = front[q]
                        fresh[np.uint64(starts)] = q
                        starts += ahead < 0
                        front[q] = np.int64(g) if ahead < 0 else ahead
                        behind[np.uint64(spill if ahead < 0 else back_end[q])] = g
                        back_end[q] = g
                        continue
                    what = -1 - what
                    p, q = np.uint64(what >> 32), np.uint64(what & 0xFFFFFFFF)
                    v = np.uint64(unit[p])
                    asked = np.uint8(v >= all_ports or asks[p] != 0)
                    awake[np.uint64(wakes)] = v
                    wakes += asked & (woken[v] ^ 1)
                    woken[v] |= asked
                    left[q] -= 1
                    if left[q] == 0:
                        count[q] -= 1
                        front[q] = behind[np.uint64((nodes if what & 7 == IN else 0) + front[q])]
                        fresh[np.uint64(starts)] = q
                        starts += front[q] >= 0
                        before = np.uint64(back[q])
                        v = np.uint64(unit[before])
                        asked = np.uint8(asks[before] != 0)
                        awake[np.uint64(wakes)] = v
                        wakes += asked & (woken[v] ^ 1)
                        woken[v] |= asked
                head[f] = h
            for n in range(starts):
                queue = fresh[n]
                flit, router, entry = front[queue], queue >> 3, queue & 7
                if trees and entry != IN:
                    copies = 0
                    for output in range(5):
                        if (leaf[flit] if output == OUT else child[flit, output]) >= 0:
                            copies += 1
                            asks[8 * router + output] |= 1 << entry
                            u = unit[8 * router + output]
                            awake[wakes] = u
                            wakes += woken[u] ^ 1
                            woken[u] = 1
                    left[queue] = copies
                    continue
                port = queue
                if entry != IN:
                    r, g = np.uint64(router), np.uint64(flit)
                    port = 8 * router + _toward(goal_x[g] - column[r], goal_y[g] - row[r])
                left[np.uint64(queue)] = 1
                asks[np.uint64(port)] |= 1 if entry == IN else 1 << entry
                v = np.uint64(unit[np.uint64(port)])
                awake[np.uint64(wakes)] = v
                wakes += woken[v] ^ 1
                woken[v] = 1
            for n in range(wakes):
                u = np.int64(awake[np.uint64(n)])
                v = np.uint64(u)
                woken[v] = 0
                if free[v] > now:
                    continue
                lanes = 1
                base = 0
                if u >= ports:
                    base = lane_first[u - ports]
                    lanes = lane_first[u - ports + 1] - base
                for lane in range(lanes):
                    port = u
                    if u >= ports:
                        port = lane_port[base + (lane_turn[u - ports] + lane) % lanes]
                    p = np.uint64(port)
                    if asks[p] == 0:
                        continue
                    entry = np.int64(pick[turn[p], asks[p]])
                    goal = np.int64(to[p])
                    if goal >= 0 and count[np.uint64(goal)] >= depth[np.uint64(goal)]:
                        turn[p] = entry
                        continue
                    turn[p] = entry + 1 if entry < 4 else 0
                    asks[p] ^= 1 << entry
                    then = now + hold[p]
                    free[v] = then
                    here[p] += 1
                    output = port & 7
                    queue = port if output == IN else port - output + entry
                    flit = np.int64(front[np.uint64(queue)])
                    f = flow[1, p]
                    h = tail[f]
                    tail[f] = h + 1
                    event_time[f, np.uint64(h & wrap)] = then
                    event[f, np.uint64(h & wrap)] = -1 - ((np.int64(port) << 32) + queue)
                    if goal >= 0:
                        count[np.uint64(goal)] += 1
                        f = flow[0, p]
                        h = tail[f]
                        tail[f] = h + 1
                        event_time[f, np.uint64(h & wrap)] = now + hop[p]
                        event[f, np.uint64(h & wrap)] = (np.int64(goal) << 32) + (
                            child[flit, output] if trees and output != IN else flit
                        )
                    elif trees:
                        last = now
                        packet = leaf[flit]
                        while packet >= 0:
                            whole += now
                            if delivered.size:
                                delivered[start + packet] = now
                            packet = leaf_next[packet]
                    else:
                        last = now
                        whole += now
                        if delivered.size:
                            delivered[start + flit] = now
                    if u >= ports:
                        lane_turn[u - ports] = (lane_turn[u - ports] + lane + 1) % lanes
                    break
        latency[step], total[step] = last, whole
        _account(step, here, hop, hold, unit, kind, held, used, busiest, load)


@njit(cache=True, nogil=True)
def ordered_steps(
    begin, end, first, source, target, spike, release, links_most, router_of, column, row, to, hop, hold, pace_of, kind,
    unit, units, latency, total, busiest, used, load, delivered,
):  # fmt: skip
    """Steps ``begin`` to ``end``, one packet after another on all its way, in the order in which they get into the network.

    A unit serves a packet when the one before it, in that order, is through; queues hold everything. pace_of: (ports,) time from
    a packet to the next in a row: what the port is taken, or longer where the queue behind it is short.
    """
    ports = to.size
    most = 0
    for step in range(begin, end):
        most = max(most, first[step + 1] - first[step])
    trees = spike.size > 0
    nodes = links_most + 1 if trees else 0
    time, order, spare = np.empty(most, np.int64), np.empty(most, np.int32), np.empty(most, np.int32)
    enters = np.empty(most, np.int64)
    bins = np.empty((1 << DIGIT) + 1, np.int32)
    lead = np.empty(most + 1, np.int32)
    # Of the tree that grows: nodes behind each port, −1: none yet; when a packet is at a node, and when it got out there.
    child, there, out = np.empty((nodes, 4), np.int32), np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    free, here, held = np.zeros(units, np.int64), np.zeros(ports, np.int64), np.zeros(units, np.int64)
    for step in range(begin, end):
        start, packets = first[step], first[step + 1] - first[step]
        if packets == 0:
            continue
        sent = 0
        for k in range(packets):
            n = start + k
            if not trees or k == 0 or spike[n] != spike[n - 1] or source[n] != source[n - 1]:
                lead[sent] = k
                time[sent] = _picoseconds(release, n)
                sent += 1
        lead[sent] = packets
        free[:] = 0
        here[:] = 0
        release_order(time, sent, order, spare, bins)
        for n in range(sent):
            k = order[n]
            port = 8 * router_of[source[start + lead[k]]] + IN
            enters[k] = max(time[k], free[port])
            free[port] = enters[k] + pace_of[port]
            here[port] += 1
        release_order(enters, sent, order, spare, bins)
        last = 0
        whole = 0
        for n in range(sent):
            k = order[n]
            router = router_of[source[start + lead[k]]]
            begins = enters[k] + hop[8 * router + IN]
            if trees:
                child[0], there[0], out[0] = -1, begins, -1
                grown = 1
                for packet in range(start + lead[k], start + lead[k + 1]):
                    node, at, goal = 0, router, router_of[target[packet]]
                    while at != goal:
                        output = _toward(column[goal] - column[at], row[goal] - row[at])
                        port = 8 * at + output
                        if child[node, output] < 0:
                            u = unit[port]
                            now = max(there[node], free[u])
                            free[u] = now + pace_of[port]
                            here[port] += 1
                            child[node, output] = grown
                            child[grown], there[grown], out[grown] = -1, now + hop[port], -1
                            grown += 1
                        node, at = child[node, output], to[port] >> 3
                    if out[node] < 0:
                        port = 8 * at + OUT
                        out[node] = max(there[node], free[port])
                        free[port] = out[node] + pace_of[port]
                        here[port] += 1
                    last = max(last, out[node])
                    whole += out[node]
                    if delivered.size:
                        delivered[packet] = out[node]
                continue
            goal = router_of[target[start + k]]
            dx, dy = column[goal] - column[router], row[goal] - row[router]
            now = begins
            port = 8 * router + (1 if dx > 0 else 3)
            for leg in range(2):
                for _ in range(abs(dx) if leg == 0 else abs(dy)):
                    u = unit[port]
                    now = max(now, free[u])
                    free[u] = now + pace_of[port]
                    here[port] += 1
                    now += hop[port]
                    port = (to[port] & ~7) + (port & 7)
                port = (port & ~7) + (2 if dy > 0 else 0)
            port = (port & ~7) + OUT
            now = max(now, free[port])
            free[port] = now + pace_of[port]
            here[port] += 1
            last = max(last, now)
            whole += now
            if delivered.size:
                delivered[start + k] = now
        latency[step], total[step] = last, whole
        _account(step, here, hop, hold, unit, kind, held, used, busiest, load)
