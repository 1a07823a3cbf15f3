// Puts the views together: one pass a frame over whatever changed.

const pending = new Set();
let tablesLater = 0;

function changed(what) {
  if (!pending.size) requestAnimationFrame(redraw);
  pending.add(what);
}

function redraw() {
  const what = new Set(pending);
  pending.clear();
  if (what.has("filters")) applyFilters();
  if (what.has("theme")) COLOURS.clear();
  if (what.has("size")) stamps.clear();  // another screen may have finer pixels
  setColours();
  if (hovered >= 0 && !MASK[hovered]) hover(-1);
  drawScatter();
  drawParallel();
  if (what.has("filters") || what.has("theme") || what.has("size")) syncFilters();
  if (what.has("filters")) {
    clearTimeout(tablesLater);
    tablesLater = setTimeout(showFront, SHOWN > 5000 || FRONT_POINTS.length > 100 ? 120 : 0);
  }
}

// --- what is on which axis -------------------------------------------------------------------------------------------

function options(select, columns, none) {
  const groups = [["metrics", columns.filter(c => c.role === "metric")], ["parameters", columns.filter(c => c.role === "parameter")], ["", columns.filter(c => c.role === "mark")]];
  if (none) select.append(el("option", { value: "" }, none));
  for (const [name, members] of groups) {
    if (!members.length) continue;
    const made = members.map(column => el("option", { value: String(COLUMNS.indexOf(column)) }, column.label));
    if (name) select.append(el("optgroup", { label: name }, ...made)); else select.append(...made);
  }
}

function buildAxes() {
  const all = [...METRICS, ...PARAMETERS];
  const objectives = OBJECTIVES.map(o => o.column);
  const choices = [...new Set([...objectives, ...METRICS, ...PARAMETERS])].filter(c => !c.constant);
  view.x = choices[0] ?? all[0];
  view.y = choices[1] ?? view.x;
  const plain = PARAMETERS.find(c => !c.numeric && c.values.length > 1 && c.values.length <= PALETTE.length);
  view.color = objectives[2] ?? plain ?? PARAMETERS.find(c => !c.constant) ?? null;
  const logs = { x: $("xlog"), y: $("ylog"), color: $("clog") };
  for (const [key, none] of [["x", ""], ["y", ""], ["color", "nothing"], ["size", "nothing"]]) {
    const select = $(key);
    options(select, key === "color" && STAGES.length > 1 ? [...all, MARKS.stage] : key === "size" ? all.filter(c => c.numeric) : all, none);
    const take = () => {
      const column = view[key];
      if (key in logs) {
        view[`${key[0]}log`] = column?.log ?? false;
        logs[key].checked = view[`${key[0]}log`];
        logs[key].disabled = !column?.logical;
      }
    };
    select.value = view[key] ? String(COLUMNS.indexOf(view[key])) : "";
    take();
    select.addEventListener("change", () => {
      view[key] = select.value === "" ? null : COLUMNS[+select.value];
      take();
      changed("axes");
    });
  }
  for (const [key, box] of Object.entries(logs)) box.addEventListener("change", () => { view[`${key[0]}log`] = box.checked; changed("axes"); });
  for (const key of ["fit", "ghosts"]) $(key).addEventListener("change", () => { view[key] = $(key).checked; changed("axes"); });
  $("swap").addEventListener("click", () => {
    [view.x, view.y, view.xlog, view.ylog] = [view.y, view.x, view.ylog, view.xlog];
    $("x").value = String(COLUMNS.indexOf(view.x));
    $("y").value = String(COLUMNS.indexOf(view.y));
    for (const key of ["x", "y"]) { logs[key].checked = view[`${key}log`]; logs[key].disabled = !view[key].logical; }
    changed("axes");
  });
}

// --- what does not change --------------------------------------------------------------------------------------------

function bestOf(objective) {
  let best = -1;
  for (const i of FRONT_POINTS) if (best < 0 || objective.sign * (objective.column.numbers[i] - objective.column.numbers[best]) < 0) best = i;
  return best;
}

function buildCards() {
  const cards = [];
  for (const objective of OBJECTIVES) {
    const i = bestOf(objective);
    if (i < 0) continue;
    const card = el("button", { type: "button", className: "card", title: "pick it" }, el("span", {}, `${objective.sign > 0 ? "least" : "most"} ${objective.column.label}`),
      el("b", {}, objective.column.text(i)), el("small", {}, `trial ${trialOf(i)}`));
    card.addEventListener("click", () => { pick(i); $("scatter").scrollIntoView({ block: "nearest" }); });
    cards.push(card);
  }
  cards.push(el("div", { className: "card" }, el("span", {}, "on the front"), el("b", {}, grouped(FRONT_POINTS.length)),
    el("small", {}, `of ${grouped(COUNT - INFEASIBLE_COUNT - FAILED_COUNT)} feasible points`)));
  const volume = DATA.hypervolume[DATA.main], random = DATA.hypervolume.random;
  if (volume !== undefined && OBJECTIVES.length > 1) {
    cards.push(el("div", { className: "card", title: "Share of the box between the best values and the reference point that the front dominates" },
      el("span", {}, "hypervolume"), el("b", {}, volume.toFixed(4)), el("small", {}, random !== undefined && DATA.main !== "random" ? `random: ${random.toFixed(4)}` : "share of its box")));
  }
  if (INFEASIBLE_COUNT + FAILED_COUNT) cards.push(el("div", { className: "card" }, el("span", {}, "infeasible"), el("b", {}, grouped(INFEASIBLE_COUNT)),
    el("small", {}, FAILED_COUNT ? `and ${grouped(FAILED_COUNT)} failed` : "break a constraint, or an objective is unknown")));
  $("cards").append(...cards);
}

function buildSensitivity() {
  const data = DATA.sensitivity;
  $("sensitivitynote").textContent = data.note;
  if (!data.effects.length) { $("effects").hidden = true; return; }
  for (const metric of [...new Set(data.effects.map(effect => effect.metric))]) {
    const own = data.effects.filter(effect => effect.metric === metric).sort((a, b) => b.effect - a.effect);
    const box = el("div", {}, el("h3", {}, BY_NAME.get(metric)?.label ?? metric, own[0].log ? el("span", { className: "sub" }, " logarithm") : ""));
    for (const effect of own) {
      const bar = el("div"), fill = el("i"), wide = v => `${(100 * Math.max(0, Math.min(1, v))).toFixed(2)}%`;
      fill.style.width = wide(effect.effect);
      bar.append(fill);
      let text = `${(100 * effect.effect).toFixed(1)} %`;
      if (effect.low !== null) {
        const whisker = el("u"), lo = Math.max(0, effect.low), hi = Math.min(1, effect.high);
        whisker.style.left = wide(lo);
        whisker.style.width = wide(Math.max(0, hi - lo));
        bar.append(whisker);
        text += `, 95 % interval ${(100 * lo).toFixed(1)} to ${(100 * hi).toFixed(1)} %`;
      }
      const label = BY_NAME.get(effect.parameter)?.label ?? effect.parameter;
      box.append(el("div", { className: "effect", title: `${label}: ${text}` }, el("span", {}, shortened(label, 19)), bar, el("b", {}, `${(100 * effect.effect).toFixed(1)} %`)));
    }
    $("effects").append(box);
  }
}

function buildVolume() {
  const stages = Object.entries(DATA.history).filter(([, points]) => points.length > 1);
  $("volumepanel").hidden = !stages.length;
  if (!stages.length) return;
  const w = 640, h = 210, left = 46, right = 90, top = 10, bottom = 34;
  const most = Math.max(...stages.flatMap(([, points]) => points.map(p => p[0]))), high = Math.max(1e-9, ...stages.flatMap(([, points]) => points.map(p => p[1])));
  const low = Math.min(...stages.map(([, points]) => points[0][1]));
  const floor = low > 0.5 * high ? low - 0.1 * (high - low) : 0;
  const x = n => left + (w - left - right) * n / most, y = v => top + (h - top - bottom) * (1 - (v - floor) / ((high - floor) * 1.05 || 1));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Hypervolume against trials");
  const put = (tag, attributes, text) => {
    const node = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
  };
  for (const [value, text] of steps(floor, high, 4)) {
    put("line", { x1: left, x2: w - right, y1: y(value), y2: y(value), stroke: "var(--grid)" });
    put("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text);
  }
  for (const [value] of steps(0, most, 5)) {
    if (Number.isInteger(value)) put("text", { x: x(value), y: h - bottom + 16, "text-anchor": "middle" }, grouped(value));
  }
  put("text", { x: w - right, y: h - 3, "text-anchor": "end" }, "trials");
  let lastLabel = -Infinity;
  stages.sort((a, b) => b[1].at(-1)[1] - a[1].at(-1)[1]).forEach(([stage, points]) => {
    const colour = stage === "random" ? "var(--muted)" : stage === DATA.main ? "var(--accent)" : "var(--front)";
    put("path", { d: points.map(([n, v], k) => `${k ? "L" : "M"}${x(n).toFixed(1)} ${y(v).toFixed(1)}`).join(""), fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round", ...(stage === "random" ? { "stroke-dasharray": "5 3" } : {}) });
    const [n, v] = points.at(-1);
    lastLabel = Math.max(lastLabel + 14, y(v) + 4);
    put("text", { x: x(n) + 6, y: lastLabel, style: `fill:${colour}` }, `${stage} ${v.toFixed(4)}`);
  });
  $("volume").append(svg);
}

function buildNotes() {
  $("notespanel").hidden = !DATA.notes.length;
  $("notes").append(...DATA.notes.map(note => el("li", {}, note)));
  $("predictorpanel").hidden = !DATA.predictors.length;
  if (!DATA.predictors.length) return;
  const names = [...new Set(DATA.predictors.flatMap(Object.keys))];
  const columns = names.map(name => ({ title: name, left: DATA.predictors.some(one => typeof one[name] === "string"), key: one => one[name], cell: one => typeof one[name] === "object" && one[name] !== null ? JSON.stringify(one[name]) : shown(one[name] ?? null, "") }));
  const made = sortable(columns, { caption: "Predictors" });
  made.fill(DATA.predictors);
  $("predictors").append(made.table);
}

function buildTheme() {
  const button = $("theme"), kinds = ["", "light", "dark"];
  const show = () => { button.textContent = { "": "◐ auto", light: "☀ light", dark: "☾ dark" }[document.documentElement.dataset.theme ?? ""]; };
  button.addEventListener("click", () => {
    const next = kinds[(kinds.indexOf(document.documentElement.dataset.theme ?? "") + 1) % 3];
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    show();
    changed("theme");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changed("theme"));
  show();
}

buildFilters();
buildAxes();
buildCards();
buildScatter();
buildParallel();
buildFront();
buildSensitivity();
buildVolume();
buildNotes();
buildTheme();
$("reset").addEventListener("click", clearFilters);
if (matchMedia("(max-width: 820px)").matches) $("side").open = false;
$("side").addEventListener("toggle", () => changed("size"));
const watch = new ResizeObserver(() => changed("size"));
watch.observe($("scatter"));
watch.observe($("parallel"));
setColours();
showPicked();
changed("filters");

// For the browser's console: where a trial or an axis is drawn, what is shown, and to pick a trial.
const indexOfTrial = trial => { for (let i = 0; i < COUNT; i++) if (trialOf(i) === trial) return i; return -1; };
globalThis.exploration = {
  shown: () => SHOWN,
  place(trial) { const i = indexOfTrial(trial); return i < 0 || px[i] !== px[i] ? null : [px[i], py[i]]; },
  axis(name) {
    const axis = axes.find(({ column }) => column.name === name);
    return axis ? { x: axis.x, top: span.top, height: span.height } : null;
  },
  pick(trial) { pick(indexOfTrial(trial)); },
  picked: () => picked < 0 ? null : trialOf(picked),
};
