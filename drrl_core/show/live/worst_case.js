// One score vector, two dials: what the worst case over a ball listens to.
//
// State (model): `scores` (any order), `order` ("1" to "inf", text, since JSON has no infinity) and
// `radius` (nats). Both are read and written: `view.order = 2` in Python turns the dial.

import { worstCase } from "./solver.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [470, 310, 58, 12, 46, 34];
const BINS = 48;
const STEPS = 40; // of the order's dial: evenly in 1/γ* = 1 - 1/γ, from SL to CCL

const READOUTS = [
  ["value", "worst case", "score", "the mean score of the negatives as the adversary weighs them"],
  ["k1", "top negative", "× mean", "how much the highest score counts"],
  ["truncated", "weight zero", "%", "share of the negatives that are not heard at all"],
  ["effectiveShare", "effective share", "%", "as if so many negatives counted alike, the others not at all"],
];

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "g", "rect"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A number as people write it: three digits, no powers of ten where they can be avoided. */
function said(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** The next of 1, 2, 5, 10, 20, ... that is not below a value. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * power).find((end) => end >= value) ?? value;
}

/** Orange at CCL, blue at SL, green between: the losses' colours, along 1/γ. */
function colour(order) {
  const [sl, drrl, ccl] = [[0, 114, 178], [0, 158, 115], [213, 94, 0]];
  const at = 2 * (1 - 1 / order);
  const [from, to, share] = at < 1 ? [sl, drrl, at] : [drrl, ccl, at - 1];
  return `rgb(${from.map((x, i) => Math.round(x + share * (to[i] - x))).join(" ")})`;
}

/** Axes with ticks, and room for what moves. `draw.ends(x0, x1, y1)` sets their ends. */
function panel(xLabel, yLabel, description) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": description });
  const [ticks, marks] = [make("g"), make("g")];
  const x = make("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xLabel);
  const y = make("text", { x: 4, y: 14 }, yLabel);
  svg.append(ticks, marks, x, y);
  const scale = { x0: 0, x1: 1, y1: 1 };
  const px = (value) => LEFT + ((value - scale.x0) / (scale.x1 - scale.x0)) * (WIDTH - LEFT - RIGHT);
  const py = (value) => HEIGHT - BOTTOM - (value / scale.y1) * (HEIGHT - BOTTOM - TOP);
  const ends = (x0, x1, y1) => {
    if (scale.x0 === x0 && scale.x1 === x1 && scale.y1 === y1) return;
    Object.assign(scale, { x0, x1, y1 });
    const drawn = [];
    const step = roundUp((x1 - x0) / 6);
    for (let at = Math.ceil(x0 / step) * step; at <= x1; at += step) {
      drawn.push(make("text", { x: px(at), y: HEIGHT - BOTTOM + 19, "text-anchor": "middle" }, String(+at.toPrecision(3))));
    }
    for (let value = 0; value <= y1 * 1.001; value += y1 / 5) {
      drawn.push(make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value), class: "grid" }));
      drawn.push(make("text", { x: LEFT - 6, y: py(value) + 5, "text-anchor": "end" }, String(+value.toPrecision(3))));
    }
    ticks.replaceChildren(...drawn);
  };
  return { svg, marks, px, py, ends };
}

/** Shares of a distribution over equal bins, as the outline of a histogram. */
function histogram(f, weights, low, high) {
  const shares = new Float64Array(BINS);
  for (let j = 0; j < f.length; j++) {
    const bin = Math.min(BINS - 1, Math.floor(((f[j] - low) / (high - low)) * BINS));
    shares[bin] += (weights ? weights[j] : 1) / f.length;
  }
  return shares;
}

function stairs(shares, low, high, { px, py }) {
  const step = (high - low) / shares.length;
  let path = `M${px(low)} ${py(0)}`;
  shares.forEach((share, i) => {
    path += `V${py(share).toFixed(1)}H${px(low + (i + 1) * step).toFixed(1)}`;
  });
  return `${path}V${py(0)}Z`;
}

function orderOf(text) {
  const order = text === "inf" ? Infinity : Number(text);
  return order >= 1 ? order : NaN;
}

const orderText = (order) => (order === Infinity ? "∞" : said(order));
const named = (order) => (order === 1 ? " (Softmax Loss)" : order === Infinity ? " (Cosine Contrastive Loss)" : "");

/** A labelled range input, and the number it stands at. */
function dial(name, label, attributes) {
  const input = make("input", { type: "range", id: `dial-${name}`, ...attributes });
  const shown = make("output", { for: input.id });
  const row = make("div", { class: "dial" }, make("label", { for: input.id }, label), input, shown);
  return { row, input, shown };
}

function render({ model, el }) {
  el.dataset.explorer = "worst-case";
  const order = dial("order", "order γ", { min: 0, max: STEPS, step: 1 });
  const radius = dial("radius", "radius ρ", { min: 0, step: 0.05 });
  const left = panel("score of the negative", "share", "Histogram of the scores, and of the worst case");
  const right = panel("score of the negative", "weight (mean 1)", "Weight of a negative against its score");
  const [crowd, worst] = [make("path", { class: "crowd" }), make("path", { class: "worst" })];
  const curve = make("path", { class: "curve" });
  const one = make("line", { class: "one" });
  left.marks.append(crowd, worst);
  [["all alike", "crowd"], ["worst case", "worst"]].forEach(([text, kind], row) => {
    left.marks.append(
      make("rect", { x: LEFT + 10, y: TOP + 6 + 22 * row, width: 18, height: 12, class: kind }),
      make("text", { x: LEFT + 35, y: TOP + 17 + 22 * row }, text),
    );
  });
  right.marks.append(one, curve);
  const title = make("p", { class: "title", "aria-live": "polite" });
  const list = make("dl");
  const values = Object.fromEntries(READOUTS.map(([key, name, unit, help]) => {
    const value = make("dd", { title: help });
    list.append(make("div", {}, make("dt", {}, name), value, make("dd", { class: "help" }, help)));
    return [key, (number) => (value.textContent = unit === "%" ? `${said(100 * number)} %` : `${said(number)} ${unit}`)];
  }));
  const presets = make("div", { class: "presets", role: "group", "aria-label": "losses" });
  for (const [name, text] of [["Softmax Loss", "1"], ["DrRL", "2"], ["Cosine Contrastive Loss", "inf"]]) {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => change("order", text));
    presets.append(button);
  }
  el.replaceChildren(
    make("div", { class: "dials" }, order.row, radius.row, presets),
    title,
    make("div", { class: "panels" }, left.svg, right.svg),
    list,
  );

  let f, low, high, base, frame;
  function readScores() {
    f = Float64Array.from(model.get("scores")).filter(Number.isFinite).sort().reverse();
    const pad = 0.04 * (f[0] - f[f.length - 1]) || 0.1;
    [low, high] = [f[f.length - 1] - pad, f[0] + pad];
    base = histogram(f, null, low, high);
    radius.input.max = Math.ceil(20 * Math.log(f.length)) / 20;
    draw();
  }

  function change(name, value) {
    model.set(name, value);
    model.save_changes();
  }

  function draw() {
    const [gamma, rho] = [orderOf(model.get("order")), model.get("radius")];
    if (!(gamma >= 1 && rho >= 0)) {
      title.textContent = `order must lie in [1, inf] and radius in [0, inf), got ${model.get("order")} and ${rho}`;
      return;
    }
    const found = worstCase(f, gamma, rho);
    order.input.value = Math.round(STEPS * (1 - 1 / gamma));
    radius.input.value = rho;
    order.shown.textContent = orderText(gamma);
    radius.shown.textContent = `${said(rho)} nats`;
    order.input.setAttribute("aria-valuetext", `${orderText(gamma)}${named(gamma)}`);
    radius.input.setAttribute("aria-valuetext", `${said(rho)} nats`);
    const shares = histogram(f, found.weights, low, high);
    left.ends(low, high, roundUp(Math.max(...shares, ...base)));
    right.ends(low, high, roundUp(Math.max(found.k1, 2)));
    crowd.setAttribute("d", stairs(base, low, high, left));
    worst.setAttribute("d", stairs(shares, low, high, left));
    const every = Math.max(1, Math.floor(f.length / 400));
    let path = "";
    for (let j = 0; j < f.length; j += j < 200 ? 1 : every) {
      path += `${path ? "L" : "M"}${right.px(f[j]).toFixed(1)} ${right.py(found.weights[j]).toFixed(1)}`;
    }
    curve.setAttribute("d", path);
    for (const [name, at] of [["x1", LEFT], ["x2", WIDTH - RIGHT], ["y1", right.py(1)], ["y2", right.py(1)]]) one.setAttribute(name, at);
    el.style.setProperty("--tone", colour(gamma));
    title.textContent = `Order ${orderText(gamma)}${named(gamma)}: ${said(100 * found.truncated)} % of the negatives have weight zero, the top one counts ${said(found.k1)} times the mean`;
    for (const [key, show] of Object.entries(values)) show(found[key]);
  }

  function later() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  }

  order.input.addEventListener("input", () => {
    const turn = Number(order.input.value);
    change("order", turn === STEPS ? "inf" : String(STEPS / (STEPS - turn)));
  });
  radius.input.addEventListener("input", () => change("radius", Number(radius.input.value)));
  model.on("change:order", later);
  model.on("change:radius", later);
  model.on("change:scores", readScores);
  readScores();
}

export default { render };
