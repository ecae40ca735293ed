// One score vector: what the worst case over a ball (radius ρ) or a penalty (temperature λ) listens to.

import { dualObjective, etaFromRadius, penalised, weightFromRadius, worstCase } from "./solver.js";
import {
  LOSSES, ORDER, around, colour, evenly, explorer, histogram, named, orderText, percent, radiusDial, said, sorted, upperEnd,
} from "./kit.js";

export default explorer("worst_case", ({ data, panel, legend }) => {
  const rows = Object.fromEntries(data.sources.map(([name, scores]) => [name, sorted(scores)]));
  const most = Math.max(...Object.values(rows).map((f) => f.length));
  const score = { label: "score of the negative" };
  const left = panel({ x: score, y: { label: "share of the distribution" }, about: "Histogram of the scores, and of the worst case" });
  const right = panel({ x: score, y: { label: "weight (mean 1)" }, about: "Weight of a negative against its score" });
  legend([["P: all alike", "crowd"], ["Q*: the worst case", "worst"], ["β: no weight below", "beta"], ["your β", "ghost"]]);
  const [crowd, worst] = [left.bars("crowd"), left.bars("worst")];
  const [one, curve] = [right.level("one"), right.path("curve")];
  const lines = ["beta", "ghost"].map((kind) => [left.upright(kind), right.upright(kind)]);
  const tall = [0, 0];
  let [seen, base, ends] = [null, null, null];

  function draw({ order, radius, temperature, hold, shift, scores }) {
    const f = rows[scores];
    if (f !== seen) [seen, ends] = [f, around(f)];
    base = histogram(f, null, ...ends);
    const ball = hold === "radius";
    const found = ball ? worstCase(f, order, radius) : order === Infinity ? worstCase(f, order, 0) : penalised(f, order, temperature);
    const shares = histogram(f, found.weights, ...ends);
    [Math.max(...shares, ...base), Math.max(found.k1, 2)].forEach((value, i) => (tall[i] = upperEnd(tall[i], value)));
    left.fit(...ends, 0, tall[0]);
    right.fit(...ends, 0, tall[1]);
    crowd(base, ...ends);
    worst(shares, ...ends);
    one(1);
    const every = Math.max(1, Math.floor(f.length / 300));
    const points = [];
    for (let j = 0; j < f.length; j += j < 200 ? 1 : every) points.push([f[j], found.weights[j]]);
    curve(points);
    const movable = ball && radius > 0 && Number.isFinite(found.dual);
    const ghost = !movable || !shift ? null : order === 1 ? Math.max(found.dual + shift, 1e-6) : found.dual + shift;
    lines[0].forEach((set) => set(order === 1 ? null : found.dual));
    lines[1].forEach((set) => set(order === 1 ? null : ghost));
    return {
      title: `Order ${orderText(order)}${named(order)}: ${percent(found.truncated, 0)} of the negatives have weight zero, the top one counts ${said(found.k1)} times the mean`,
      tone: colour(order),
      dead: {
        [ball ? "temperature" : "radius"]: "not held",
        ...(movable ? {} : { shift: "no ball" }),
      },
      values: {
        value: found.value,
        dual: Number.isFinite(found.dual) ? found.dual : null,
        radius: found.radius,
        weight: weightFromRadius(found.radius, order),
        eta: order === Infinity ? null : etaFromRadius(found.radius, order),
        k1: found.k1,
        truncated: percent(found.truncated),
        effectiveShare: percent(found.effectiveShare),
        gap: ghost === null ? undefined : dualObjective(f, ghost, order, radius) - found.value,
      },
    };
  }

  return {
    dials: [
      ORDER,
      radiusDial(most),
      evenly("temperature", "temperature λ", "score", 0.02, 2, 0.02),
      evenly("shift", "move β by", "score", -0.5, 0.5, 0.02),
      { key: "hold", label: "held", options: [["radius", "radius ρ: a ball"], ["temperature", "temperature λ: a penalty"]] },
      { key: "scores", label: "scores", options: data.sources.map(([name]) => [name, name]) },
    ],
    presets: LOSSES,
    readouts: [
      ["value", "worst case", "score", "mean score of the negatives as the adversary weighs them"],
      ["k1", "top negative k₁", "× mean", "how much the highest score counts"],
      ["truncated", "weight zero", "", "share of the negatives not heard at all"],
      ["effectiveShare", "effective share", "", "as if so many counted alike, the rest not"],
      ["dual", "dual β, or τ", "score", "the margin; at order 1 the temperature"],
      ["radius", "radius ρ", "nats", "how far Q* is from “all alike”"],
      ["weight", "weight c", "", "e^(ρ/γ*): the factor in DrRL and CCL"],
      ["eta", "Cressie–Read η", "", "the same size, another unit; not at ∞"],
      ["gap", "duality gap", "score", "what your β costs over the best one"],
    ],
    draw,
  };
});
