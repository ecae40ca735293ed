// What all explorers share: dials, panels, readouts, colours, and the loop from a dial to a picture.
//
// An explorer is `explorer(name, setup)`. `setup({ data, panel, legend, slowly, place })` runs once, draws
// what never moves, and returns
//   dials     in the order of the page; each is a name of the state (`model`), read and written
//   presets   [text, values of some dials]
//   readouts  [key, name, unit, sentence]
//   draw(now) moves the picture to the dials' values; returns { title, values, dead, tone }:
//             values, key -> number, text, or null for "none"; dead, dial -> why it has no effect

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = ["svg", "path", "line", "text", "g", "rect", "circle"];
const [LEFT, RIGHT, TOP, BOTTOM] = [56, 14, 26, 40]; // pixels around the axes
const STEPS = 40; // of the order's dial: evenly in 1/γ* = 1 - 1/γ, from SL to CCL
const TONES = [[0, 114, 178], [0, 158, 115], [213, 94, 0]]; // of SL, DrRL and CCL, as in all figures
const FULL = 6; // milliseconds between two frames that slow curves may take

export const make = (tag, attributes = {}, ...children) => {
  const node = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

/** A number as people write it: three digits, never a power of ten. */
export function said(value) {
  const size = Math.abs(value);
  if (size >= 1e5) return `${value < 0 ? "below -" : "over "}100,000`;
  if (size < 1e-6) return "0";
  return size < 1e-3 ? value.toPrecision(2) : value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3);
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
export const sorted = (scores) => Float64Array.from(scores).filter(Number.isFinite).sort().reverse();
export const orderText = (order) => (order === Infinity ? "∞" : String(+order.toPrecision(3)));
export const named = (order) => ({ 1: " (SL)", Infinity: " (CCL)" })[order] ?? "";

/** The next of 1, 2, 5, 10, 20, ... that is not below a value. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * power).find((end) => end >= value * (1 - 1e-12)) ?? value;
}

/** An upper end of an axis from 0, that stays while it reaches the value and at most 2.5 times as far. */
export const upperEnd = (now, value) => (now / 2.5 <= value && value <= now ? now : roundUp(value));

export function colour(order) {
  const at = 2 * (1 - 1 / order);
  const [from, to, share] = at < 1 ? [TONES[0], TONES[1], at] : [TONES[1], TONES[2], at - 1];
  return `rgb(${from.map((x, i) => Math.round(x + share * (to[i] - x))).join(" ")})`;
}

/** Order or number as it travels: JSON has no infinity. */
const sent = (value) => (value === Infinity ? "inf" : value);
export const received = (value) => (value === "inf" ? Infinity : value);

const ORDER_TICKS = [1, 1.25, 1.5, 2, 3, 5, 10, Infinity];
export const ORDER_AXIS = {
  label: "order γ (evenly in 1/γ*)",
  ticks: ORDER_TICKS.map((order) => [1 - 1 / order, orderText(order) + ({ 1: " SL", Infinity: " CCL" }[order] ?? "")]),
};
export const PERCENT_AXIS = { ticks: [0, 0.2, 0.4, 0.6, 0.8, 1].map((at) => [at, `${Math.round(100 * at)} %`]) };

export const ORDER = {
  key: "order", label: "order γ", unit: "", min: 1, max: Infinity,
  steps: STEPS,
  at: (order) => STEPS * (1 - 1 / order),
  value: (step) => (step >= STEPS ? Infinity : +(STEPS / (STEPS - step)).toPrecision(4)),
  text: (order) => `${orderText(order)}${named(order)}`,
};
export const LOSSES = [["SL", { order: 1 }], ["DrRL", { order: 2 }], ["CCL", { order: Infinity }]];

/** A dial over numbers at even steps. */
export function evenly(key, label, unit, min, max, step) {
  return {
    key, label, unit, min, max, steps: Math.round((max - min) / step),
    at: (value) => (value - min) / step,
    value: (at) => +(min + at * step).toPrecision(6),
    text: (value) => `${value} ${unit}`.trim(),
  };
}

/** A dial over given numbers, and over no others. */
export const listed = (key, label, unit, known, text = (value) => `${value} ${unit}`.trim()) => ({
  key, label, unit, known, text, min: known[0], max: known[known.length - 1], steps: known.length - 1,
  at: (value) => known.indexOf(value),
  value: (at) => known[at],
});

export const radiusDial = (n, label = "radius ρ") =>
  evenly("radius", label, "nats", 0, Math.ceil(20 * Math.log(Math.max(n, 2))) / 20, 0.05);

/** Axes of a picture, in true pixels so that letters keep their size. `fit(x0, x1, y0, y1)` sets their ends and says whether they moved. */
function panelIn(parent, { x = {}, y = {}, about, height = 230, plain = false }) {
  const svg = make("svg", { role: "img", "aria-label": about, height });
  const [ticks, marks] = [make("g", { class: "ticks" }), make("g")];
  const names = [make("text", { "text-anchor": "middle" }, x.label ?? ""), make("text", { x: 2, y: 14 }, y.label ?? "")];
  svg.append(ticks, marks, ...names);
  parent.append(svg);
  const at = { x0: 0, x1: 1, y0: 0, y1: 1, width: 0 };
  const tall = (value) => (y.log ? Math.log(Math.max(value, 1e-12)) : value);
  const px = (value) => LEFT + ((value - at.x0) / (at.x1 - at.x0)) * (at.width - LEFT - RIGHT);
  const py = (value) => {
    const share = (tall(value) - tall(at.y0)) / (tall(at.y1) - tall(at.y0));
    return height - BOTTOM - Math.min(Math.max(share, -0.05), 1.05) * (height - BOTTOM - TOP);
  };
  function marksOf({ ticks: given, log }, low, high, room) {
    if (given) return given.filter(([value]) => value >= low && value <= high);
    const step = roundUp((high - low) / Math.max(2, room));
    const found = [];
    if (log) for (let value = 10 ** Math.floor(Math.log10(low)); value <= high * 1.001; value *= 10) found.push(value);
    else for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-3; value += step) found.push(value);
    return found.filter((value) => !log || value >= low).map((value) => [value, String(+value.toPrecision(3)).replace(/^1e\+5$/, "100000")]);
  }
  function fit(x0, x1, y0, y1) {
    const width = svg.clientWidth || 420;
    if ([x0, x1, y0, y1, width].every((value, i) => value === Object.values(at)[i])) return false;
    Object.assign(at, { x0, x1, y0, y1, width });
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    names[0].setAttribute("x", (LEFT + width - RIGHT) / 2);
    names[0].setAttribute("y", height - 5);
    if (plain) return true;
    const [drawn, taken] = [[], []];
    const along = marksOf(x, x0, x1, (width - LEFT) / 70);
    for (const [value, text] of [...along.slice(0, 1), ...along.slice(1).reverse()]) {
      const half = 3.4 * text.length + 3; // the two ends first; none may touch another, or be cut off
      const middle = Math.min(px(value), width - half);
      if (taken.some(([from, to]) => middle - half < to && from < middle + half)) continue;
      taken.push([middle - half, middle + half]);
      drawn.push(make("text", { x: middle, y: height - BOTTOM + 17, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of marksOf(y, y0, y1, 5)) {
      drawn.push(make("line", { x1: LEFT, x2: width - RIGHT, y1: py(value), y2: py(value), class: "grid" }));
      drawn.push(make("text", { x: LEFT - 5, y: py(value) + 4, "text-anchor": "end" }, text));
    }
    ticks.replaceChildren(...drawn);
    return true;
  }
  /** A path, a dot or a text that moves; `set` takes attributes, null hides it. */
  function mark(tag, kind) {
    const node = make(tag, { class: kind });
    marks.append(node);
    return (attributes, text) => {
      node.style.display = attributes === null ? "none" : "";
      for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
      if (text !== undefined) node.textContent = text;
    };
  }
  const path = (kind) => {
    const set = mark("path", kind);
    return (points, style = {}) => set(points && { d: points.map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join(""), ...style });
  };
  const dot = (kind, r = 6) => {
    const set = mark("circle", kind);
    return (point, style = {}) => set(point && point.every(Number.isFinite) ? { cx: px(point[0]), cy: py(point[1]), r, ...style } : null);
  };
  const upright = (kind) => {
    const set = mark("line", kind);
    return (value) => set(value === null || !(value >= at.x0 && value <= at.x1) ? null : { x1: px(value), x2: px(value), y1: TOP, y2: height - BOTTOM });
  };
  const level = (kind) => {
    const set = mark("line", kind);
    return (value) => set(value === null ? null : { x1: LEFT, x2: at.width - RIGHT, y1: py(value), y2: py(value) });
  };
  /** Many dots as one path: points without length, whose round ends are seen. */
  const crowd = (kind) => {
    const set = mark("path", `${kind} crowded`);
    return (points, style = {}) => set({ d: points.map(([a, b]) => `M${px(a).toFixed(1)} ${py(b).toFixed(1)}h0`).join(""), ...style });
  };
  const bars = (kind) => {
    const set = mark("path", kind);
    return (shares, low, high) => {
      const step = (high - low) / shares.length;
      let d = `M${px(low).toFixed(1)} ${py(0)}`;
      shares.forEach((share, i) => (d += `V${py(share).toFixed(1)}H${px(low + (i + 1) * step).toFixed(1)}`));
      set({ d: `${d}V${py(0)}Z` });
    };
  };
  return { svg, fit, px, py, mark, path, dot, upright, level, crowd, bars };
}

/** Shares of a distribution over equal bins. weights have mean 1; without them all are alike. */
export function histogram(f, weights, low, high, bins = 48) {
  const shares = new Float64Array(bins);
  const scale = bins / (high - low);
  for (let j = 0; j < f.length; j++) {
    shares[Math.min(bins - 1, Math.floor((f[j] - low) * scale))] += (weights ? weights[j] : 1) / f.length;
  }
  return shares;
}

/** Room around scores, also where all are equal. */
export function around(f) {
  const pad = 0.04 * (f[0] - f[f.length - 1]) || 0.1;
  return [f[f.length - 1] - pad, f[0] + pad];
}

/** A label, a range input and a box for the same number; `put` shows a value. */
function rangeDial(dial, id, change, refuse) {
  const input = make("input", { type: "range", id, min: 0, max: dial.steps, step: 1 });
  const box = make("input", { type: "text", inputmode: "decimal", class: "number", "aria-label": `${dial.label}, typed`, autocomplete: "off" });
  const why = make("span", { class: "unit" }, dial.unit);
  const row = make("div", { class: "dial" }, make("label", { for: id }, dial.label), why, input, box);
  let [used, typing] = [NaN, false];
  const show = () => (box.value = used === Infinity ? "∞" : String(used));
  input.addEventListener("input", () => change(dial.value(Number(input.value))));
  box.addEventListener("input", () => (typing = true));
  box.addEventListener("blur", () => (typing = false));
  box.addEventListener("change", () => {
    typing = false;
    const text = box.value.trim().replace(",", ".").replace(/^(∞|inf|infinity)$/i, "Infinity");
    const value = text === "" ? NaN : Number(text);
    show(); // the number used, until another one is
    if (dial.known ? dial.known.includes(value) : value >= dial.min && value <= dial.max) return change(value);
    const ends = `from ${dial.min} to ${dial.max === Infinity ? "∞" : +dial.max.toPrecision(4)}`;
    const allowed = dial.known && dial.known.length < 9 ? `one of ${dial.known.join(", ")}` : `a number ${ends}`;
    refuse(`${dial.label}: “${text.replace("Infinity", "∞")}” is not ${allowed}${dial.unit && ` ${dial.unit}`}. It stays at ${box.value}.`);
  });
  function put(value, dead) {
    used = value;
    if (dial.max < value) {
      dial.max = value; // set from outside: the dial then reaches so far
      input.max = dial.steps = Math.ceil(dial.at(value));
    }
    input.value = Math.round(dial.at(value));
    if (!typing) show();
    input.setAttribute("aria-valuetext", dial.text(value));
    input.disabled = box.disabled = Boolean(dead);
    why.textContent = dead || dial.unit;
    row.classList.toggle("dead", Boolean(dead));
  }
  return { row, put };
}

/** A menu, or buttons of which one is pressed, of [value, text]. */
function choiceDial(dial, id, change) {
  const menu = make("select", { id }, ...dial.options.map(([value, text]) => make("option", { value }, text)));
  menu.addEventListener("change", () => change(menu.value));
  const row = make("div", { class: "dial choice" }, make("label", { for: id }, dial.label), menu);
  return { row, put: (value) => (menu.value = value) };
}

let made = 0; // explorers on this page, for ids

export function explorer(name, setup) {
  function render({ model, el }) {
    const id = `${name}-${++made}`;
    el.dataset.explorer = name;
    const data = model.get("data");
    const [panels, key] = [make("div", { class: "panels" }), make("div", { class: "legend" })];
    const all = [];
    const panel = (options) => (all.push(panelIn(panels, options)), all[all.length - 1]);
    const legend = (entries) =>
      key.replaceChildren(...entries.map(([text, kind, style = ""]) => make("span", {}, make("i", { class: kind, style }), text)));
    const queue = { key: null, jobs: [] };
    /** Run slow jobs between frames, and draw as they end; a new key drops the old ones. */
    function slowly(of, jobs) {
      if (queue.key !== of) Object.assign(queue, { key: of, jobs: jobs() });
    }
    const { dials, presets = [], readouts, draw, least = "17rem" } = setup({ data, panel, legend, slowly, place: (node) => panels.append(node) });

    el.style.setProperty("--least", least);
    const alert = make("p", { class: "refused", role: "alert" });
    const title = make("p", { class: "title" });
    const [rows, list] = [make("div", { class: "dials" }), make("dl")];
    const parts = dials.map((dial) => {
      const change = (value) => turn({ [dial.key]: value });
      const part = dial.options
        ? choiceDial(dial, `${id}-${dial.key}`, change)
        : rangeDial(dial, `${id}-${dial.key}`, change, (text) => (alert.textContent = text));
      rows.append(part.row);
      return part;
    });
    const values = readouts.map(([what, label, unit, sentence]) => {
      const value = make("dd", { "data-readout": what });
      const entry = make("div", {}, make("dt", {}, label), value, make("dd", { class: "help" }, sentence));
      list.append(entry);
      return (given) => {
        entry.hidden = given === undefined;
        const text = typeof given === "string" ? given : given === null || !Number.isFinite(given) ? "none" : `${said(given)} ${unit}`.trim();
        if (value.textContent !== text) value.textContent = text;
      };
    });

    const read = () => Object.fromEntries(dials.map(({ key: each }) => [each, received(model.get(each))]));
    const first = read();
    let [frame, waiting, dirty, turning] = [0, 0, false, false];
    function turn(changes) {
      alert.textContent = "";
      turning = true; // several dials are one move
      for (const [each, value] of Object.entries(changes)) model.set(each, sent(value));
      turning = false;
      model.save_changes();
      soon();
    }
    /** Draw now, so that the next frame has it; at most once a frame. */
    function soon() {
      if (turning) return;
      if (frame) return (dirty = true);
      dirty = false;
      frame = requestAnimationFrame(() => {
        frame = 0;
        if (dirty) soon();
        else if (queue.jobs.length) waiting ||= setTimeout(work); // when the frame is out
      });
      show();
    }
    function work() {
      waiting = 0;
      const end = performance.now() + FULL;
      while (queue.jobs.length && performance.now() < end) queue.jobs.shift()();
      soon();
    }
    const buttons = make("div", { class: "presets", role: "group", "aria-label": "set the dials" });
    for (const [text, changes] of [...presets, ["reset", first]]) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => turn(changes));
      buttons.append(button);
    }
    const copied = make("div", { class: "copied" });
    const line = copyable(copied, "papermill", data.notebook && dials.length);
    const link = copyable(copied, "link", model.link && dials.length);
    el.replaceChildren(make("div", { class: "bar" }, ...(dials.length ? [buttons] : []), key), rows, alert, title, panels, list, copied);
    for (const each of el.querySelectorAll("input, select")) each.dataset.lmSuppressShortcuts = ""; // JupyterLab's own use of arrows

    function show() {
      const now = read();
      const { title: text, values: found, dead = {}, tone } = draw(now);
      parts.forEach((part, i) => part.put(now[dials[i].key], dead[dials[i].key]));
      values.forEach((put, i) => put(found[readouts[i][0]]));
      if (title.textContent !== text) title.textContent = text;
      if (tone) el.style.setProperty("--tone", tone);
      line(`-p view ${quoted(String(new URLSearchParams(dials.map(({ key: each }) => [`${name}.${each}`, sent(now[each])]))))}`);
      if (model.link) link(model.link());
    }
    const heard = dials.map((dial) => `change:${dial.key}`);
    for (const event of heard) model.on(event, soon);
    const size = new ResizeObserver(soon);
    size.observe(panels);
    soon();
    return () => {
      cancelAnimationFrame(frame);
      clearTimeout(waiting);
      size.disconnect();
      for (const event of heard) model.off(event, soon);
    };
  }
  return { render };
}

const quoted = (text) => (/^[\w.+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** A line to be copied, by hand or by its button; nothing where it is not `wanted`. */
function copyable(parent, label, wanted) {
  if (!wanted) return () => {};
  const code = make("code");
  const button = make("button", { type: "button" }, `copy ${label}`);
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      document.execCommand("copy"); // a page from a file may not use the clipboard
    }
  });
  parent.append(make("div", {}, button, code));
  return (text) => code.textContent !== text && (code.textContent = text);
}
