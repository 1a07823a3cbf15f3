"""A unit's controller, command by command (numba).

It skips time: at each step it finds the earliest clock cycle at which each waiting request's next command may be issued, issues
the earliest of them and moves on. The tests hold its commands against those of a plain controller that asks a table of rules, and
replay them with a checker that knows no scheduler.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Commands of a trace.
READ, WRITE, ACTIVATE, PRECHARGE, PRECHARGE_ALL, REFRESH, REFRESH_BANK = 0, 1, 2, 3, 4, 5, 6

# Parameters of a unit (int64).
(RANKS, GROUPS, BANKS, BUSES, WINDOW, WRITE_HIGH, WRITE_LOW, HIT_LIMIT, REFRESH_MODE, BURST) = range(10)
(RCD_RD, RCD_WR, RP, RP_AB, RAS, RC, CL, CWL, CCD_S, CCD_L, RRD_S, RRD_L, FAW, WR, WTR_S, WTR_L, RTP) = range(10, 27)
(TURN, RANK_GAP, REFI, RFC, RFC_PB, RREFD) = range(27, 33)
PARAMETERS = 33
ALL_BANK, PER_BANK, NO_REFRESH = 0, 1, 2

# Counters of a unit (int64).
(HITS, MISSES, CONFLICTS, ACTIVATES, READS, WRITES, REFRESHES, BANK_REFRESHES, LAST) = range(9)
COUNTERS = 9

FAR = np.int64(1) << 58
_PRIORITIES = 4
_COLUMN, _ROW_ACTIVATE, _ROW_PRECHARGE, _OF_REFRESH, _NOTHING = 0, 1, 2, 3, 3

# Columns of a bank's state, of its lists (of reads, of writes) and of its prospect.
_ROW, _PRECHARGE_AT, _ACTIVATE_AT, _OVERTAKEN, _BARRED, _CLOSED_FOR = range(6)
_HEAD, _TAIL, _HIT = range(3)
_KIND, _TIME, _REQUEST = range(3)


@njit(cache=True, nogil=True)
def prospect(b, mode, limit, lists, state, ready_column, prospects):
    """The next command that a bank's waiting requests ask for, and when the bank allows it."""
    oldest = lists[mode, b, _HEAD]
    if oldest < 0 or state[b, _BARRED] > 0:
        prospects[b, _KIND] = _NOTHING
        prospects[b, _TIME] = FAR
        return
    request = lists[mode, b, _HIT]
    if request >= 0 and (request == oldest or state[b, _OVERTAKEN] < limit):
        prospects[b, _KIND] = _COLUMN
        prospects[b, _TIME] = ready_column[mode, b]
        prospects[b, _REQUEST] = request
    elif state[b, _ROW] >= 0:
        prospects[b, _KIND] = _ROW_PRECHARGE
        prospects[b, _TIME] = state[b, _PRECHARGE_AT]
        prospects[b, _REQUEST] = oldest
    else:
        prospects[b, _KIND] = _ROW_ACTIVATE
        prospects[b, _TIME] = state[b, _ACTIVATE_AT]
        prospects[b, _REQUEST] = oldest


@njit(cache=True, nogil=True)
def finish_times(issued, writing, order, par, clock_hz, out):
    """When the last data of each request are moved, in seconds and in the requests' own order."""
    for k in range(issued.size):
        latency = par[CWL] if writing[k] else par[CL]
        out[order[k]] = (issued[k] + latency + par[BURST]) / clock_hz


@njit(cache=True, nogil=True)
def schedule_units(first, last, starts, bank, row, writes, arrival, par, stop, issued, counters, commands, used):
    """``schedule`` for the units ``first`` to ``last``; requests are sorted by unit, and so are commands."""
    for u in range(first, last):
        a, b = starts[u], starts[u + 1]
        if b > a:
            room = commands[u] if commands.shape[0] else np.empty((0, 4), dtype=np.int64)
            used[u] = schedule(bank[a:b], row[a:b], writes[a:b], arrival[a:b], par, stop, issued[a:b], counters[u], room)


@njit(cache=True, nogil=True)
def schedule(bank, row, writes, arrival, par, stop, issued, counter, commands):
    """Serve the requests of a unit; returns how many commands were recorded.

    Args:
        bank: (n,) bank of each request, (rank · groups + group) · banks + bank.
        row: (n,) its row.
        writes: (n,) whether it writes.
        arrival: (n,) cycle from which the controller knows it; not decreasing.
        par: (PARAMETERS,) parameters.
        stop: cycle beyond which no command is issued.
        issued: (n,) receives the cycle of its column command (-1: not before ``stop``).
        counter: (COUNTERS,) receives the counts.
        commands: (m, 4) receives cycle, command, bank (or rank) and row or request; nothing beyond m, and nothing if empty.
    """
    n = bank.size
    ranks, groups, banks_in = par[RANKS], par[GROUPS], par[BANKS]
    of_rank = groups * banks_in
    banks = ranks * of_rank
    burst, cl, cwl = par[BURST], par[CL], par[CWL]
    window = par[WINDOW]
    two_buses = par[BUSES] == 2
    mode_of_refresh = par[REFRESH_MODE]
    group_of = np.empty(banks, dtype=np.int64)
    rank_of = np.empty(banks, dtype=np.int64)
    for b in range(banks):
        group_of[b] = b // banks_in
        rank_of[b] = b // of_rank

    # Of a bank: its open row, when it may be precharged and activated, how often its oldest request was overtaken, whether a
    # refresh bars it, whether its last row gave way to another request.
    state = np.zeros((banks, 6), dtype=np.int64)
    state[:, _ROW] = -1
    ready_column = np.zeros((2, banks), dtype=np.int64)  # tRCD
    limit = par[HIT_LIMIT]
    prospects = np.full((banks, 3), FAR, dtype=np.int64)
    prospects[:, _KIND] = _NOTHING
    floors = np.full(4, FAR, dtype=np.int64)
    chosen_for = 0
    group_column = np.zeros((2, ranks * groups), dtype=np.int64)
    rank_column = np.zeros((2, ranks), dtype=np.int64)
    group_activate = np.zeros(ranks * groups, dtype=np.int64)
    rank_activate = np.zeros(ranks, dtype=np.int64)
    rank_refresh = np.zeros(ranks, dtype=np.int64)  # earliest per-bank refresh after activates and refreshes
    last_four = np.full((ranks, 4), -FAR, dtype=np.int64)
    newest = np.zeros(ranks, dtype=np.int64)

    # Waiting requests, a list for each kind and bank, oldest first; the oldest that finds its row open.
    lists = np.full((2, banks, 3), -1, dtype=np.int64)
    following = np.full(n, -1, dtype=np.int64)
    charged = np.zeros(n, dtype=np.int8)  # 1: an activate was made for it, 2: after a precharge
    waiting = np.zeros(2, dtype=np.int64)

    # Refresh of a rank: 0 none due, 1 to precharge, 2 to refresh.
    refreshing = np.zeros(ranks, dtype=np.int64)
    interval = par[REFI] if mode_of_refresh == ALL_BANK else par[REFI] // of_rank
    due = np.full(ranks, FAR, dtype=np.int64)
    refreshed = np.zeros(ranks, dtype=np.int64)
    turn_of = np.zeros(ranks, dtype=np.int64)
    if mode_of_refresh != NO_REFRESH:
        for r in range(ranks):
            due[r] = interval * (r + 1) // ranks  # ranks take turns
    next_due = due.min()

    bus_row = np.int64(0)
    bus_column = np.int64(0)
    data_free = -FAR
    data_kind = 0
    data_rank = 0
    now = np.int64(0)
    mode = 0
    admitted = 0
    served = 0
    recorded = 0
    for i in range(n):
        issued[i] = -1

    while served < n:
        # Requests that have arrived enter in their order, while there is room for their kind.
        while admitted < n and arrival[admitted] <= now:
            kind = 1 if writes[admitted] else 0
            if waiting[kind] >= window:
                break
            b = bank[admitted]
            if lists[kind, b, _HEAD] < 0:
                lists[kind, b, _HEAD] = admitted
            else:
                following[lists[kind, b, _TAIL]] = admitted
            lists[kind, b, _TAIL] = admitted
            if lists[kind, b, _HIT] < 0 and state[b, _ROW] == row[admitted]:
                lists[kind, b, _HIT] = admitted
            waiting[kind] += 1
            admitted += 1
            if kind == mode:
                prospect(b, mode, limit, lists, state, ready_column, prospects)
        if mode == 0:
            if waiting[1] >= par[WRITE_HIGH] or (waiting[0] == 0 and waiting[1] > 0):
                mode = 1
        elif waiting[1] == 0 or (waiting[1] <= par[WRITE_LOW] and waiting[0] > 0):
            mode = 0

        if mode != chosen_for:
            chosen_for = mode
            for b in range(banks):
                prospect(b, mode, limit, lists, state, ready_column, prospects)

        # The earliest command: what a bank allows, and what its group, its rank and the buses allow.
        best_key, best_request, best_bank = FAR, n, -1
        if waiting[mode] > 0:
            gap = par[TURN] if mode != data_kind else np.int64(0)
            latency = cwl if mode == 1 else cl
            for r in range(ranks):
                apart = gap if r == data_rank else max(gap, par[RANK_GAP])
                column = max(now, bus_column, data_free + apart - latency, rank_column[mode, r])
                activate = max(now, bus_row, rank_activate[r], last_four[r, newest[r]] + par[FAW])
                precharge = max(now, bus_row)
                for g in range(r * groups, (r + 1) * groups):
                    floors[_COLUMN] = max(column, group_column[mode, g])
                    floors[_ROW_ACTIVATE] = max(activate, group_activate[g])
                    floors[_ROW_PRECHARGE] = precharge
                    for b in range(g * banks_in, (g + 1) * banks_in):
                        kind = prospects[b, _KIND]
                        key = (max(prospects[b, _TIME], floors[kind]) << 2) | kind
                        if key < best_key or (key == best_key and prospects[b, _REQUEST] < best_request):
                            best_key, best_request, best_bank = key, prospects[b, _REQUEST], b
        best_time, best_priority = best_key >> 2, int(best_key & 3)
        if best_key == FAR:
            best_time, best_priority = FAR, _PRIORITIES
        if mode_of_refresh != NO_REFRESH:
            for r in range(ranks):
                if refreshing[r] == 0:
                    continue
                time = max(now, bus_row)
                first = r * of_rank if mode_of_refresh == ALL_BANK else r * of_rank + turn_of[r]
                end = first + of_rank if mode_of_refresh == ALL_BANK else first + 1
                if refreshing[r] == 1:
                    for b in range(first, end):
                        if state[b, _ROW] >= 0:
                            time = max(time, state[b, _PRECHARGE_AT])
                else:
                    for b in range(first, end):
                        time = max(time, state[b, _ACTIVATE_AT])
                    if mode_of_refresh == PER_BANK:
                        time = max(time, rank_refresh[r])
                if time < best_time or (time == best_time and best_priority > _OF_REFRESH):
                    best_time, best_priority, best_request, best_bank = time, _OF_REFRESH, n, r

        # What happens before it: an arrival, or a refresh that falls due.
        if admitted < n and arrival[admitted] > now and arrival[admitted] <= min(best_time, next_due):
            kind = 1 if writes[admitted] else 0
            if waiting[kind] < window:
                now = arrival[admitted]
                continue
        if next_due <= best_time:
            if next_due > stop:
                break
            r = int(np.argmin(due))
            now = max(now, due[r])
            first = r * of_rank if mode_of_refresh == ALL_BANK else r * of_rank + turn_of[r]
            end = first + of_rank if mode_of_refresh == ALL_BANK else first + 1
            refreshing[r] = 2
            for b in range(first, end):
                if state[b, _ROW] >= 0:
                    refreshing[r] = 1
                state[b, _BARRED] = 1
                prospect(b, mode, limit, lists, state, ready_column, prospects)
            due[r] = FAR
            next_due = due.min()
            continue
        if best_time > stop:
            break

        # Issue it.
        now = best_time
        b = best_bank
        command, record = 0, 0
        if best_priority == _COLUMN:
            request = best_request
            g, r = group_of[b], rank_of[b]
            bus_column = now + 1
            if not two_buses:
                bus_row = now + 1
            issued[request] = now
            if mode == 0:
                command = READ
                data_free = now + cl + burst
                state[b, _PRECHARGE_AT] = max(state[b, _PRECHARGE_AT], now + par[RTP])
                counter[READS] += 1
            else:
                command = WRITE
                data_free = now + cwl + burst
                state[b, _PRECHARGE_AT] = max(state[b, _PRECHARGE_AT], data_free + par[WR])
                group_column[0, g] = max(group_column[0, g], data_free + par[WTR_L])
                rank_column[0, r] = max(rank_column[0, r], data_free + par[WTR_S])
                counter[WRITES] += 1
            data_kind, data_rank = mode, r
            group_column[mode, g] = max(group_column[mode, g], now + par[CCD_L])
            rank_column[mode, r] = max(rank_column[mode, r], now + par[CCD_S])
            record = request
            if charged[request] == 0:
                counter[HITS] += 1
            elif charged[request] == 1:
                counter[MISSES] += 1
            else:
                counter[CONFLICTS] += 1
            served += 1
            counter[LAST] = max(counter[LAST], data_free)
            # Out of its list; the next hit lies behind it, as it was the oldest.
            after = following[request]
            if lists[mode, b, _HEAD] == request:
                lists[mode, b, _HEAD] = after
                state[b, _OVERTAKEN] = 0
                if after < 0:
                    lists[mode, b, _TAIL] = -1
            else:
                before = lists[mode, b, _HEAD]
                while following[before] != request:
                    before = following[before]
                following[before] = after
                if after < 0:
                    lists[mode, b, _TAIL] = before
                state[b, _OVERTAKEN] += 1
            while after >= 0 and row[after] != state[b, _ROW]:
                after = following[after]
            lists[mode, b, _HIT] = after
            waiting[mode] -= 1
            prospect(b, mode, limit, lists, state, ready_column, prospects)
        elif best_priority == _ROW_ACTIVATE:
            g, r = group_of[b], rank_of[b]
            command, record = ACTIVATE, row[best_request]
            bus_row = now + 1
            if not two_buses:
                bus_column = now + 1
            state[b, _ROW] = row[best_request]
            state[b, _OVERTAKEN] = 0
            charged[best_request] = 2 if state[b, _CLOSED_FOR] > 0 else 1
            state[b, _CLOSED_FOR] = 0
            for kind in range(2):
                candidate = lists[kind, b, _HEAD]
                while candidate >= 0 and row[candidate] != state[b, _ROW]:
                    candidate = following[candidate]
                lists[kind, b, _HIT] = candidate
            ready_column[0, b] = now + par[RCD_RD]
            ready_column[1, b] = now + par[RCD_WR]
            state[b, _PRECHARGE_AT] = max(state[b, _PRECHARGE_AT], now + par[RAS])
            state[b, _ACTIVATE_AT] = max(state[b, _ACTIVATE_AT], now + par[RC])
            group_activate[g] = max(group_activate[g], now + par[RRD_L])
            rank_activate[r] = max(rank_activate[r], now + par[RRD_S])
            rank_refresh[r] = max(rank_refresh[r], now + par[RRD_S])
            last_four[r, newest[r]] = now
            newest[r] = (newest[r] + 1) % 4
            counter[ACTIVATES] += 1
            prospect(b, mode, limit, lists, state, ready_column, prospects)
        elif best_priority == _ROW_PRECHARGE:
            command, record = PRECHARGE, state[b, _ROW]
            bus_row = now + 1
            if not two_buses:
                bus_column = now + 1
            state[b, _ROW] = -1
            lists[0, b, _HIT] = -1
            lists[1, b, _HIT] = -1
            state[b, _CLOSED_FOR] = 1
            state[b, _ACTIVATE_AT] = max(state[b, _ACTIVATE_AT], now + par[RP])
            prospect(b, mode, limit, lists, state, ready_column, prospects)
        else:
            r = b
            bus_row = now + 1
            if not two_buses:
                bus_column = now + 1
            first = r * of_rank if mode_of_refresh == ALL_BANK else r * of_rank + turn_of[r]
            end = first + of_rank if mode_of_refresh == ALL_BANK else first + 1
            if refreshing[r] == 1:
                wait = par[RP_AB] if mode_of_refresh == ALL_BANK else par[RP]
                command = PRECHARGE_ALL if mode_of_refresh == ALL_BANK else PRECHARGE
                b = r if mode_of_refresh == ALL_BANK else first
                record = 0 if mode_of_refresh == ALL_BANK else state[first, _ROW]
                for x in range(first, end):
                    state[x, _ROW] = -1
                    lists[0, x, _HIT] = -1
                    lists[1, x, _HIT] = -1
                    state[x, _ACTIVATE_AT] = max(state[x, _ACTIVATE_AT], now + wait)
                refreshing[r] = 2
            else:
                if mode_of_refresh == ALL_BANK:
                    command = REFRESH
                    for x in range(first, end):
                        state[x, _ACTIVATE_AT] = max(state[x, _ACTIVATE_AT], now + par[RFC])
                    counter[REFRESHES] += 1
                else:
                    command, b = REFRESH_BANK, first
                    state[first, _ACTIVATE_AT] = max(state[first, _ACTIVATE_AT], now + par[RFC_PB])
                    rank_activate[r] = max(rank_activate[r], now + par[RREFD])
                    rank_refresh[r] = max(rank_refresh[r], now + par[RREFD])
                    turn_of[r] = (turn_of[r] + 1) % of_rank
                    counter[BANK_REFRESHES] += 1
                refreshing[r] = 0
                for x in range(first, end):
                    state[x, _BARRED] = 0
                    prospect(x, mode, limit, lists, state, ready_column, prospects)
                refreshed[r] += 1
                due[r] = interval * (r + 1) // ranks + interval * refreshed[r]
                next_due = due.min()
        if recorded < commands.shape[0]:
            commands[recorded, 0] = now
            commands[recorded, 1] = command
            commands[recorded, 2] = b
            commands[recorded, 3] = record
            recorded += 1
    return recorded
