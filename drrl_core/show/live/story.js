// A handful of items of one user: how high the model scores each, and how loudly the adversary names it.

import { worstCase } from "./solver.js";
import { ORDER, colour, evenly, explorer, make, named, orderText, percent, said } from "./kit.js";

export default explorer("story", ({ data, place, legend }) => {
  const items = [...data.items].sort((a, b) => b.score - a.score); // { name, score, loved }
  const f = Float64Array.from(items, (item) => item.score);
  const table = make("div", { class: "items", role: "img", "aria-label": "Items, their scores, and the adversary's weights" });
  const head = ["film", "the model's score", "how loudly the adversary names it"];
  table.append(...head.map((text) => make("b", {}, text)));
  table.classList.toggle("quiet", !data.dials.length); // nobody names them yet
  const rows = items.map((item) => {
    const [name, score, weight] = [make("span"), make("i", { class: "score" }), make("i", { class: "weight" })];
    const times = make("span", { class: "times" });
    name.textContent = item.name + (item.loved && data.reveal ? " ♥" : "");
    name.classList.toggle("loved", Boolean(item.loved && data.reveal));
    weight.classList.toggle("wrong", Boolean(item.loved && data.reveal));
    table.append(name, make("span", { class: "track" }, score), make("span", { class: "track" }, weight, times));
    return { score, weight, times };
  });
  place(table);
  if (data.reveal) legend([["♥ she would love it: a false negative", "false"], ["the others", "worst"]]);
  const [low, high] = [f[f.length - 1] - 0.1, f[0]];
  const loved = items.findIndex((item) => item.loved);
  const known = { order: ORDER, radius: evenly("radius", "budget ρ", "nats", 0, 2.5, 0.05) };

  function draw(now) {
    const { order = data.order, radius = data.radius } = now;
    const found = worstCase(f, order === "inf" ? Infinity : order, radius);
    rows.forEach((row, i) => {
      row.score.style.width = `${(100 * (f[i] - low)) / (high - low)}%`;
      row.weight.style.width = data.dials.length ? `${(75 * found.weights[i]) / f.length}%` : "0";
      row.times.textContent = !data.dials.length ? "" : found.weights[i] < 5e-4 ? "silent" : `${said(found.weights[i])} ×`;
    });
    const heard = found.weights[loved];
    return {
      title: !data.dials.length
        ? "Twelve films that she has not watched, as one model scores them"
        : `Budget ${said(radius)}, order ${orderText(order)}${named(order)}: the top film counts ${said(found.k1)} times, ${percent(found.truncated, 0)} of the films are silent`,
      tone: colour(order),
      values: { value: found.value, mean: f.reduce((a, b) => a + b) / f.length, loved: data.reveal ? heard : undefined, most: Math.exp(radius) },
    };
  }
  return {
    dials: data.dials.map((key) => known[key]),
    readouts: !data.dials.length ? [] : [
      ["mean", "all alike", "score", "the mean score, every film named once"],
      ["value", "worst case", "score", "the mean score as the adversary names them"],
      ["most", "e^ρ", "×", "the loudest that a film may be named at the right end"],
      ["loved", "the film she would love", "×", "how much louder than alike it is pushed down"],
    ],
    draw,
  };
});
