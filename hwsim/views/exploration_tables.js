// The point that was picked with its layers, the table of the front, and files to take away.

const WORDS = { batch: "--batch", seq_len: "--seq-len", kv_len: "--kv-len", formats: "--formats", device: "--device" };
const MOST_ROWS = 500;

/** A word as a shell takes it. */
const quoted = word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/** A value as YAML reads it back: a text that would be read as something else is put into quotation marks. */
function yaml(value) {
  if (typeof value !== "string") return String(value);
  return /^[A-Za-z_][\w./-]*$/.test(value) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value) ? value : JSON.stringify(value);
}

/** Options of `hwsim run` that set a configuration, and the parameters for which it has none. */
function optionsOf(i) {
  const options = [], without = [];
  for (const column of PARAMETERS) {
    const value = column.value(i), { name } = column;
    if (value === null) continue;
    if (name in WORDS) options.push(`${WORDS[name]} ${quoted(String(value))}`);
    else if (/^(model|formats|weights|activations)(\.|$)/.test(name)) without.push(name);
    else options.push(`--set ${quoted(`${name}=${yaml(value)}`)}`);
  }
  return [options.join(" "), without];
}

function pairs(columns, i, exact) {
  return columns.flatMap(column => [el("dt", {}, column.label), el("dd", {}, exact ? shown(column.value(i), column.unit, 5) : column.text(i))]);
}

function tagsOf(i) {
  const tags = [el("span", { className: "tag" }, STAGES[STAGE[i]])];
  if (FRONT[i]) tags.push(el("span", { className: "tag front" }, "on the front"));
  if (FAILED[i]) tags.push(el("span", { className: "tag warn" }, "failed"));
  else if (!FEASIBLE[i]) tags.push(el("span", { className: "tag warn" }, "infeasible"));
  return tags;
}

function tipOf(i) {
  const parts = [el("div", {}, el("b", {}, `Trial ${trialOf(i)} `), ...tagsOf(i))];
  if (FAILED[i]) parts.push(el("div", { className: "sub" }, MARKS.error.value(i)));
  else parts.push(el("dl", {}, ...pairs(METRICS, i)));
  parts.push(el("dl", {}, ...pairs(PARAMETERS, i)));
  return parts;
}

/** Trials of the same configuration: found by the codes of its parameters. */
function twins(i) {
  const same = [];
  for (let k = 0; k < COUNT; k++) {
    if (k !== i && PARAMETERS.every(column => column.codes ? column.codes[k] === column.codes[i] : column.numbers[k] === column.numbers[i])) same.push(k);
  }
  return same;
}

function layersOf(trial) {
  const rows = DATA.layers.rows[trial];
  if (!rows) return null;
  return rows.map(row => Object.fromEntries(DATA.layers.columns.map(({ name, text }, k) => [name, text && row[k] !== null ? DATA.layers.texts[row[k]] : row[k]])));
}

// --- tables that sort ------------------------------------------------------------------------------------------------

/** A table whose heads sort it. `columns`: { title, left, key(row), cell(row), most }; `rows` are drawn anew by `fill`. */
function sortable(columns, { sort = 0, descending = false, onrow = null, caption }) {
  const head = el("tr"), body = el("tbody");
  let rows = [], by = sort, down = descending;
  const draw = () => {
    const { key } = columns[by], sign = down ? -1 : 1;
    const empty = v => v === null || v === undefined || v !== v;
    const order = rows.map(row => [key(row), row]).sort(([a], [b]) =>
      empty(a) || empty(b) ? empty(a) - empty(b) : sign * (typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : a - b));
    body.replaceChildren(...order.slice(0, MOST_ROWS).map(([, row]) => {
      const line = el("tr", {}, ...columns.map(column => el("td", { className: (column.left ? "l" : "") + (column.narrow ? " n" : ""), title: column.hint?.(row) ?? "" }, column.cell(row))));
      onrow?.(line, row);
      return line;
    }));
    [...head.cells].forEach((th, k) => k === by ? th.setAttribute("aria-sort", down ? "descending" : "ascending") : th.removeAttribute("aria-sort"));
  };
  columns.forEach((column, k) => {
    const button = el("button", { type: "button", title: column.hintHead ?? "" }, column.title);
    button.addEventListener("click", () => {
      if (by === k) down = !down; else { by = k; down = !!column.most; }
      draw();
    });
    head.append(el("th", { scope: "col", className: column.left ? "l" : "" }, button));
  });
  const table = el("table", { ariaLabel: caption }, el("thead", {}, head), body);
  return { table, fill(given) { rows = given; draw(); }, ordered: () => rows };
}

// --- the point picked ------------------------------------------------------------------------------------------------

function pick(i) {
  picked = i;
  drawOver();
  highlight();
  showPicked();
  markRows();
}

function showPicked() {
  const box = $("picked");
  if (picked < 0) {
    box.replaceChildren(el("div", { className: "empty" }, "Pick a point: its configuration, its options and its layers appear."));
    $("layerpanel").hidden = true;
    return;
  }
  const i = picked, trial = trialOf(i), [options, without] = optionsOf(i);
  const close = el("button", { type: "button", ariaLabel: "let go of the point", title: "let go (Escape)" }, "×");
  close.addEventListener("click", () => pick(-1));
  const parts = [el("header", { className: "controls" }, el("h2", {}, `Trial ${trial}`), el("span", {}, ...tagsOf(i)), close)];
  close.style.marginLeft = "auto";
  if (FAILED[i]) parts.push(el("p", { className: "tag warn" }, MARKS.error.value(i)));
  else parts.push(el("h3", {}, "Metrics"), el("dl", { id: "metrics" }, ...pairs(METRICS, i, true)));
  parts.push(el("h3", {}, "Configuration"), el("dl", { id: "configuration" }, ...pairs(PARAMETERS, i, true)));
  if (options) {
    const copy = el("button", { type: "button", id: "copy" }, "Copy");
    copy.addEventListener("click", async () => {
      copy.textContent = await copied(options) ? "Copied" : "Select and copy";
      setTimeout(() => { copy.textContent = "Copy"; }, 1600);
    });
    parts.push(el("h3", {}, "Options of hwsim run", copy), el("pre", { id: "options", tabIndex: 0 }, ...optionWords(options)));
  }
  if (without.length) parts.push(el("p", { className: "how" }, `Without an option: ${without.join(", ")}.`));
  const same = twins(i);
  if (same.length) parts.push(el("h3", {}, "The same configuration elsewhere"), twinTable(same));
  box.replaceChildren(...parts);
  box.scrollTop = 0;
  showLayers(i, same, options);
}

/** The options, broken across lines only between two of them. */
function optionWords(options) {
  return options.split(/ (?=--)/).flatMap((option, k) => [...(k ? [" "] : []), el("span", {}, option)]);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren($("options"));
    return document.execCommand("copy");
  }
}

function twinTable(same) {
  const shownOnes = OBJECTIVES.map(o => o.column);
  const columns = [
    { title: "trial", left: true, key: trialOf, cell: k => { const go = el("button", { type: "button" }, `${trialOf(k)} (${STAGES[STAGE[k]]})`); go.addEventListener("click", () => pick(k)); return go; } },
    ...shownOnes.map(column => ({ title: column.label, key: k => column.value(k), cell: k => column.text(k) })),
  ];
  const made = sortable(columns, { caption: "The same configuration in other trials" });
  made.fill(same.slice(0, 50));
  return el("div", { className: "scroll" }, made.table);
}

const PARTS = [["compute_cycles", "compute", "#0072b2"], ["stall_cycles", "stall", "#e69f00"], ["overhead_cycles", "overhead", "#999999"]];
const LAYER_FORMS = { time_s: ["time", "s"], energy_j: ["energy", "J"], macs: ["MACs", ""], bytes_offchip: ["off-chip", "B"], utilization: ["utilization", "%"] };

function showLayers(i, same, options) {
  const own = layersOf(trialOf(i)), twin = own ? undefined : same.find(k => layersOf(trialOf(k)));
  const rows = own ?? (twin === undefined ? null : layersOf(trialOf(twin)));
  $("layerpanel").hidden = false;
  $("layerkey").replaceChildren();
  if (!rows) {
    const kept = Object.keys(DATA.layers.rows).length;
    $("h-layers").textContent = `Layers of trial ${trialOf(i)}`;
    $("layersof").replaceChildren(el("p", { className: "how", id: "nolayers" },
      `${kept ? `Layers are kept for ${grouped(kept)} of ${grouped(COUNT)} points, those on the front first` : "No layers are kept in this file"}. Get those of this one with: `,
      el("code", {}, `hwsim run MODEL${/--device/.test(options) ? "" : " --device DEVICE"} ${options}`.trim())));
    return;
  }
  const total = rows.reduce((sum, row) => sum + (row.time_s ?? 0), 0), longest = Math.max(...rows.map(row => row.time_s ?? 0), 0) || 1;
  const names = DATA.layers.columns.map(column => column.name);
  const split = PARTS.filter(([name]) => names.includes(name));
  const columns = [{ title: "#", key: row => row.at, cell: row => String(row.at + 1) },
    { title: "layer", left: true, narrow: true, key: row => row.name, cell: row => row.name ?? "", hint: row => [row.name, row.kind, row.format, row.unit].filter(Boolean).join(" · ") },
    { title: "time", most: true, key: row => row.time_s, cell: row => shown(row.time_s, "s") },
    { title: "share", most: true, left: true, key: row => row.time_s, cell: row => timeBar(row, split, longest, total) },
    { title: "kind", left: true, key: row => row.kind, cell: row => row.kind ?? "" }];
  for (const name of names) {
    if (["name", "kind", "time_s", "format", "unit", ...PARTS.map(part => part[0])].includes(name)) continue;
    const [title, unit] = LAYER_FORMS[name] ?? [name, ""], text = DATA.layers.columns.find(column => column.name === name).text;
    columns.push({ title, left: text, most: !text, key: row => row[name], cell: row => row[name] === null ? "–" : text ? row[name] : name === "macs" && !row[name] ? "–" : shown(row[name], unit) });
  }
  const made = sortable(columns, { sort: 2, descending: true, caption: "Layers of the point" });
  made.table.id = "layers";
  made.fill(rows.map((row, at) => ({ ...row, at })));
  $("h-layers").textContent = `Layers of trial ${trialOf(twin ?? i)}${own ? "" : ` (${STAGES[STAGE[twin]]}, the same configuration)`}: ${grouped(rows.length)}, ${shown(total, "s")}`;
  $("layerkey").replaceChildren(...split.map(([, name, colour]) => { const box = el("i"); box.style.background = colour; return el("span", {}, box, name); }));
  $("layersof").replaceChildren(el("div", { className: "scroll", tabIndex: 0 }, made.table));
}

function timeBar(row, split, longest, total) {
  const bar = el("div", { className: "bar", title: total ? `${(100 * row.time_s / total).toFixed(1)} % of the time` : "" });
  const cycles = split.reduce((sum, [name]) => sum + (row[name] ?? 0), 0);
  const pieces = cycles ? split.map(([name, title, colour]) => [(row[name] ?? 0) / cycles, title, colour]) : [[1, "time", "#0072b2"]];
  for (const [share, title, colour] of pieces) {
    const piece = el("i", { title: `${title} ${shown(row.time_s * share, "s")}` });
    piece.style.width = `${(100 * share * (row.time_s ?? 0) / longest).toFixed(2)}%`;
    piece.style.background = colour;
    bar.append(piece);
  }
  return bar;
}

// --- the front -------------------------------------------------------------------------------------------------------

let frontTable = null;

function buildFront() {
  const value = column => ({ title: column.label, hintHead: column.name, left: !column.numeric, key: i => column.value(i), cell: i => column.text(i) });
  const objectives = OBJECTIVES.map(o => o.column);
  const columns = [
    { title: "trial", left: true, key: trialOf, cell: i => { const go = el("button", { type: "button", ariaLabel: `pick trial ${trialOf(i)}` }, String(trialOf(i))); go.addEventListener("click", event => { event.stopPropagation(); pick(i); }); return go; } },
    ...objectives.map(value), ...PARAMETERS.map(value), ...METRICS.filter(column => !objectives.includes(column)).map(value)];
  frontTable = sortable(columns, { sort: objectives.length ? 1 : 0, descending: OBJECTIVES[0]?.sign < 0, caption: "The front",
    onrow(line, i) {
      line.dataset.trial = trialOf(i);
      line.addEventListener("click", () => pick(i));
      line.addEventListener("mouseenter", () => { hovered = i; drawOver(); highlight(); });
      line.addEventListener("mouseleave", () => { hovered = -1; drawOver(); highlight(); });
    } });
  frontTable.table.id = "fronttable";
  $("front").append(frontTable.table);
  $("csvfront").addEventListener("click", () => download("front", FRONT_POINTS.filter(i => MASK[i])));
  $("csvshown").addEventListener("click", () => {
    const all = [];
    for (let i = 0; i < COUNT; i++) if (MASK[i]) all.push(i);
    download("points", all);
  });
}

function showFront() {
  const rows = FRONT_POINTS.filter(i => MASK[i]);
  frontTable.fill(rows);
  const most = rows.length > MOST_ROWS ? `; the first ${MOST_ROWS} rows, the file has them all` : "";
  $("frontcount").textContent = FRONT_POINTS.length ? `${grouped(rows.length)} of ${grouped(FRONT_POINTS.length)} shown${most}` : "there is none";
  $("csvfront").disabled = !rows.length;
  $("csvshown").disabled = !SHOWN;
  markRows();
}

function markRows() {
  const trial = picked < 0 ? null : String(trialOf(picked));
  for (const line of frontTable.table.tBodies[0].rows) line.classList.toggle("picked", line.dataset.trial === trial);
}

/** Rows as a CSV file: numbers in full, what is unknown left empty. */
function csv(points) {
  const columns = [MARKS.trial, MARKS.stage, ...PARAMETERS, ...METRICS, MARKS.feasible, MARKS.front, MARKS.error];
  const field = value => {
    const text = value === null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map(column => field(column.name)).join(","), ...points.map(i => columns.map(column => field(column.value(i))).join(","))].join("\n") + "\n";
}

function download(name, points) {
  const link = el("a", { href: URL.createObjectURL(new Blob([csv(points)], { type: "text/csv" })), download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
