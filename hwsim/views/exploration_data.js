// The columns as they were packed, numbers as people read them, and where a value lies on an axis.

const DATA = JSON.parse(document.getElementById("data").textContent);
const COUNT = DATA.count;
const $ = id => document.getElementById(id);

/** An element; texts are only ever set as text, so that no name in the data can become markup. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "style") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// --- columns ---------------------------------------------------------------------------------------------------------

const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

function unpacked(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new ARRAYS[packed.type](bytes.buffer);
}

/** A column: `codes` and `values` where few values repeat, `numbers` (NaN: unknown) where they are numbers. */
class Column {
  constructor(given) {
    Object.assign(this, given);
    const stored = unpacked(given.packed);
    this.values = given.packed.values ?? null;
    this.codes = this.values ? stored : null;
    this.numeric = this.values ? this.values.every(v => v === null || typeof v === "number") : true;
    if (this.numeric && this.values) {
      const table = Float64Array.from(this.values, v => v ?? NaN);
      this.numbers = Float64Array.from(stored, code => table[code]);
    } else {
      this.numbers = this.values ? null : stored;
    }
    this.discrete = this.values !== null && (!this.numeric || this.values.length <= 14);
    this.unknown = 0;
    this.min = Infinity;
    this.max = -Infinity;
    if (this.numeric) {
      for (const v of this.numbers) {
        if (v !== v) this.unknown++;
        else if (Math.abs(v) !== Infinity) {
          if (v < this.min) this.min = v;
          if (v > this.max) this.max = v;
        }
      }
    } else this.unknown = this.codes.reduce((sum, code) => sum + (this.values[code] === null), 0);
    this.logical = this.numeric && this.min > 0 && this.min < this.max;
    this.log = this.logical && given.log;
    this.constant = this.numeric ? !(this.min < this.max) : this.values.length < 2;
    this.kept = new Map();
  }

  value(i) {
    if (this.values) return this.values[this.codes[i]];
    const v = this.numbers[i];
    return v !== v ? null : v;
  }

  text(i) { return shown(this.value(i), this.unit); }

  /** Where each point lies: logarithm, value, or the number of the choice; NaN where it is unknown. */
  places(log) {
    const key = log && this.logical;
    if (!this.kept.has(key)) {
      const places = new Float64Array(COUNT);
      if (!this.numeric) for (let i = 0; i < COUNT; i++) places[i] = this.values[this.codes[i]] === null ? NaN : this.codes[i];
      else for (let i = 0; i < COUNT; i++) places[i] = this.place(this.numbers[i], log);
      this.kept.set(key, places);
    }
    return this.kept.get(key);
  }

  place(value, log) {
    if (Math.abs(value) === Infinity) return NaN;
    return log && this.logical ? Math.log10(value) : value;
  }

  extent(log) {
    if (!this.numeric) return [-0.5, this.values.length - 0.5];
    if (!(this.min <= this.max)) return [0, 1];
    return [this.place(this.min, log), this.place(this.max, log)];
  }
}

const COLUMNS = DATA.columns.map(given => new Column(given));
const BY_NAME = new Map(COLUMNS.filter(c => c.role !== "mark").map(c => [c.name, c]));
const MARKS = Object.fromEntries(COLUMNS.filter(c => c.role === "mark").map(c => [c.name, c]));
const PARAMETERS = COLUMNS.filter(c => c.role === "parameter");
const METRICS = COLUMNS.filter(c => c.role === "metric");
const OBJECTIVES = DATA.objectives.map(o => ({ ...o, column: METRICS.find(c => c.name === o.metric), sign: o.direction === "max" ? -1 : 1 }));

function flags(column) {
  const truth = column.values.map(v => v === true ? 1 : 0);
  return Uint8Array.from(column.codes, code => truth[code]);
}
const FEASIBLE = flags(MARKS.feasible);
const FRONT = flags(MARKS.front);
const STAGE = MARKS.stage.codes;
const STAGES = MARKS.stage.values;
const FAILED = Uint8Array.from(MARKS.error.codes, code => MARKS.error.values[code] ? 1 : 0);
const trialOf = i => MARKS.trial.value(i);
const FRONT_POINTS = [];
for (let i = 0; i < COUNT; i++) if (FRONT[i]) FRONT_POINTS.push(i);

// --- numbers ---------------------------------------------------------------------------------------------------------

const PREFIXES = ["a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E"];

function si(value, unit, digits = 3) {
  if (value === 0) return `0 ${unit}`.trim();
  const power = Number(Math.abs(value).toExponential(digits - 1).split("e")[1]);
  const step = Math.min(6, Math.max(-6, Math.floor(power / 3)));
  const scaled = value / 10 ** (3 * step);
  const text = Math.abs(scaled) >= 1e-3 && Math.abs(scaled) < 1e4 ? String(Number(scaled.toPrecision(digits))) : scaled.toExponential(2);
  return `${text} ${PREFIXES[step + 6]}${unit}`.trim();
}

/** A value with its unit. Parameters without a unit stay as they are written. */
function shown(value, unit, digits = 3) {
  if (value === null || value === undefined || value !== value) return "unknown";
  if (typeof value === "boolean" || typeof value === "string") return String(value);
  if (Math.abs(value) === Infinity) return value > 0 ? "∞" : "−∞";
  if (unit === "%") return `${Number((100 * value).toFixed(digits > 3 ? 3 : 1))} %`;
  if (unit === "mm²" || unit === "m²") return `${Number(value.toPrecision(digits + 1))} ${unit}`;
  if (unit) return si(value, unit, digits);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-3) ? si(value, "", digits) : String(Number(value.toPrecision(digits + 1)));
}

/** The number that a person wrote, with or without prefix and unit; NaN for none. */
function written(text, unit) {
  const match = /^\s*([-+−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$/.exec(text);
  if (!match) return NaN;
  const number = Number(match[1].replace("−", "-"));
  let rest = match[2];
  if (unit === "%") return rest === "%" ? number / 100 : rest === "" ? number : NaN;
  if (unit && rest.endsWith(unit)) rest = rest.slice(0, -unit.length).trim();
  if (rest === "u" || rest === "μ") rest = "µ";
  const at = PREFIXES.indexOf(rest);
  return at < 0 ? NaN : number * 10 ** (3 * (at - 6));
}

/** At most so many characters; the middle goes. */
function shortened(text, most) {
  if (text.length <= most) return text;
  const tail = Math.floor(most / 2);
  return `${text.slice(0, Math.max(0, most - 1 - tail))}…${text.slice(text.length - tail)}`;
}

const grouped = number => number.toLocaleString("en-US");

/** Marks along an axis from `lo` to `hi`, about `most`: [place, text]. */
function ticks(column, log, lo, hi, most) {
  if (!column.numeric) return column.values.map((v, i) => [i, shown(v, column.unit)]).filter(([i]) => i >= lo && i <= hi);
  const named = value => [column.place(value, log), shown(value, column.unit)];
  if (column.discrete) {
    const own = column.values.filter(v => v !== null && Math.abs(v) !== Infinity).map(named).filter(([at]) => at >= lo && at <= hi);
    if (own.length && own.length <= 1.6 * most) return own;
  }
  const inside = ([at]) => at >= lo - 1e-9 && at <= hi + 1e-9;
  if (log && column.logical && hi - lo > 0.7) {
    const decades = hi - lo;
    const step = Math.max(1, Math.ceil(decades / most));
    const factors = decades > most / 1.5 ? [1] : decades > most / 3.2 ? [1, 3] : [1, 2, 5];
    const found = [];
    for (let d = Math.floor(lo); d <= hi; d += 1) if (d % step === 0) for (const f of factors) found.push(named(f * 10 ** d));
    return found.filter(inside);
  }
  const [a, b] = log && column.logical ? [10 ** lo, 10 ** hi] : [lo, hi];
  return steps(a, b, most).map(([value]) => [column.place(value, log), shown(value, column.unit, 4)]).filter(inside);
}

/** Round numbers from `a` to `b`, about `most`: [number, text]. */
function steps(a, b, most) {
  const rough = (b - a) / Math.max(1, most) || 1;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find(f => f * base >= rough * (1 - 1e-9)) * base;
  const found = [];
  for (let k = Math.ceil(a / step - 1e-9); k * step <= b + 1e-9 * step; k++) {
    const value = Number((k * step).toPrecision(12));
    found.push([value, String(value)]);
  }
  return found;
}

// --- colours ---------------------------------------------------------------------------------------------------------

const PALETTE = DATA.palette;
// Viridis, by Nathaniel Smith and Stéfan van der Walt (CC0), at eleven places.
const RAMP = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"].map(rgb);

function rgb(hex) { return [0, 2, 4].map(i => parseInt(hex.replace("#", "").slice(i, i + 2), 16)); }

/** A colour of the ramp, 0 to 1; the end that would vanish on the page is left out. */
function ramp(fraction) {
  const place = (dark() ? 0.22 + 0.78 * fraction : 0.93 * fraction) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(place));
  return RAMP[i].map((c, k) => Math.round(c + (RAMP[i + 1][k] - c) * (place - i)));
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const COLOURS = new Map();  // of this theme; cleared when it changes

function css(name) {
  if (!COLOURS.has(name)) COLOURS.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return COLOURS.get(name);
}
