// A user's bound β + c·‖(f-β)₊‖, the path of SGD on it and the exact β; beside it all users.

import { dualObjective, radiusFromWeight, worstCase } from "./solver.js";
import { colour, evenly, explorer, listed, received, sorted } from "./kit.js";

/** Numbers in [0, 1), the same for the same seed (a linear congruential generator). */
function* numbers(seed) {
  for (let state = seed >>> 0; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** A training row: so many of the scores, drawn with replacement. */
export function drawn(f, many, seed) {
  const [row, random] = [new Float64Array(many), numbers(seed * 7919)];
  for (let j = 0; j < many; j++) row[j] = f[Math.floor(random.next().value * f.length)];
  return row.sort().reverse();
}

export default explorer("margins", ({ data, panel, legend }) => {
  const { low, high, users } = data;
  const order = received(data.order);
  const epochs = data.epochs.map((one) => one.epoch);
  const left = panel({ x: { label: "margin β (score)" }, y: { label: "bound (score)" }, about: "A user's bound against β" });
  const right = panel({ x: { label: "exact β on all negatives (score)" }, y: { label: "learnt β (score)" }, about: "Learnt against exact β of all users" });
  legend([["bound", "plain"], ["on all negatives", "faint"], ["worst case", "one"], ["exact β", "black"], ["learnt β", "dot"], ["one β for all", "shared"], ["this user", "ring"]]);
  const [ghost, line, worst, one] = [left.path("faint"), left.path("plain"), left.level("one"), left.upright("shared")];
  const [past, lowest, now] = [left.crowd("past"), left.dot("black", 6), left.dot("dot", 7)];
  const [diagonal, level, crowd, ring] = [right.path("faint"), right.level("shared"), right.crowd("all"), right.dot("ring", 8)];
  const grid = Array.from({ length: 41 }, (_, i) => low + ((high - low) * i) / 40);
  const scores = data.epochs.map((each) => each.scores.map(sorted));

  function draw({ user, epoch, row, weight }) {
    const at = epochs.indexOf(epoch);
    const here = data.epochs[at];
    const whole = scores[at][user];
    const f = row ? drawn(whole, data.negatives, row) : whole;
    const radius = radiusFromWeight(weight, order);
    const exact = worstCase(f, order, radius);
    const bound = (beta, g = f) => [beta, dualObjective(g, beta, order, radius)];
    const floor = Math.floor(10 * (exact.value - 0.03)) / 10;
    left.fit(low, high, floor, floor + 0.5);
    right.fit(low, high, low, high);
    const learnt = data.epochs.slice(0, at + 1).map((each) => bound(each.learnt[users[user].place]));
    const inside = (points) => points.filter(([, value]) => value <= floor + 0.5);
    line(inside(grid.map((beta) => bound(beta))));
    ghost(row ? inside(grid.map((beta) => bound(beta, whole))) : null);
    worst(exact.value);
    one(here.shared);
    past(inside(learnt.slice(0, -1)));
    now(learnt[at]);
    lowest(Number.isFinite(exact.dual) ? [exact.dual, exact.value] : null);
    diagonal([[low, low], [high, high]]);
    level(here.shared);
    const all = here.exact.map((best, i) => [best, here.learnt[i]]).filter(([best]) => best !== null);
    crowd(all);
    const own = users[user].place;
    ring(here.exact[own] === null ? null : [here.exact[own], here.learnt[own]]);
    return {
      title: `User ${users[user].name}, epoch ${epoch}, ${f.length} negatives, c = ${weight}`,
      tone: colour(order),
      values: {
        learnt: learnt[at][0],
        exact: Number.isFinite(exact.dual) ? exact.dual : null,
        worst: exact.value,
        gap: learnt[at][1] - exact.value,
        mean: here.gap,
        shared: here.cost,
      },
    };
  }
  const rows = Array.from({ length: 21 }, (_, i) => i);
  return {
    dials: [
      listed("user", "user", "", users.map((_, i) => i), (at) => `user ${users[at].name}`),
      listed("epoch", "epoch", "", epochs),
      listed("row", "solved on", "", rows, (row) => (row ? `row ${row} of ${data.negatives} negatives` : "all negatives")),
      evenly("weight", "weight c", "", 1, Math.max(4, 2 * data.weight), 0.05),
    ],
    presets: [["c = 1", { weight: 1 }]],
    readouts: [
      ["learnt", "learnt β", "score", "where SGD has this user's margin"],
      ["exact", "exact β", "score", "the lowest point of the bound"],
      ["worst", "worst case", "score", "the bound there"],
      ["gap", "gap", "score", "what the learnt β costs this user"],
      ["mean", "mean gap", "score", "over all users, at the c as trained"],
      ["shared", "at one β for all", "score", "the same, were β one number"],
    ],
    draw,
  };
});
