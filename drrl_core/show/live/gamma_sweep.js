// Truncation, skew, data use and recorded accuracy against the order, one size held fixed.

import { etaFromRadius, turned, weightFromRadius } from "./solver.js";
import {
  LOSSES, ORDER, ORDER_AXIS, PERCENT_AXIS, colour, evenly, explorer, named, orderText, percent, received, sorted,
} from "./kit.js";

const ORDERS = Array.from({ length: 21 }, (_, i) => ORDER.value(2 * i));
const x = (order) => 1 - 1 / order;
const QUANTITIES = [["truncated", "weight zero"], ["k1", "k₁ (× mean)"], ["effectiveShare", "effective share"]];
const HELD = { radius: "radius ρ", weight: "weight c", eta: "Cressie–Read η", temperature: "temperature λ" };

export default explorer("gamma_sweep", ({ data, panel, legend, slowly }) => {
  const rows = Object.fromEntries(data.sources.map(([name, scores]) => [name, sorted(scores)]));
  const most = Math.max(...Object.values(rows).map((f) => f.length));
  const recorded = (data.recorded ?? []).map((one) => ({ ...one, order: received(one.order) }));
  const accuracy = recorded.map((one) => one.value);
  const height = recorded.length ? 180 : 215;
  const panels = QUANTITIES.map(([key, label]) =>
    panel({ x: { ...ORDER_AXIS, label: "order γ" }, y: key === "k1" ? { label, log: true } : { ...PERCENT_AXIS, label }, about: `${label} against the order`, height }),
  );
  const last = recorded.length && panel({ x: { ...ORDER_AXIS, label: "order γ" }, y: { label: `recorded ${data.metric}` }, about: "Recorded accuracy against the order", height });
  legend([["as held", "plain"], ["at a fixed radius ρ", "faint"], ["the dial's order", "dot"], ...(last ? [["a trained model", "black"]] : [])]);
  const reference = panels.map((each) => each.path("faint"));
  const held = panels.map((each) => each.path("plain"));
  const heres = [...panels, ...(last ? [last] : [])].map((each) => each.upright("beta"));
  const dots = panels.map((each) => each.dot("dot"));
  const known = last && last.crowd("trained");
  const missing = last && last.mark("text", "item");
  const curves = new Map(); // scores, radius, hold -> order -> worst case's numbers
  const key = (...parts) => parts.join();

  function jobs(scores, radius, hold) {
    if (curves.size > 60) curves.clear();
    return ["radius", hold].flatMap((how) => {
      const of = key(scores, radius, how);
      if (!curves.has(of)) curves.set(of, new Map());
      const todo = ORDERS.filter((order) => !curves.get(of).has(order));
      return todo.map((order) => () => curves.get(of)?.set(order, turned(rows[scores], order, radius, how)));
    });
  }
  const points = (scores, radius, how, quantity) =>
    [...(curves.get(key(scores, radius, how)) ?? [])].sort(([a], [b]) => a - b).map(([order, found]) => [x(order), found[quantity]]);

  function draw({ order, radius, hold, scores }) {
    const found = turned(rows[scores], order, radius, hold);
    slowly(key(scores, radius, hold), () => jobs(scores, radius, hold));
    panels.forEach((each, i) => {
      const quantity = QUANTITIES[i][0];
      each.fit(-0.03, 1.03, ...(quantity === "k1" ? [0.9, 1.2 * most] : [0, 1]));
      reference[i](points(scores, radius, "radius", quantity));
      held[i](points(scores, radius, hold, quantity));
      dots[i]([x(order), found[quantity]]);
    });
    let here = [];
    if (last) {
      const shown = recorded.filter((one) => one.hold === hold);
      here = shown.filter((one) => Math.abs(1 / one.order - 1 / order) < 1e-3).map((one) => one.value);
      const pad = 0.1 * (Math.max(...accuracy) - Math.min(...accuracy)) || 0.01;
      last.fit(-0.03, 1.03, Math.min(...accuracy) - pad, Math.max(...accuracy) + pad);
      known(shown.map((one) => [x(one.order), one.value]));
      missing(shown.length ? null : { x: last.px(0.5), y: height / 2, "text-anchor": "middle" }, "not run");
    }
    heres.forEach((set) => set(x(order)));
    return {
      title: `${HELD[hold]} held, order ${orderText(order)}${named(order)}: ${percent(found.truncated, 0)} have weight zero, ${percent(found.effectiveShare, 0)} are used`,
      tone: colour(order),
      values: {
        truncated: percent(found.truncated),
        k1: found.k1,
        effectiveShare: percent(found.effectiveShare),
        radius: found.radius,
        weight: weightFromRadius(found.radius, order),
        eta: order === Infinity ? null : etaFromRadius(found.radius, order),
        accuracy: !last ? undefined : here.length ? (here.reduce((a, b) => a + b) / here.length).toFixed(4) : "not run",
      },
    };
  }
  return {
    least: "9rem",
    dials: [
      ORDER,
      evenly("radius", "ρ at order 2", "nats", 0.05, Math.ceil(20 * Math.log(Math.max(most, 2))) / 20, 0.05),
      { key: "hold", label: "held", options: Object.entries(HELD) },
      { key: "scores", label: "scores", options: data.sources.map(([name]) => [name, name]) },
    ],
    presets: LOSSES,
    readouts: [
      ["truncated", "weight zero", "", "share of the negatives not heard at all"],
      ["k1", "top negative k₁", "× mean", "how much the highest score counts"],
      ["effectiveShare", "effective share", "", "as if so many counted alike, the rest not"],
      ["radius", "radius ρ", "nats", "of the ball at this order"],
      ["weight", "weight c", "", "e^(ρ/γ*) of that ball"],
      ["eta", "Cressie–Read η", "", "the same size, another unit; not at ∞"],
      ["accuracy", `recorded ${data.metric ?? ""}`, "", "of a model trained at this order"],
    ],
    draw,
  };
});
