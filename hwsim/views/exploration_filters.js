// Which points are shown, and the controls that decide it. Every view reads MASK; none keeps a choice of its own.

const MASK = new Uint8Array(COUNT).fill(1);
let SHOWN = COUNT;
const RANGES = new Map();   // column → { lo, hi, unknown }, ends included
const CHOICES = new Map();  // column → one byte a value, 1: shown
const CONTROLS = new Map(); // column → redraws its control
const KINDS = { feasible: true, infeasible: true, failed: true, onlyFront: false };
const INFEASIBLE_COUNT = COUNT - FEASIBLE.reduce((a, b) => a + b, 0) - FAILED.reduce((a, b) => a + b, 0);
const FAILED_COUNT = FAILED.reduce((a, b) => a + b, 0);

function applyFilters() {
  const pass = [KINDS.infeasible, KINDS.feasible, KINDS.failed, KINDS.failed].map(Number);
  for (let i = 0; i < COUNT; i++) MASK[i] = pass[FEASIBLE[i] + 2 * FAILED[i]];
  if (KINDS.onlyFront) for (let i = 0; i < COUNT; i++) MASK[i] &= FRONT[i];
  for (const [column, allowed] of CHOICES) {
    const codes = column.codes;
    for (let i = 0; i < COUNT; i++) MASK[i] &= allowed[codes[i]];
  }
  for (const [column, { lo, hi, unknown }] of RANGES) {
    const numbers = column.numbers, kept = unknown ? 1 : 0;
    for (let i = 0; i < COUNT; i++) {
      const v = numbers[i];
      MASK[i] &= v !== v ? kept : v >= lo && v <= hi ? 1 : 0;
    }
  }
  SHOWN = 0;
  for (let i = 0; i < COUNT; i++) SHOWN += MASK[i];
}

/** Show the points from `lo` to `hi` only; the ends of the data mean no bound. Of choices, those that lie between. */
function setRange(column, lo, hi, unknown) {
  if (column.discrete) {
    const between = (v, i) => v !== null && (column.numeric ? v >= lo && v <= hi : i >= lo && i <= hi);
    setChoice(column, Uint8Array.from(column.values, (v, i) => between(v, i) ? 1 : 0));
    return;
  }
  const whole = lo <= column.min && hi >= column.max;
  // Who narrows a range asks for values in it; what is unknown goes, and comes back by its own box.
  unknown ??= whole ? true : RANGES.get(column)?.unknown ?? false;
  if (whole && (unknown || !column.unknown)) RANGES.delete(column);
  else RANGES.set(column, { lo: lo <= column.min ? -Infinity : lo, hi: hi >= column.max ? Infinity : hi, unknown });
  changed("filters");
}

function setChoice(column, allowed) {
  if (allowed.every(Boolean)) CHOICES.delete(column);
  else CHOICES.set(column, allowed);
  changed("filters");
}

function clearFilter(column) {
  RANGES.delete(column);
  CHOICES.delete(column);
  changed("filters");
}

function clearFilters() {
  RANGES.clear();
  CHOICES.clear();
  Object.assign(KINDS, { feasible: true, infeasible: true, failed: true, onlyFront: false });
  changed("filters");
}

// --- controls --------------------------------------------------------------------------------------------------------

function chip(text, onchange, title = "") {
  const box = el("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => onchange(box.checked));
  return [el("label", { className: "chip", title: title || text }, box, el("b", {}, text)), box];
}

function group(name, hint, onreset) {
  const reset = el("button", { type: "button", ariaLabel: `show all of ${name}` }, "all");
  reset.addEventListener("click", onreset);
  return el("fieldset", {}, el("legend", {}, el("span", { className: "name", title: hint }, shortened(name, 22)), reset));
}

function choiceControl(column, text = i => shown(column.values[i], column.unit)) {
  const box = group(column.label, column.name, () => clearFilter(column));
  const total = new Float64Array(column.values.length);
  for (const code of column.codes) total[code]++;
  const chips = column.values.map((_, i) => chip(text(i), on => {
    const allowed = (CHOICES.get(column) ?? new Uint8Array(column.values.length).fill(1)).slice();
    allowed[i] = on ? 1 : 0;
    setChoice(column, allowed);
  }, `${text(i)}: ${grouped(total[i])} points`));
  box.append(el("div", { className: "chips" }, ...chips.map(([label]) => label)));
  CONTROLS.set(column, () => {
    const allowed = CHOICES.get(column), now = new Float64Array(total.length);
    for (let i = 0; i < COUNT; i++) now[column.codes[i]] += MASK[i];
    chips.forEach(([label, input], i) => {
      input.checked = !allowed || !!allowed[i];
      label.style.setProperty("--share", (now[i] / total[i]).toFixed(3));
    });
    box.classList.toggle("on", !!allowed);
  });
  return box;
}

const BINS = 56;
const STEPS = 1000;

function rangeControl(column) {
  const box = group(column.label, column.name, () => clearFilter(column));
  const log = column.log, [a, b] = column.extent(log), width = b - a || 1;
  const bin = new Uint8Array(COUNT), places = column.places(log), total = new Float64Array(BINS + 1);
  for (let i = 0; i < COUNT; i++) {
    bin[i] = places[i] === places[i] ? Math.min(BINS - 1, Math.floor((places[i] - a) / width * BINS)) : BINS;
    total[bin[i]]++;
  }
  const canvas = el("canvas", { ariaHidden: "true" });
  const slider = (name, value) => el("input", { type: "range", min: 0, max: STEPS, step: 1, value, ariaLabel: `${name} of ${column.label}` });
  const low = slider("lowest", 0), high = slider("highest", STEPS);
  const entry = name => el("input", { type: "text", ariaLabel: `${name} of ${column.label}, as a number`, spellcheck: false });
  const from = entry("lowest"), to = entry("highest");
  const at = step => step <= 0 ? column.min : step >= STEPS ? column.max : log ? 10 ** (a + width * step / STEPS) : a + width * step / STEPS;
  const step = value => Math.round(((column.place(value, log) - a) / width) * STEPS);
  for (const [own, other, sign] of [[low, high, 1], [high, low, -1]]) {
    own.addEventListener("input", () => {
      if (sign * (own.value - other.value) > 0) own.value = other.value;
      const kept = RANGES.get(column);  // the end that did not move stays exact
      setRange(column, sign > 0 ? at(+low.value) : kept?.lo ?? -Infinity, sign < 0 ? at(+high.value) : kept?.hi ?? Infinity);
    });
  }
  const enter = (input, isLow) => {
    const text = input.value.trim(), value = text === "" ? (isLow ? -Infinity : Infinity) : written(text, column.unit);
    input.ariaInvalid = String(value !== value);
    if (value !== value) return;
    const kept = RANGES.get(column) ?? { lo: -Infinity, hi: Infinity };
    setRange(column, isLow ? value : kept.lo, isLow ? kept.hi : value);
  };
  // Leaving a box that shows a rounded number must not make it the bound.
  from.addEventListener("change", () => enter(from, true));
  to.addEventListener("change", () => enter(to, false));
  box.append(el("div", { className: "range" }, canvas, el("div", { className: "double" }, low, high),
    el("div", { className: "ends" }, from, to)));
  let unknownBox = null, unknownChip = null;
  if (column.unknown) {
    [unknownChip, unknownBox] = chip(`unknown (${grouped(column.unknown)})`, on => {
      const kept = RANGES.get(column) ?? { lo: -Infinity, hi: Infinity };
      setRange(column, kept.lo, kept.hi, on);
    });
    box.append(el("div", { className: "chips" }, unknownChip));
  }
  CONTROLS.set(column, () => {
    const range = RANGES.get(column);
    const lo = Math.max(range?.lo ?? -Infinity, column.min), hi = Math.min(range?.hi ?? Infinity, column.max);
    if (document.activeElement !== low || !range) low.value = step(lo);
    if (document.activeElement !== high || !range) high.value = step(hi);
    // Both thumbs at the right end: the lower one must be on top, or neither could be moved.
    low.style.zIndex = low.value > STEPS / 2 ? 2 : 1;
    high.style.zIndex = low.value > STEPS / 2 ? 1 : 2;
    for (const [input, value] of [[from, lo], [to, hi]]) {
      if (document.activeElement !== input) { input.value = shown(value, column.unit); input.ariaInvalid = "false"; }
    }
    low.ariaValueText = shown(lo, column.unit);
    high.ariaValueText = shown(hi, column.unit);
    if (unknownBox) unknownBox.checked = !range || range.unknown;
    box.classList.toggle("on", !!range);
    const now = new Float64Array(BINS + 1);
    for (let i = 0; i < COUNT; i++) now[bin[i]] += MASK[i];
    if (unknownChip) unknownChip.style.setProperty("--share", (now[BINS] / total[BINS]).toFixed(3));
    histogram(canvas, total, now);
  });
  return box;
}

/** All points in grey, those shown in colour; heights by the square root, so that rare values can be seen. */
function histogram(canvas, total, now) {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  if (!w) return;
  canvas.width = w * scale;
  canvas.height = h * scale;
  const paint = canvas.getContext("2d");
  paint.scale(scale, scale);
  let most = 1;
  for (let i = 0; i < BINS; i++) most = Math.max(most, total[i]);
  for (const [counts, colour] of [[total, css("grid")], [now, css("accent")]]) {
    paint.fillStyle = colour;
    for (let i = 0; i < BINS; i++) {
      const high = h * Math.sqrt(counts[i] / most);
      if (counts[i]) paint.fillRect(i * w / BINS, h - Math.max(1, high), w / BINS - 0.6, Math.max(1, high));
    }
  }
}

function buildFilters() {
  const kinds = group("points", "what came of them", () => {
    Object.assign(KINDS, { feasible: true, infeasible: true, failed: true, onlyFront: false });
    changed("filters");
  });
  const rows = [["feasible", "feasible", COUNT - INFEASIBLE_COUNT - FAILED_COUNT], ["infeasible", "infeasible", INFEASIBLE_COUNT],
    ["failed", "failed", FAILED_COUNT], ["onlyFront", "on the front only", FRONT_POINTS.length]].filter(row => row[2] || row[0] === "feasible");
  const chips = rows.map(([key, text, many]) => {
    const [label, box] = chip(text, on => { KINDS[key] = on; changed("filters"); }, `${text}: ${grouped(many)} points`);
    if (key === "onlyFront") label.classList.add("switch");
    return [key, label, box];
  });
  kinds.append(el("div", { className: "chips" }, ...chips.map(([, label]) => label)));
  CONTROLS.set("kinds", () => {
    for (const [key, label, box] of chips) {
      box.checked = KINDS[key];
      label.style.setProperty("--share", KINDS[key] ? 1 : 0);
    }
    kinds.classList.toggle("on", !KINDS.feasible || !KINDS.infeasible || !KINDS.failed || KINDS.onlyFront);
  });
  const all = [kinds];
  if (STAGES.length > 1) all.push(choiceControl(MARKS.stage));
  for (const column of [...PARAMETERS, ...METRICS]) {
    if (column.constant && !column.unknown) continue;
    all.push(column.discrete ? choiceControl(column) : rangeControl(column));
  }
  $("filters").append(...all);
}

function syncFilters() {
  for (const sync of CONTROLS.values()) sync();
  const active = RANGES.size + CHOICES.size + ($("filters").querySelector("fieldset").classList.contains("on") ? 1 : 0);
  $("reset").disabled = !active;
  $("reset").textContent = active ? `Reset ${active} ${active === 1 ? "filter" : "filters"}` : "No filters";
  $("count").replaceChildren(el("b", {}, grouped(SHOWN)), ` of ${grouped(COUNT)} points`);
}
