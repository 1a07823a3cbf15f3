// Parallel coordinates: one axis a parameter or metric, one line a point; dragging along an axis sets the filter of its column.

const MOST_LINES = 1200;
const AXIS_WIDTH = 92;

const lines = el("canvas", { className: "lines" });
const linesOver = el("canvas", { className: "over" });
let axes = [];   // { column, x, lo, hi, places }
let brush = null;
const span = { top: 46, bottom: 22, height: 0 };

function axisY(axis, place) { return span.top + span.height * (1 - (place - axis.lo) / (axis.hi - axis.lo || 1)); }

function layOutAxes(width, height) {
  const columns = [...PARAMETERS, ...METRICS].filter(column => !column.constant);
  span.height = height - span.top - span.bottom;
  const margin = Math.min(52, width / 8), gap = columns.length > 1 ? (width - 2 * margin) / (columns.length - 1) : 0;
  axes = columns.map((column, k) => {
    const [lo, hi] = column.extent(column.log), room = column.numeric ? 0 : 0.1;
    return { column, x: columns.length > 1 ? margin + k * gap : width / 2, lo: lo + room, hi: hi - room, places: column.places(column.log) };
  });
}

function chosenLines() {
  const front = FRONT_POINTS.filter(i => MASK[i]), others = [];
  // Every so-manieth of the points shown: the same lines on every drawing.
  const all = [];
  for (let i = 0; i < COUNT; i++) if (MASK[i] && !FRONT[i] && !FAILED[i]) all.push(i);
  const many = Math.min(all.length, MOST_LINES);
  for (let k = 0; k < many; k++) others.push(all[Math.floor((k + 0.5) * all.length / many)]);
  return { front: front.slice(0, MOST_LINES), others, total: all.length + front.length };
}

function pathOf(paint, i) {
  let pen = false;
  for (const axis of axes) {
    const place = axis.places[i];
    if (place !== place) { pen = false; continue; }
    if (pen) paint.lineTo(axis.x, axisY(axis, place)); else paint.moveTo(axis.x, axisY(axis, place));
    pen = true;
  }
}

function drawParallel() {
  const box = $("parallel"), height = box.clientHeight;
  const many = [...PARAMETERS, ...METRICS].filter(column => !column.constant).length;
  const width = Math.max(box.clientWidth, Math.min(many * AXIS_WIDTH, 4000));
  if (box.clientWidth < 40 || height < 80) return;
  const paint = fitCanvas(lines, width, height);
  layOutAxes(width, height);
  paint.fillStyle = css("paper");
  paint.fillRect(0, 0, width, height);
  const { front, others, total } = chosenLines();
  const groups = new Map();
  for (const i of others) {
    const colour = colourOf(i);
    if (!groups.has(colour)) groups.set(colour, []);
    groups.get(colour).push(i);
  }
  paint.lineWidth = 1;
  paint.globalAlpha = Math.max(0.12, Math.min(0.7, 60 / Math.sqrt(others.length + 1) / 10));
  for (const [colour, points] of groups) {
    paint.strokeStyle = `rgb(${colours[colour]})`;
    // A path of a few lines at a time: what overlaps within one path would not grow darker.
    for (let k = 0; k < points.length; k += 4) {
      paint.beginPath();
      for (const i of points.slice(k, k + 4)) pathOf(paint, i);
      paint.stroke();
    }
  }
  paint.globalAlpha = front.length > 60 ? 0.7 : 0.95;
  paint.lineWidth = 1.8;
  for (const i of front) {
    paint.strokeStyle = `rgb(${colours[colourOf(i)]})`;
    paint.beginPath();
    pathOf(paint, i);
    paint.stroke();
  }
  paint.globalAlpha = 1;
  drawAxisLines(paint, width);
  const drawn = others.length + front.length;
  const rest = drawn < total ? `${grouped(drawn)} of ${grouped(total)} lines drawn, evenly chosen` : `${grouped(drawn)} ${drawn === 1 ? "line" : "lines"}`;
  $("lines").textContent = `${rest}${front.length ? "; thick: the front" : ""}. Drag along an axis to filter, click it to let go.`;
  highlight();
}

function drawAxisLines(paint, width) {
  const gap = axes.length > 1 ? axes[1].x - axes[0].x : width;
  for (const axis of axes) {
    const { column } = axis;
    paint.strokeStyle = css("muted");
    paint.lineWidth = 1;
    paint.beginPath(); paint.moveTo(axis.x + 0.5, span.top); paint.lineTo(axis.x + 0.5, span.top + span.height); paint.stroke();
    paint.font = "600 11px system-ui, sans-serif";
    paint.textAlign = "center";
    paint.textBaseline = "alphabetic";
    paint.fillStyle = RANGES.has(column) || CHOICES.has(column) ? css("accent") : css("ink");
    const half = Math.min(gap, 2 * Math.min(axis.x, width - axis.x));
    paint.fillText(clipped(paint, column.label, Math.max(40, half - 8)), axis.x, 16);
    const objective = OBJECTIVES.find(o => o.column === column);
    paint.font = "10px system-ui, sans-serif";
    paint.fillStyle = css("muted");
    if (objective) paint.fillText(objective.sign > 0 ? "↓ better" : "↑ better", axis.x, 31);
    paint.textAlign = "left";
    paint.textBaseline = "middle";
    let last = Infinity;
    for (const [place, text] of ticks(column, column.log, axis.lo, axis.hi, span.height / 34)) {
      const y = axisY(axis, place);
      if (Math.abs(last - y) < 12) continue;
      last = y;
      const label = clipped(paint, text, Math.max(24, Math.min(gap - 14, width - axis.x - 8)));
      paint.globalAlpha = 0.78;
      paint.fillStyle = css("paper");
      paint.fillRect(axis.x + 3, y - 6, paint.measureText(label).width + 4, 12);
      paint.globalAlpha = 1;
      paint.fillStyle = css("ink");
      paint.fillRect(axis.x - 2, Math.round(y), 5, 1);
      paint.fillText(label, axis.x + 5, y);
    }
    drawBrush(paint, axis);
  }
}

function drawBrush(paint, axis) {
  const { column } = axis, range = RANGES.get(column), choice = CHOICES.get(column);
  paint.fillStyle = css("accent");
  if (range) {
    const lo = axisY(axis, column.place(Math.max(range.lo, column.min), column.log));
    const hi = axisY(axis, column.place(Math.min(range.hi, column.max), column.log));
    paint.globalAlpha = 0.28;
    paint.fillRect(axis.x - 6, hi, 13, Math.max(2, lo - hi));
    paint.globalAlpha = 1;
    paint.fillRect(axis.x - 6, hi - 1, 13, 2);
    paint.fillRect(axis.x - 6, lo - 1, 13, 2);
  } else if (choice) {
    column.values.forEach((value, k) => {
      if (!choice[k] || value === null) return;
      const y = axisY(axis, column.numeric ? column.place(value, column.log) : k);
      paint.beginPath(); paint.arc(axis.x + 0.5, y, 5, 0, 7); paint.fill();
    });
  }
}

/** The lines of what is pointed at and of what is picked, and the brush under way. */
function highlight() {
  if (!axes.length) return;
  const width = lines.clientWidth, height = lines.clientHeight;
  const paint = fitCanvas(linesOver, width, height);
  paint.clearRect(0, 0, width, height);
  for (const [i, colour] of [[picked, css("front")], [hovered, css("ink")]]) {
    if (i < 0) continue;
    paint.beginPath();
    pathOf(paint, i);
    paint.strokeStyle = css("paper"); paint.lineWidth = 5; paint.stroke();
    paint.strokeStyle = colour; paint.lineWidth = 2.4; paint.stroke();
  }
  if (brush) {
    paint.fillStyle = css("accent");
    paint.globalAlpha = 0.3;
    paint.fillRect(brush.axis.x - 8, Math.min(brush.y0, brush.y1), 17, Math.abs(brush.y1 - brush.y0));
    paint.globalAlpha = 1;
  }
}

function buildParallel() {
  const box = $("parallel");
  box.append(lines, linesOver);
  lines.setAttribute("role", "img");
  lines.ariaLabel = "Parallel coordinates of the points shown. The filters beside it do the same as dragging along an axis.";
  const place = event => {
    const edge = lines.getBoundingClientRect();
    return [event.clientX - edge.left, event.clientY - edge.top];
  };
  const near = x => axes.reduce((best, axis) => Math.abs(axis.x - x) < Math.abs((best?.x ?? Infinity) - x) ? axis : best, null);
  lines.addEventListener("pointerdown", event => {
    const [x, y] = place(event), axis = near(x);
    if (event.button || !axis || Math.abs(axis.x - x) > 24 || event.pointerType === "touch") return;
    brush = { axis, y0: y, y1: y };
    lines.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  lines.addEventListener("pointermove", event => {
    const [x, y] = place(event), axis = near(x);
    lines.style.cursor = axis && Math.abs(axis.x - x) <= 24 ? "ns-resize" : "default";
    if (brush) { brush.y1 = y; highlight(); }
  });
  lines.addEventListener("pointerup", () => {
    if (!brush) return;
    const { axis, y0, y1 } = brush, { column } = axis;
    brush = null;
    if (Math.abs(y1 - y0) < 4) { clearFilter(column); return; }
    const at = y => {
      const place = axis.lo + (axis.hi - axis.lo) * (1 - (y - span.top) / span.height);
      return column.log && column.logical ? 10 ** place : place;
    };
    setRange(column, at(Math.max(y0, y1)), at(Math.min(y0, y1)));
  });
  lines.addEventListener("pointercancel", () => { brush = null; highlight(); });
}
