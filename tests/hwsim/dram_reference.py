"""The DRAM's rules as a table of pairs, a checker of command traces and a plain controller on top of it. No numba, no state that
is carried along: whether a command may be issued is asked of everything issued before.
"""

from __future__ import annotations

from dataclasses import dataclass

RD, WR, ACT, PRE, PREA, REF, REFB = range(7)
NEVER = -(10**9)


@dataclass(frozen=True)
class Command:
    time: int
    kind: int
    bank: int  # the rank for PREA and REF
    what: int  # row of an activate or precharge, request of a read or write


class Rules:
    """Minimum distances of one command after another on a unit of ``spec``."""

    def __init__(self, spec):
        self.spec, c = spec, spec.cycles
        self.c = c
        self.of_group, self.of_rank = spec.banks_per_group, spec.banks_per_group * spec.bank_groups
        bl = spec.burst_cycles
        self.bl = bl
        read_to_write = c["t_cl"] + bl + c["t_turnaround"] - c["t_cwl"]
        after_write = c["t_cwl"] + bl
        # (first, second) → distance in the same bank, the same group, the same rank (NEVER where there is none)
        self.pairs = {
            (ACT, RD): (c["t_rcd_rd"], NEVER, NEVER),
            (ACT, WR): (c["t_rcd_wr"], NEVER, NEVER),
            (ACT, PRE): (c["t_ras"], NEVER, NEVER),
            (ACT, ACT): (c["t_rc"], c["t_rrd_l"], c["t_rrd_s"]),
            (PRE, ACT): (c["t_rp"], NEVER, NEVER),
            (RD, PRE): (c["t_rtp"], NEVER, NEVER),
            (WR, PRE): (after_write + c["t_wr"], NEVER, NEVER),
            (RD, RD): (c["t_ccd_l"], c["t_ccd_l"], c["t_ccd_s"]),
            (WR, WR): (c["t_ccd_l"], c["t_ccd_l"], c["t_ccd_s"]),
            (RD, WR): (read_to_write, read_to_write, read_to_write),
            (WR, RD): (after_write + c["t_wtr_l"], after_write + c["t_wtr_l"], after_write + c["t_wtr_s"]),
            (PRE, REFB): (c["t_rp"], NEVER, NEVER),
            (ACT, REFB): (c["t_rc"], c["t_rrd_s"], c["t_rrd_s"]),
            (REFB, ACT): (c["t_rfc_pb"], c["t_rrefd"], c["t_rrefd"]),
            (REFB, REFB): (c["t_rfc_pb"], c["t_rrefd"], c["t_rrefd"]),
        }
        self.whole = {  # one of them concerns a whole rank
            (ACT, PREA): c["t_ras"], (RD, PREA): c["t_rtp"], (WR, PREA): after_write + c["t_wr"], (PREA, ACT): c["t_rp_ab"],
            (PREA, REF): c["t_rp_ab"], (PRE, REF): c["t_rp"], (ACT, REF): c["t_rc"], (REF, ACT): c["t_rfc"],
        }  # fmt: skip

    def rank(self, command):
        return command.bank if command.kind in (PREA, REF) else command.bank // self.of_rank

    def group(self, command):
        return command.bank // self.of_group

    def bus(self, kind):
        return 1 if self.spec.command_buses == 2 and kind in (RD, WR) else 0

    def earliest(self, history, kind, bank, floor=0):
        """First cycle from ``floor`` at which the command breaks no rule after everything in ``history``."""
        new = Command(0, kind, bank, 0)
        at = floor
        activates = []
        for old in history:
            distance = NEVER
            same_rank = self.rank(old) == self.rank(new)
            if self.bus(old.kind) == self.bus(kind):
                distance = 1
            if same_rank and (old.kind, kind) in self.whole:
                # A refresh only waits for precharges; a precharge of all only for rows that are open.
                distance = max(distance, self.whole[old.kind, kind])
            if (old.kind, kind) in self.pairs and same_rank:
                in_bank, in_group, in_rank = self.pairs[old.kind, kind]
                if old.bank == bank:
                    distance = max(distance, in_bank)
                elif self.group(old) == self.group(new):
                    distance = max(distance, in_group)
                else:
                    distance = max(distance, in_rank)
            if old.kind in (RD, WR) and kind in (RD, WR):
                latency = {RD: self.c["t_cl"], WR: self.c["t_cwl"]}
                gap = self.bl
                gap += max(self.c["t_turnaround"] if old.kind != kind else 0, self.c["t_rank"] if not same_rank else 0)
                distance = max(distance, latency[old.kind] + gap - latency[kind])
            if distance > NEVER:
                at = max(at, old.time + distance)
            if old.kind == ACT and same_rank:
                activates.append(old.time)
        if kind == ACT and len(activates) >= 4:
            at = max(at, activates[-4] + self.c["t_faw"])
        return at


def check(spec, trace, requests):
    """Assert that a unit's trace breaks no rule and serves the requests: (bank, row, is_write, arrival) each."""
    rules = Rules(spec)
    commands = [Command(*map(int, row)) for row in trace]
    open_row, served, before = {}, set(), []
    longest = max(max(map(max, rules.pairs.values())), *rules.whole.values(), spec.cycles["t_faw"]) + 64
    refreshes = dict.fromkeys(range(spec.ranks), 0)
    for command in commands:
        assert not before or command.time >= before[-1].time
        recent = [old for old in before if old.time >= command.time - longest]
        assert rules.earliest(recent, command.kind, command.bank) <= command.time, (command, recent)
        of_rank = range(rules.rank(command) * rules.of_rank, (rules.rank(command) + 1) * rules.of_rank)
        if command.kind in (RD, WR):
            bank, row, write, arrival = requests[command.what]
            assert command.what not in served
            assert (command.bank, command.kind) == (bank, WR if write else RD)
            assert open_row.get(bank) == row
            assert command.time >= arrival
            served.add(command.what)
            older = [i for i in range(command.what) if requests[i][2] == write and i not in served]
            assert len(older) < spec.window
        elif command.kind == ACT:
            assert command.bank not in open_row
            open_row[command.bank] = command.what
        elif command.kind == PRE:
            assert open_row.pop(command.bank, None) is not None
        elif command.kind == PREA:
            assert any(b in open_row for b in of_rank)
            for b in of_rank:
                open_row.pop(b, None)
        else:
            assert not any(b in open_row for b in (of_rank if command.kind == REF else [command.bank]))
            rank = rules.rank(command)
            banks = rules.of_rank if command.kind == REFB else 1
            interval = spec.cycles["t_refi"] // banks
            due = interval * (rank + 1) // spec.ranks + interval * refreshes[rank]
            # Late by at most what it takes to close the rows, other ranks' commands included.
            assert due <= command.time <= due + longest * 2
            assert command.kind == REF or command.bank == rank * rules.of_rank + refreshes[rank] % rules.of_rank
            refreshes[rank] += 1
        before.append(command)
    assert served == set(range(len(requests)))
    return commands


def plain(spec, requests):
    """The controller of a unit, command by command, each time asking the rules for the earliest of all that may come next."""
    rules = Rules(spec)
    history, open_row = [], {}
    queues = {False: [], True: []}
    overtaken = dict.fromkeys(range(rules.of_rank * spec.ranks), 0)
    per_bank = spec.refresh == "per_bank"
    interval = spec.cycles["t_refi"] // (rules.of_rank if per_bank else 1)
    due = {r: interval * (r + 1) // spec.ranks for r in range(spec.ranks)} if spec.refresh != "none" else {}
    done, turn, pending = dict.fromkeys(due, 0), dict.fromkeys(due, 0), {}
    now, entered, served, writing = 0, 0, 0, False
    while served < len(requests):
        while entered < len(requests) and requests[entered][3] <= now:
            if len(queues[bool(requests[entered][2])]) >= spec.window:
                break
            queues[bool(requests[entered][2])].append(entered)
            entered += 1
        if not writing:
            writing = len(queues[True]) >= spec.write_high or (not queues[False] and bool(queues[True]))
        elif not queues[True] or (len(queues[True]) <= spec.write_low and queues[False]):
            writing = False
        choices = []
        for bank in overtaken:
            mine = [i for i in queues[writing] if requests[i][0] == bank]
            barred = pending.get(bank // rules.of_rank)
            if not mine or (barred is not None and bank in barred):
                continue
            hits = [i for i in mine if bank in open_row and requests[i][1] == open_row[bank]]
            if hits and (hits[0] == mine[0] or overtaken[bank] < spec.row_hit_limit):
                kind, priority, request = (WR if writing else RD), 0, hits[0]
            elif bank in open_row:
                kind, priority, request = PRE, 2, mine[0]
            else:
                kind, priority, request = ACT, 1, mine[0]
            choices.append((rules.earliest(history, kind, bank, now), priority, request, kind, bank))
        for rank, banks in pending.items():
            waiting = [b for b in banks if b in open_row]
            if per_bank:
                kind, bank = (PRE if waiting else REFB), banks[0]
            else:
                kind, bank = (PREA if waiting else REF), rank
            choices.append((rules.earliest(history, kind, bank, now), 3, rank, kind, bank))
        best = min(choices, default=(10**12,))
        first_due = min(due.values(), default=10**12)
        _, _, write, arrival = requests[entered] if entered < len(requests) else (0, 0, False, 10**12)
        if now < arrival <= min(best[0], first_due) and len(queues[bool(write)]) < spec.window and arrival < 10**12:
            now = arrival
            continue
        if first_due <= best[0]:
            rank = min(due, key=lambda r: due[r])
            now = max(now, due[rank])
            first = rank * rules.of_rank
            pending[rank] = [first + turn[rank]] if per_bank else list(range(first, first + rules.of_rank))
            due[rank] = 10**12
            continue
        now, _, request, kind, bank = best
        what = 0
        if kind in (RD, WR):
            mine = [i for i in queues[writing] if requests[i][0] == bank]
            overtaken[bank] = 0 if mine[0] == request else overtaken[bank] + 1
            queues[writing].remove(request)
            what, served = request, served + 1
        elif kind == ACT:
            open_row[bank], overtaken[bank] = requests[request][1], 0
            what = open_row[bank]
        elif kind == PRE:
            what = open_row.pop(bank)
        elif kind == PREA:
            for b in pending[bank]:
                open_row.pop(b, None)
        else:
            rank = bank if kind == REF else bank // rules.of_rank
            done[rank] += 1
            turn[rank] = (turn[rank] + 1) % rules.of_rank
            due[rank] = interval * (rank + 1) // spec.ranks + interval * done[rank]
            del pending[rank]
        history.append(Command(now, kind, bank, what))
    return history
