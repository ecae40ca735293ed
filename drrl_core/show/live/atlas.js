// The plane order × radius of a score vector, and where the users of trained losses lie on it.

import { worstCase } from "./solver.js";
import { LOSSES, ORDER, ORDER_AXIS, colour, explorer, listed, named, orderText, percent, radiusDial, said, sorted } from "./kit.js";

const x = (order) => 1 - 1 / order;

export default explorer("atlas", ({ data, panel, legend }) => {
  const f = sorted(data.scores);
  const plane = panel({ x: ORDER_AXIS, y: { label: "radius ρ (nats)" }, about: "Orders and radii, with contours of the top negative's weight", height: 330 });
  const rings = (points) => points.map((ring) => `M${ring.map(([a, b]) => `${plane.px(a).toFixed(1)} ${plane.py(b).toFixed(1)}`).join("L")}`).join("");
  const shades = data.shades.map((each) => [each, plane.mark("path", "shade")]);
  const contours = data.contours.map(([level, lines]) => [level, lines, plane.mark("path", "contour"), plane.mark("text", "contours")]);
  const losses = data.losses;
  const clouds = losses.map(() => plane.crowd("cloud"));
  const medians = losses.map(() => plane.dot("median", 7));
  const here = plane.dot("ring", 8);
  legend([...losses.map(([, { label, colour: tone }]) => [label, "", `background: ${tone}`]), ["weight zero: darker, more", "shade"], ["k₁ of the top negative", "contour"], ["the dials", "ring"]]);

  function still() {
    for (const [each, set] of shades) set({ d: rings(each) });
    for (const [level, lines, path, text] of contours) {
      path({ d: rings(lines) });
      const [a, b] = lines[0][Math.floor(lines[0].length / 3)];
      text({ x: plane.px(a), y: plane.py(b) - 3 }, `k₁ ${level}`);
    }
  }

  function draw({ epoch, order, radius }) {
    if (plane.fit(-0.03, 1.03, 0, data.highest)) still();
    const at = data.clouds[epoch] ?? {};
    const values = {};
    losses.forEach(([loss, { colour: tone }], i) => {
      const points = at[loss] ?? [];
      const style = { style: `--of: ${tone}` };
      clouds[i](points.map(([a, b]) => [a, b]), style);
      const middle = (axis) => [...points].map((point) => point[axis]).sort((a, b) => a - b)[Math.floor(points.length / 2)];
      medians[i](points.length ? [middle(0), middle(1)] : null, style);
      values[loss] = points.length ? middle(1) : null;
    });
    const found = worstCase(f, order, radius);
    here([x(order), radius]);
    return {
      title: `${losses.length ? `Users after epoch ${epoch}; at` : "At"} order ${orderText(order)}${named(order)} and ${said(radius)} nats ${percent(found.truncated, 0)} have weight zero, the top one counts ${said(found.k1)} times the mean`,
      tone: colour(order),
      values: { ...values, k1: found.k1, truncated: percent(found.truncated) },
    };
  }
  const epochs = Object.keys(data.clouds).map(Number).sort((a, b) => a - b);
  return {
    dials: [...(epochs.length ? [listed("epoch", "epoch", "", epochs)] : []), ORDER, radiusDial(f.length)],
    presets: LOSSES,
    readouts: [
      ...losses.map(([loss, { label }]) => [loss, `${label}: median ρ`, "nats", "radius of the user in the middle"]),
      ["k1", "top negative k₁", "× mean", "at the dials, for one user's scores"],
      ["truncated", "weight zero", "", "at the dials, for one user's scores"],
    ],
    draw,
  };
});
