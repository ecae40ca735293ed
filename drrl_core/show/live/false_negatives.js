// The share of the weight that false negatives get, as their number grows, at one radius.

import { worstCase } from "./solver.js";
import {
  LOSSES, ORDER, PERCENT_AXIS, around, colour, evenly, explorer, histogram, named, orderText, percent, radiusDial, said, sorted, upperEnd,
} from "./kit.js";

const GRID = Array.from({ length: 11 }, (_, i) => i / 20);

/** `size` of the scores, the highest first, at even steps. */
function thinned(f, size) {
  const at = (k) => f.length - 1 - Math.floor(((size - 1 - k + 0.5) * f.length) / size);
  return Float64Array.from({ length: size }, (_, k) => f[at(k)]);
}

/** n scores, a share `noise` of them false, the highest first; with n and noise of the data, these themselves. */
export function mixed({ ordinary, wrong }, n, noise) {
  const few = Math.round(noise * n);
  const [a, b] = [thinned(ordinary, n - few), thinned(wrong, few)];
  const [f, isFalse] = [new Float64Array(n), new Uint8Array(n)];
  for (let i = 0, j = 0, k = 0; k < n; k++) {
    isFalse[k] = i >= a.length || (j < b.length && b[j] > a[i]) ? 1 : 0;
    f[k] = isFalse[k] ? b[j++] : a[i++];
  }
  return { f, isFalse, few };
}

/** The share of the weight on false negatives, and the worst case. */
export function heardOf({ f, isFalse }, order, radius) {
  const found = worstCase(f, order, radius);
  let sum = 0;
  for (let k = 0; k < f.length; k++) if (isFalse[k]) sum += found.weights[k];
  return [sum / f.length, found];
}

export default explorer("false_negatives", ({ data, panel, legend, slowly }) => {
  const rows = Object.fromEntries(
    data.views.map(([name, view]) => [name, { ordinary: sorted(view.ordinary), wrong: sorted(view.wrong) }]),
  );
  const sizes = Object.values(rows).map((row) => row.ordinary.length + row.wrong.length);
  const left = panel({ x: { label: "score of the negative" }, y: { label: "share of the distribution" }, about: "Where the worst case puts its weight, by score" });
  const right = panel({
    x: { ...PERCENT_AXIS, label: "share of the negatives that are false" },
    y: { ...PERCENT_AXIS, label: "their share of the weight" },
    about: "Weight of the false negatives as their share grows",
  });
  legend([["ordinary, in Q*", "ordinary"], ["false, in Q*", "false"], ["P: all alike", "outline"], ["SL", "kl"], ["order γ", "worst"], ["CCL", "regret"], ["breakdown e^-ρ", "beta"]]);
  const [ordinary, wrong, outline] = [left.bars("ordinary"), left.bars("false"), left.bars("outline")];
  const alike = right.path("faint");
  const lines = [1, 2, Infinity].map(() => right.path("curve"));
  const [here, breakdown] = [right.upright("faint"), right.upright("beta")];
  const dots = [1, 2, Infinity].map(() => right.dot("dot"));
  let tall = 0;
  const curves = new Map(); // scores, order, radius -> points along GRID
  const key = (scores, order, radius) => [scores, order, radius].join();

  /** What is missing of the three curves, a point each: from fewer negatives, the readouts use all. */
  function missing(scores, orders, radius) {
    const row = rows[scores];
    const n = Math.min(row.ordinary.length + row.wrong.length, 400);
    if (curves.size > 300) curves.clear();
    return [...new Set(orders)].flatMap((order) => {
      const of = key(scores, order, radius);
      if (!curves.has(of)) curves.set(of, []);
      const done = curves.get(of);
      return GRID.slice(done.length).map((noise) => () => done.push([noise, heardOf(mixed(row, n, noise), order, radius)[0]]));
    });
  }

  function draw({ noise, order, radius, scores }) {
    const row = rows[scores];
    const n = row.ordinary.length + row.wrong.length;
    const now = mixed(row, n, noise);
    const [heard, found] = heardOf(now, order, radius);
    const few = mixed(row, Math.min(n, 2000), noise);
    const ends = [1, Infinity].map((one) => heardOf(few, one, radius)[0]);
    const real = now.few / n;
    const [low, high] = around(now.f);
    const part = found.weights.map((w, k) => w * now.isFalse[k]);
    const bars = [found.weights, part, null].map((weights) => histogram(now.f, weights, low, high));
    tall = upperEnd(tall, Math.max(...bars.flatMap((bar) => [...bar])));
    left.fit(low, high, 0, tall);
    right.fit(0, 0.5, 0, 1);
    [ordinary, wrong, outline].forEach((set, i) => set(bars[i], low, high));
    const orders = [1, order, Infinity];
    slowly(key(scores, order, radius), () => missing(scores, orders, radius));
    alike([[0, 0], [0.5, 0.5]]);
    orders.forEach((one, i) => {
      const points = curves.get(key(scores, one, radius)) ?? [];
      lines[i](points, { style: `--tone: ${colour(one)}` });
      dots[i]([real, [ends[0], heard, ends[1]][i]], { style: `--tone: ${colour(one)}` });
    });
    here(real);
    breakdown(Math.exp(-radius));
    const title = `${percent(real, 0)} false negatives draw ${percent(heard, 0)} of the weight at order ${orderText(order)}${named(order)}, radius ${said(radius)} nats`;
    return {
      title,
      tone: colour(order),
      values: {
        heard: percent(heard),
        sl: percent(ends[0]),
        ccl: percent(ends[1]),
        most: percent(Math.min(1, (real * Math.exp(radius)) ** (1 - 1 / order))),
        breakdown: percent(Math.exp(-radius)),
        k2: real ? heard / real : null,
        k1: found.k1,
        truncated: percent(found.truncated),
      },
    };
  }
  return {
    dials: [
      evenly("noise", "share false", "", 0, 0.5, 0.01),
      ORDER,
      radiusDial(Math.max(...sizes)),
      { key: "scores", label: "scores", options: data.views.map(([name]) => [name, name]) },
    ],
    presets: LOSSES,
    readouts: [
      ["heard", "their weight", "", "share of the weight on false negatives"],
      ["sl", "… by SL", "", "at order 1 and the same radius"],
      ["ccl", "… by CCL", "", "at order ∞ and the same radius"],
      ["most", "at most", "", "(r e^ρ)^(1/γ*): no scores give more"],
      ["breakdown", "breakdown e^-ρ", "", "from this share on nothing is left to teach"],
      ["k2", "k₂", "× mean", "weight of one false negative"],
      ["k1", "top negative k₁", "× mean", "how much the highest score counts"],
      ["truncated", "weight zero", "", "share of the negatives not heard at all"],
    ],
    draw,
  };
});
