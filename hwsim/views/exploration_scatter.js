// The scatter: points stamped into an image (fast for a hundred thousand), what is pointed at on a second canvas above it.

const SHAPES = { sweep: "circle", search: "circle", random: "diamond", sample: "triangle", rescored: "square" };
const shapeOf = STAGES.map(stage => stage === DATA.main ? "circle" : SHAPES[stage] ?? "circle");
const SIZES = 6;
const CELL = 14;

const view = { x: null, y: null, color: null, size: null, xlog: false, ylog: false, clog: false, fit: false, ghosts: true, line: true };
const frame = { left: 62, right: 16, top: 14, bottom: 44, width: 0, height: 0 };
let px = new Float32Array(COUNT), py = new Float32Array(COUNT);  // NaN: not on this picture
let domain = { x: [0, 1], y: [0, 1] };
let cells = null;      // spatial index of the points shown
let offPicture = 0;
let hovered = -1, picked = -1, pointer = null, dragged = false;

const base = el("canvas", { tabIndex: 0, className: "points" });
const over = el("canvas", { className: "over" });

// --- colour and size -------------------------------------------------------------------------------------------------

let colourOf = i => 0, colours = [];  // number of a point's colour; the colours

function setColours() {
  const column = view.color;
  const unknown = rgb(css("muted"));
  if (!column) {
    colours = [rgb(css("accent"))];
    colourOf = () => 0;
    return;
  }
  if (!column.numeric) {
    const stage = column === MARKS.stage;
    const own = column.values.map((_, i) => rgb(PALETTE[i % PALETTE.length]));
    if (stage) column.values.forEach((name, i) => { if (name === "random") own[i] = rgb(css("muted")); });
    colours = own;
    colourOf = i => column.codes[i];
    return;
  }
  const levels = 64, places = column.places(view.clog), [a, b] = column.extent(view.clog);
  colours = Array.from({ length: levels }, (_, k) => ramp(k / (levels - 1)));
  colours.push(unknown);
  const scale = levels / ((b - a) || 1);
  colourOf = i => {
    const place = places[i];
    return place === place ? Math.min(levels - 1, Math.max(0, Math.floor((place - a) * scale))) : levels;
  };
}

function radius() {
  const many = SHOWN;
  return many < 300 ? 4.6 : many < 3000 ? 3.6 : many < 20000 ? 2.7 : 2;
}

function opacity() { return SHOWN < 1500 ? 0.85 : SHOWN < 20000 ? 0.7 : 0.5; }

// --- stamps ----------------------------------------------------------------------------------------------------------

const stamps = new Map();

function trace(paint, shape, x, y, r) {
  paint.beginPath();
  if (shape === "square") paint.rect(x - 0.86 * r, y - 0.86 * r, 1.72 * r, 1.72 * r);
  else if (shape === "cross") {
    for (const s of [-1, 1]) { paint.moveTo(x - 0.8 * r, y - 0.8 * s * r); paint.lineTo(x + 0.8 * r, y + 0.8 * s * r); }
  } else if (shape === "circle") paint.arc(x, y, r, 0, 7);
  else {
    const corners = shape === "diamond" ? [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]] : [[0, -1.15], [1.05, 0.75], [-1.05, 0.75]];
    corners.forEach(([dx, dy], k) => k ? paint.lineTo(x + dx * r, y + dy * r) : paint.moveTo(x + dx * r, y + dy * r));
    paint.closePath();
  }
}

/** How much of each pixel a mark covers, 0 to 256. */
function stamp(shape, r, hollow) {
  const key = `${shape} ${r} ${hollow}`;
  if (!stamps.has(key)) {
    const half = Math.ceil(1.25 * r + 1.5), side = 2 * half + 1;
    const paint = el("canvas", { width: side, height: side }).getContext("2d", { willReadFrequently: true });
    trace(paint, shape, half + 0.5, half + 0.5, hollow ? r - 0.4 : r);
    if (hollow || shape === "cross") { paint.lineWidth = Math.max(1.1, 0.4 * r); paint.stroke(); } else paint.fill();
    const pixels = paint.getImageData(0, 0, side, side).data;
    const dx = [], dy = [], cover = [];
    for (let k = 0; k < side * side; k++) {
      const a = pixels[4 * k + 3];
      if (a) { dx.push(k % side - half); dy.push(Math.floor(k / side) - half); cover.push(a); }
    }
    stamps.set(key, { dx: Int16Array.from(dx), dy: Int16Array.from(dy), cover: Uint16Array.from(cover), half });
  }
  return stamps.get(key);
}

function press(image, mark, x, y, colour, alpha) {
  const { data, width, height } = image, { dx, dy, cover, half } = mark;
  const [r, g, b] = colour;
  if (x < -half || y < -half || x >= width + half || y >= height + half) return;
  const inside = x >= half && y >= half && x < width - half && y < height - half;
  for (let k = 0; k < cover.length; k++) {
    const u = x + dx[k], v = y + dy[k];
    if (!inside && (u < 0 || v < 0 || u >= width || v >= height)) continue;
    const at = 4 * (v * width + u), a = cover[k] * alpha >> 8;
    data[at] += (r - data[at]) * a >> 8;
    data[at + 1] += (g - data[at + 1]) * a >> 8;
    data[at + 2] += (b - data[at + 2]) * a >> 8;
  }
}

// --- where the points are --------------------------------------------------------------------------------------------

/** A little to the side, the same on every drawing, so that points of one choice do not cover each other. */
const jitter = i => (Math.imul(i + 1, 2654435761) >>> 8) / 2 ** 24 - 0.5;

function domainOf(column, log) {
  if (!column.numeric) return column.extent(log);
  let [a, b] = column.extent(log);
  if (view.fit) {
    const places = column.places(log);
    let lo = Infinity, hi = -Infinity;
    for (let i = 0; i < COUNT; i++) if (MASK[i] && places[i] === places[i]) { lo = Math.min(lo, places[i]); hi = Math.max(hi, places[i]); }
    if (lo <= hi) [a, b] = [lo, hi];
  }
  const room = 0.04 * (b - a) || 0.5 * Math.max(1e-12, Math.abs(a) * 0.1);
  return [a - room, b + room];
}

function placePoints() {
  domain = { x: domainOf(view.x, view.xlog), y: domainOf(view.y, view.ylog) };
  const xs = view.x.places(view.xlog), ys = view.y.places(view.ylog);
  const kx = frame.width / (domain.x[1] - domain.x[0]), ky = frame.height / (domain.y[1] - domain.y[0]);
  const jx = view.x.numeric ? 0 : 0.6, jy = view.y.numeric ? 0 : 0.6;
  offPicture = 0;
  for (let i = 0; i < COUNT; i++) {
    px[i] = frame.left + (xs[i] + (jx && jx * jitter(i)) - domain.x[0]) * kx;
    py[i] = frame.top + frame.height - (ys[i] + (jy && jy * jitter(i + 7)) - domain.y[0]) * ky;
    if (MASK[i] && !(px[i] === px[i] && py[i] === py[i])) offPicture++;
  }
}

/** The points shown by squares of the picture, for what is under the pointer. */
function indexPoints(width, height) {
  const across = Math.ceil(width / CELL) + 1, down = Math.ceil(height / CELL) + 1;
  const start = new Int32Array(across * down + 1), where = new Int32Array(COUNT).fill(-1);
  for (let i = 0; i < COUNT; i++) {
    if (!MASK[i] || !(px[i] >= 0 && py[i] >= 0 && px[i] <= width && py[i] <= height)) continue;
    where[i] = Math.floor(py[i] / CELL) * across + Math.floor(px[i] / CELL);
    start[where[i] + 1]++;
  }
  for (let c = 0; c < across * down; c++) start[c + 1] += start[c];
  const next = start.slice(), points = new Int32Array(start[across * down]);
  for (let i = 0; i < COUNT; i++) if (where[i] >= 0) points[next[where[i]]++] = i;
  cells = { across, down, start, points };
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function fitCanvas(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  return paint;
}

const axisTitle = (column, log) => {
  const objective = OBJECTIVES.find(o => o.column === column);
  const better = objective ? (objective.sign > 0 ? " · less is better" : " · more is better") : "";
  return `${column.label}${log && column.logical ? " (log)" : ""}${better}`;
};

function drawScatter() {
  const box = $("scatter"), width = box.clientWidth, height = box.clientHeight;
  if (width < 40 || height < 40) return;
  const paint = fitCanvas(base, width, height);
  const yTicks = height > 100 ? ticks(view.y, view.ylog, ...(domainOf(view.y, view.ylog)), Math.max(2, height / 60)) : [];
  paint.font = "11px system-ui, sans-serif";
  const widest = Math.max(20, ...yTicks.map(([, text]) => paint.measureText(text).width));
  frame.left = Math.min(26 + widest, 0.34 * width);
  frame.width = width - frame.left - frame.right;
  frame.height = height - frame.top - frame.bottom;
  placePoints();
  paint.fillStyle = css("paper");
  paint.fillRect(0, 0, width, height);
  drawAxes(paint, width, height, yTicks);
  stampPoints(paint);
  if (view.line) drawFront(paint);
  indexPoints(width, height);
  drawOver();
  drawKey();
}

/** A text that fits: the middle goes, for names differ at their ends. */
function clipped(paint, text, most) {
  let cut = text, left = text.length;
  while (left > 2 && paint.measureText(cut).width > most) cut = shortened(text, --left);
  return cut;
}

function drawAxes(paint, width, height, yTicks) {
  const bottom = frame.top + frame.height;
  paint.lineWidth = 1;
  paint.strokeStyle = css("grid");
  paint.fillStyle = css("muted");
  paint.textAlign = "center";
  paint.textBaseline = "top";
  const xTicks = ticks(view.x, view.xlog, ...domain.x, Math.max(2, frame.width / 85));
  let last = -Infinity;
  const room = view.x.numeric ? Infinity : frame.width / Math.max(1, xTicks.length) - 6;
  for (const [place, text] of xTicks) {
    const x = Math.round(frame.left + (place - domain.x[0]) / (domain.x[1] - domain.x[0]) * frame.width) + 0.5;
    paint.beginPath(); paint.moveTo(x, frame.top); paint.lineTo(x, bottom); paint.stroke();
    const name = clipped(paint, text, room), half = paint.measureText(name).width / 2;
    if (x - half > last + 6 && x + half < width) { paint.fillText(name, x, bottom + 6); last = x + half; }
  }
  paint.textAlign = "right";
  paint.textBaseline = "middle";
  last = Infinity;
  for (const [place, text] of yTicks) {
    const y = Math.round(bottom - (place - domain.y[0]) / (domain.y[1] - domain.y[0]) * frame.height) + 0.5;
    if (y < frame.top - 1 || y > bottom + 1) continue;
    paint.beginPath(); paint.moveTo(frame.left, y); paint.lineTo(frame.left + frame.width, y); paint.stroke();
    if (Math.abs(last - y) > 12) { paint.fillText(clipped(paint, text, frame.left - 24), frame.left - 7, y); last = y; }
  }
  paint.fillStyle = css("ink");
  paint.font = "12px system-ui, sans-serif";
  paint.textAlign = "right";
  paint.textBaseline = "bottom";
  paint.fillText(clipped(paint, axisTitle(view.x, view.xlog), frame.width), frame.left + frame.width, height - 4);
  paint.save();
  paint.translate(4, frame.top);
  paint.rotate(-Math.PI / 2);
  paint.textBaseline = "top";
  paint.fillText(clipped(paint, axisTitle(view.y, view.ylog), frame.height), 0, 0);
  paint.restore();
}

function stampPoints(paint) {
  const scale = devicePixelRatio || 1;
  const image = paint.getImageData(0, 0, base.width, base.height);
  const r = radius(), alpha = Math.round(256 * opacity());
  const at = (i, mark, colour, strength) => press(image, mark, Math.round(px[i] * scale), Math.round(py[i] * scale), colour, strength);
  const here = i => px[i] === px[i] && py[i] === py[i];
  if (view.ghosts && SHOWN < COUNT) stampGhosts(image, scale, stamp("circle", Math.max(1, 0.62 * r) * scale, false));
  const sizes = view.size ? sizeLevels() : null;
  const large = level => r * scale * (sizes ? 0.55 + 0.32 * level : 1);
  const muted = rgb(css("muted"));
  // One mark for each kind of point, by the number that codes stage, size and what came of it.
  const marks = [];
  STAGES.forEach((_, stage) => {
    for (let level = 0; level < SIZES; level++) {
      const kinds = [[shapeOf[stage], true], [shapeOf[stage], false], ["cross", true]];
      kinds.forEach(([shape, hollow], kind) => { marks[(stage * SIZES + level) * 3 + kind] = stamp(shape, large(level), hollow); });
    }
  });
  const markOf = i => marks[(STAGE[i] * SIZES + (sizes ? sizes[i] : 0)) * 3 + (FAILED[i] ? 2 : FEASIBLE[i])];
  for (let i = 0; i < COUNT; i++) {
    if (MASK[i] && !FEASIBLE[i] && here(i)) at(i, markOf(i), FAILED[i] ? muted : colours[colourOf(i)], alpha);
  }
  // Where the front was evaluated anew, the figures of the other stages are coarser: they step back.
  const finest = STAGES.includes("rescored");
  const strength = STAGES.map(stage => finest && stage !== "rescored" ? Math.round(0.4 * alpha) : alpha);
  // The main stage first: baselines and what was evaluated anew are fewer, and would vanish below it.
  const early = STAGES.map(stage => stage === DATA.main);
  for (const main of [true, false]) {
    for (let i = 0; i < COUNT; i++) {
      if (MASK[i] && FEASIBLE[i] && !FRONT[i] && early[STAGE[i]] === main && here(i)) at(i, markOf(i), colours[colourOf(i)], strength[STAGE[i]]);
    }
  }
  const edge = rgb(css("ink"));
  for (const i of FRONT_POINTS) {
    if (!MASK[i] || !here(i)) continue;
    const shape = shapeOf[STAGE[i]], own = large(sizes ? sizes[i] : 0) * (SHOWN > 3000 ? 1.7 : 1.25);
    at(i, stamp(shape, own + 1.3 * scale, false), edge, 256);
    at(i, stamp(shape, own, false), colours[colourOf(i)], 256);
  }
  paint.putImageData(image, 0, 0);
}

/** What the filters hide, in the colour of the grid: once a pixel, as more would look the same. */
function stampGhosts(image, scale, mark) {
  const { width, height } = image, taken = new Uint8Array(width * height), colour = rgb(css("grid"));
  for (let i = 0; i < COUNT; i++) {
    if (MASK[i]) continue;
    const x = Math.round(px[i] * scale), y = Math.round(py[i] * scale);
    if (!(x >= 0 && y >= 0 && x < width && y < height) || taken[y * width + x]) continue;
    taken[y * width + x] = 1;
    press(image, mark, x, y, colour, 200);
  }
}

function sizeLevels() {
  const column = view.size, levels = new Uint8Array(COUNT);
  const places = column.places(column.log), [a, b] = column.extent(column.log), k = (SIZES - 1) / ((b - a) || 1);
  for (let i = 0; i < COUNT; i++) levels[i] = places[i] === places[i] ? Math.round((places[i] - a) * k) : 0;
  return levels;
}

/** The edge of what the front reaches in this projection: steps, for nothing between two of its points has been shown to exist. */
function drawFront(paint) {
  const x = OBJECTIVES.find(o => o.column === view.x), y = OBJECTIVES.find(o => o.column === view.y);
  if (!x || !y || x === y) return;
  const points = FRONT_POINTS.filter(i => MASK[i] && px[i] === px[i] && py[i] === py[i]);
  const cost = (o, i) => o.sign * o.column.numbers[i];
  points.sort((i, j) => cost(x, i) - cost(x, j) || cost(y, i) - cost(y, j));
  let best = Infinity;
  const edge = points.filter(i => cost(y, i) < best && (best = cost(y, i), true));
  if (!edge.length) return;
  const right = frame.left + frame.width, bottom = frame.top + frame.height;
  paint.save();
  paint.beginPath();
  paint.rect(frame.left, frame.top, frame.width, frame.height);
  paint.clip();
  paint.strokeStyle = css("front");
  paint.lineWidth = 1.8;
  paint.lineJoin = "round";
  paint.beginPath();
  paint.moveTo(px[edge[0]], y.sign > 0 ? frame.top : bottom);
  edge.forEach((i, k) => {
    if (k) paint.lineTo(px[i], py[edge[k - 1]]);
    paint.lineTo(px[i], py[i]);
  });
  paint.lineTo(x.sign > 0 ? right : frame.left, py[edge[edge.length - 1]]);
  paint.stroke();
  paint.restore();
}

/** What is pointed at, what is picked, and the box that is being dragged. */
function drawOver() {
  const box = $("scatter"), paint = fitCanvas(over, box.clientWidth, box.clientHeight);
  paint.clearRect(0, 0, box.clientWidth, box.clientHeight);
  for (const [i, colour, r] of [[picked, css("front"), 9], [hovered, css("ink"), 7]]) {
    if (i < 0 || px[i] !== px[i] || py[i] !== py[i]) continue;
    paint.lineWidth = 2;
    paint.strokeStyle = css("paper");
    paint.beginPath(); paint.arc(px[i], py[i], r + 1.5, 0, 7); paint.stroke();
    paint.strokeStyle = colour;
    paint.beginPath(); paint.arc(px[i], py[i], r, 0, 7); paint.stroke();
  }
  if (pointer?.moved) {
    const [x, y, w, h] = [Math.min(pointer.x0, pointer.x1), Math.min(pointer.y0, pointer.y1), Math.abs(pointer.x1 - pointer.x0), Math.abs(pointer.y1 - pointer.y0)];
    paint.fillStyle = css("accent");
    paint.globalAlpha = 0.14;
    paint.fillRect(x, y, w, h);
    paint.globalAlpha = 1;
    paint.strokeStyle = css("accent");
    paint.lineWidth = 1;
    paint.strokeRect(x + 0.5, y + 0.5, w, h);
  }
}

function symbol(shape, hollow, colour = "var(--muted)") {
  const r = 5, corners = { diamond: "0,-6 6,0 0,6 -6,0", triangle: "0,-6 5.5,4 -5.5,4", square: "-4.3,-4.3 4.3,-4.3 4.3,4.3 -4.3,4.3" };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const put = (tag, attributes) => {
    const node = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    svg.append(node);
  };
  for (const [name, value] of Object.entries({ width: 13, height: 13, viewBox: "-6.5 -6.5 13 13", "aria-hidden": "true" })) svg.setAttribute(name, value);
  const paint = hollow ? { fill: "none", stroke: colour, "stroke-width": 1.6 } : { fill: colour };
  if (shape === "circle") put("circle", { r: r - (hollow ? 0.8 : 0), ...paint });
  else if (shape === "cross") put("path", { d: "M-4-4L4 4M4-4L-4 4", stroke: colour, "stroke-width": 1.6 });
  else if (shape === "line") put("path", { d: "M-6-4h5v7h7", fill: "none", stroke: colour, "stroke-width": 1.8 });
  else put("polygon", { points: corners[shape], ...paint });
  return svg;
}

function drawKey() {
  const parts = [], entry = (mark, text) => parts.push(el("span", {}, mark, text));
  const column = view.color;
  if (column?.numeric) {
    const bar = el("span", { className: "ramp" });
    bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 9 }, (_, k) => `rgb(${ramp(k / 8)})`)})`;
    parts.push(el("span", {}, `${column.label} ${shown(column.min, column.unit)}`, bar, `${shown(column.max, column.unit)}${view.clog && column.logical ? " (log)" : ""}`));
    if (column.unknown) entry(symbol("circle", false), "unknown");
  } else if (column && column !== MARKS.stage) {
    column.values.slice(0, 12).forEach((value, i) => entry(symbol("square", false, `rgb(${colours[i]})`), shown(value, column.unit)));
    if (column.values.length > 12) parts.push(el("span", {}, `… ${column.values.length - 12} more, colours repeat after ${PALETTE.length}`));
  }
  const coloured = column === MARKS.stage;
  if (STAGES.length > 1) STAGES.forEach((stage, k) => entry(symbol(shapeOf[k], false, coloured ? `rgb(${colours[k]})` : undefined), stage));
  if (INFEASIBLE_COUNT) entry(symbol("circle", true), "infeasible");
  if (FAILED_COUNT) entry(symbol("cross", false), "failed");
  if (FRONT_POINTS.length) {
    const ringed = symbol("circle", false);
    ringed.firstChild.setAttribute("stroke", "var(--ink)");
    ringed.firstChild.setAttribute("stroke-width", "1.4");
    entry(ringed, "on the front");
    const both = [view.x, view.y].every(axis => OBJECTIVES.some(o => o.column === axis)) && view.x !== view.y;
    if (view.line && both) entry(symbol("line", false, "var(--front)"), OBJECTIVES.length > 2 ? "edge of the front in these two" : "front");
  }
  if (STAGES.includes("rescored")) parts.push(el("span", {}, "pale: coarser figures; the front is made of the rescored"));
  if (offPicture) parts.push(el("span", {}, `${grouped(offPicture)} ${offPicture === 1 ? "point has" : "points have"} no value on these axes`));
  $("key").replaceChildren(...parts);
}
