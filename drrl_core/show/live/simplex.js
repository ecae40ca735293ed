// Three items: the balls of SL, DrRL and CCL on the triangle of their weights, the worst case in each.

import { worstCase } from "./solver.js";
import { LOSSES, ORDER, colour, evenly, explorer, named, orderText, said } from "./kit.js";

const HIGH = Math.sqrt(3) / 2;
const CORNERS = [[0, 0], [1, 0], [0.5, HIGH]];
const CENTRE = [0.5, HIGH / 3];
const BALLS = [["kl", "Kullback–Leibler (SL)"], ["renyi", "Rényi (DrRL)"], ["regret", "regret (CCL)"]];

/** The worst case of three scores: weights of sum 1 in the items' own order, and its value. */
export function worstOfThree(scores, order, radius) {
  const from = [0, 1, 2].sort((a, b) => scores[b] - scores[a]);
  const found = worstCase(Float64Array.from(from, (item) => scores[item]), order, radius);
  const weights = [0, 0, 0];
  from.forEach((item, place) => (weights[item] = found.weights[place] / 3));
  return { weights, value: found.value };
}

/** Scores of the items that rise in a direction, radians. */
export const scoresAt = (angle) =>
  CORNERS.map(([x, y]) => ((x - CENTRE[0]) * Math.cos(angle) + (y - CENTRE[1]) * Math.sin(angle)) / 2);

export default explorer("simplex", ({ panel, legend }) => {
  const height = 290;
  const { svg, fit, mark } = panel({ about: "Triangle of the weights of three items, with three balls around its centre", height, plain: true });
  legend([["P: all alike", "black"], ...BALLS.map(([kind, text]) => [text, kind])]);
  const draws = Object.fromEntries(["triangle", ...BALLS.map(([kind]) => `ball ${kind}`)].map((kind) => [kind, mark("path", kind)]));
  const arrow = mark("path", "plain arrow");
  const centre = mark("circle", "black");
  const stars = BALLS.map(([kind]) => mark("circle", `star ${kind}`));
  const names = CORNERS.map(() => mark("text", "item"));
  const rims = Array.from({ length: 241 }, (_, i) => scoresAt((2 * Math.PI * i) / 240));

  function draw({ order, radius, angle }) {
    fit(0, 1, 0, 1);
    const width = svg.clientWidth || 420;
    const side = Math.min((height - 66) / HIGH, width - 120);
    const left = (width - side) / 2;
    const at = ([x, y]) => [left + side * x, height - 40 - side * y];
    const place = (weights) => at([0, 1].map((axis) => weights.reduce((sum, w, i) => sum + w * CORNERS[i][axis], 0)));
    const path = (points) => `M${points.map((point) => point.map((x) => x.toFixed(1)).join(" ")).join("L")}Z`;
    draws.triangle({ d: path(CORNERS.map(at)) });
    const [cx, cy] = at(CENTRE);
    centre({ cx, cy, r: 4 });
    const turned = (angle / 180) * Math.PI;
    const [dx, dy] = [Math.cos(turned), -Math.sin(turned)];
    const [tx, ty] = [cx + 0.3 * side * dx, cy + 0.3 * side * dy];
    arrow({ d: `M${cx} ${cy}L${tx} ${ty}M${tx - 9 * dx + 5 * dy} ${ty - 9 * dy - 5 * dx}L${tx} ${ty}L${tx - 9 * dx - 5 * dy} ${ty - 9 * dy + 5 * dx}` });
    const scores = scoresAt(turned);
    const values = {};
    BALLS.forEach(([kind], i) => {
      const one = [1, order, Infinity][i];
      draws[`ball ${kind}`]({ d: path(rims.map((each) => place(worstOfThree(each, one, radius).weights))), style: `--of: ${colour(one)}` });
      const star = worstOfThree(scores, one, radius);
      const [sx, sy] = place(star.weights);
      stars[i]({ cx: sx, cy: sy, r: 7, style: `--of: ${colour(one)}` });
      values[kind] = star.value;
      values[`${kind}Top`] = `${(100 * Math.max(...star.weights)).toFixed(0)} %`;
    });
    CORNERS.forEach((corner, i) => {
      const [x, y] = at(corner);
      names[i]({ x, y: y + (i < 2 ? 20 : -9), "text-anchor": "middle" }, `item ${"ABC"[i]}: ${said(scores[i])}`);
    });
    return {
      title: `Radius ${said(radius)} nats: the ball between the two is of order ${orderText(order)}${named(order)}`,
      tone: colour(order),
      values,
    };
  }
  return {
    dials: [ORDER, evenly("radius", "radius ρ", "nats", 0, 1.1, 0.02), evenly("angle", "scores rise", "degrees", 0, 360, 5)],
    presets: LOSSES,
    readouts: [
      ...BALLS.map(([kind, text]) => [kind, `value, ${text}`, "score", "worst mean score that this ball allows"]),
      ...BALLS.map(([kind, text]) => [`${kind}Top`, `top item, ${text}`, "", "the largest weight in its worst case"]),
    ],
    draw,
  };
});
