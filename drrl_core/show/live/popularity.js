// Accuracy over what the lists consist of, a curve a loss, as one number b turns for all of them.

import { evenly, explorer, percent, roundUp } from "./kit.js";

const ACROSS = { popular: "mean train pairs of a listed item", covers: "share of the catalogue listed" };

/** Where a curve is at b, between the two that were ranked: { b, popular, covers, valid, accuracy }; at its ends beyond them. */
export function along(points, b) {
  const next = points.findIndex((each) => each.b >= b);
  if (next <= 0) return points[next === 0 ? 0 : points.length - 1];
  const [from, to] = [points[next - 1], points[next]];
  const share = (b - from.b) / (to.b - from.b);
  return Object.fromEntries(Object.keys(from).map((key) => [key, from[key] + share * (to[key] - from[key])]));
}

export default explorer("popularity", ({ data, panel, legend }) => {
  const worlds = new Map(data.worlds.map(([name, curves]) => [name, new Map(curves)]));
  const axes = Object.fromEntries(Object.entries(ACROSS).map(([key, label]) => [key, panel({ x: { label, ...(key === "covers" ? { ticks: [0, 0.2, 0.4, 0.6, 0.8, 1].map((at) => [at, `${100 * at} %`]) } : {}) }, y: { label: `test ${data.metric}` }, about: `Accuracy over the ${label}, a curve a loss`, height: 300 })]));
  const drawn = data.losses.map(([loss, { colour }]) => ({
    loss,
    style: { style: `--of: ${colour}; stroke: ${colour}` },
    ring: { style: `--of: ${colour}` },
    marks: Object.entries(axes).map(([key, each]) => [key, each.path("curve"), each.dot("median", 4), each.dot("median", 8)]),
  }));
  legend([...data.losses.map(([, { label, colour }]) => [label, "", `background: ${colour}`])]);

  function draw({ b, where }) {
    const curves = worlds.get(where);
    const all = [...curves.values()].flat();
    const [low, high] = [Math.min, Math.max].map((end) => end(...all.map((each) => each.accuracy)));
    for (const [key, each] of Object.entries(axes)) each.fit(0, key === "covers" ? 1 : roundUp(Math.max(...all.map((one) => one[key]))), low - 0.1 * (high - low), high + 0.1 * (high - low));
    const [values, now] = [{}, []];
    for (const { loss, style, ring, marks } of drawn) {
      const points = curves.get(loss);
      const here = points && along(points, b);
      for (const [key, path, before, after] of marks) {
        const spot = (one) => (one ? [one[key], one.accuracy] : null);
        path(points ? points.map(spot) : null, style);
        before(spot(points && along(points, 0)), ring);
        after(spot(here), ring);
      }
      values[loss] = here ? `${here.accuracy.toFixed(4)} · ${here.popular.toFixed(0)} · ${percent(here.covers, 0)}` : undefined;
      if (here) now.push(here.accuracy);
    }
    const apart = Math.max(...now) / Math.min(...now) - 1;
    const told = now.length > 1 ? `: the losses lie ${percent(apart, 0)} apart` : "";
    return { title: `${where}, ${data.metric} at b = ${b}${b === 0 ? ", as published" : ""}${told}`, values };
  }
  return {
    dials: [
      evenly("b", "b, how much popularity is put back", "", data.low, data.high, 0.05),
      { key: "where", label: "data set", options: data.worlds.map(([name]) => [name, name]) },
    ],
    presets: [["as published", { b: 0 }]],
    readouts: data.losses.map(([loss, { label }]) => [loss, label, "", `test ${data.metric} · mean train pairs of a listed item · share of the catalogue listed; small dot: b = 0`]),
    draw,
  };
});
