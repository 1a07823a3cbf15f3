// What the pointer and the keys do on the scatter: show a point, pick it, filter by a box.

function nearest(x, y, within = CELL) {
  if (!cells) return -1;
  const column = Math.floor(x / CELL), row = Math.floor(y / CELL);
  let best = -1, least = within * within;
  for (let r = Math.max(0, row - 1); r <= Math.min(cells.down - 1, row + 1); r++) {
    for (let c = Math.max(0, column - 1); c <= Math.min(cells.across - 1, column + 1); c++) {
      const cell = r * cells.across + c;
      for (let k = cells.start[cell]; k < cells.start[cell + 1]; k++) {
        const i = cells.points[k];
        // A point of the front wins over one as near that it hides.
        const far = (px[i] - x) ** 2 + (py[i] - y) ** 2 - (FRONT[i] ? 3 : 0);
        if (far < least) { least = far; best = i; }
      }
    }
  }
  return best;
}

function hover(i, x, y) {
  if (i !== hovered) {
    hovered = i;
    drawOver();
    highlight();
    if (i >= 0) $("tip").replaceChildren(...tipOf(i));
  }
  const tip = $("tip");
  tip.hidden = i < 0;
  if (i < 0) return;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, x + 16 + width > innerWidth ? x - width - 14 : x + 16)}px`;
  tip.style.top = `${Math.max(6, Math.min(innerHeight - height - 6, y + 14))}px`;
}

function hoverAtPoint(i) {
  const box = base.getBoundingClientRect();
  hover(i, box.left + px[i], box.top + py[i]);
}

function unplace(x, y) {
  const u = domain.x[0] + (x - frame.left) / frame.width * (domain.x[1] - domain.x[0]);
  const v = domain.y[0] + (frame.top + frame.height - y) / frame.height * (domain.y[1] - domain.y[0]);
  const value = (column, log, place) => log && column.logical ? 10 ** place : place;
  return [value(view.x, view.xlog, u), value(view.y, view.ylog, v)];
}

/** The nearest point shown in a direction: little aside, and not far. */
function neighbour(from, dx, dy) {
  let best = -1, least = Infinity;
  for (let i = 0; i < COUNT; i++) {
    if (!MASK[i] || i === from || px[i] !== px[i] || py[i] !== py[i]) continue;
    const along = (px[i] - px[from]) * dx + (py[i] - py[from]) * dy;
    if (along < 0.5) continue;
    const aside = Math.abs((px[i] - px[from]) * dy) + Math.abs((py[i] - py[from]) * dx);
    const cost = along + 2.5 * aside;
    if (cost < least) { least = cost; best = i; }
  }
  return best;
}

function buildScatter() {
  $("scatter").append(base, over);
  base.setAttribute("role", "application");
  base.ariaLabel = "Scatter of the points. Arrow keys go from point to point, Home and End to the ends of the front, Enter picks, Escape lets go.";
  const place = event => {
    const box = base.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  base.addEventListener("pointermove", event => {
    const [x, y] = place(event);
    if (pointer) {
      pointer.x1 = x;
      pointer.y1 = y;
      pointer.moved ||= Math.hypot(x - pointer.x0, y - pointer.y0) > 5;
      if (pointer.moved) { hover(-1); drawOver(); return; }
    }
    hover(nearest(x, y), event.clientX, event.clientY);
  });
  base.addEventListener("pointerleave", () => { if (!pointer) hover(-1); });
  base.addEventListener("pointerdown", event => {
    if (event.button) return;
    const [x, y] = place(event);
    if (event.pointerType === "mouse") {
      pointer = { x0: x, y0: y, x1: x, y1: y, moved: false };
      base.setPointerCapture(event.pointerId);
    }
  });
  base.addEventListener("pointerup", event => {
    const drag = pointer;
    pointer = null;
    dragged = !!drag?.moved;
    if (dragged) {
      const [a, b] = unplace(Math.min(drag.x0, drag.x1), Math.max(drag.y0, drag.y1));
      const [c, d] = unplace(Math.max(drag.x0, drag.x1), Math.min(drag.y0, drag.y1));
      setRange(view.x, a, c);
      if (view.y !== view.x) setRange(view.y, b, d);
      drawOver();
    }
  });
  base.addEventListener("pointercancel", () => { pointer = null; hover(-1); });
  base.addEventListener("click", event => {
    if (dragged) { dragged = false; return; }  // the end of a box is no choice of a point
    const [x, y] = place(event), i = nearest(x, y, event.pointerType === "touch" ? 22 : CELL);
    if (i >= 0) { pick(i); if (event.pointerType === "touch") hover(-1); }
  });
  base.addEventListener("dblclick", () => { clearFilter(view.x); clearFilter(view.y); });
  base.addEventListener("keydown", event => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const onFront = () => FRONT_POINTS.filter(i => MASK[i] && px[i] === px[i] && py[i] === py[i]).sort((i, j) => px[i] - px[j]);
    let next = -1;
    if (event.key in ways) {
      const from = hovered >= 0 ? hovered : picked >= 0 && MASK[picked] ? picked : -1;
      next = from < 0 ? onFront()[0] ?? MASK.indexOf(1) : neighbour(from, ...ways[event.key]);
    } else if (event.key === "Home") next = onFront()[0] ?? -1;
    else if (event.key === "End") next = onFront().at(-1) ?? -1;
    else if ((event.key === "Enter" || event.key === " ") && hovered >= 0) pick(hovered);
    else if (event.key === "Escape") { hover(-1); pick(-1); }
    else return;
    event.preventDefault();
    if (next >= 0) hoverAtPoint(next);
  });
  base.addEventListener("blur", () => hover(-1));
}
