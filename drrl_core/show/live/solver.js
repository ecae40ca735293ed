// The worst case of one score vector, as `drrl_core.dro` solves it: the same family, in the browser.
//
// Scores come sorted, the highest first. w is the ratio Q/P, of mean 1; s = 1/(order - 1):
//   order 1       w = exp(f/tau) over its mean
//   1 < order     w = (f - beta)_+^s over its mean
//   order inf     w = e^radius on the highest scores, 0 on the lowest

const EXACT = 1e-15; // of a place, relative to it
const NONE = 1e-13; // an excess so small is none
const COARSE = 16; // every 16th of many scores tells where to begin

/** Zero of a falling function between lo and hi: secant steps, bisection where they gain too little. */
export function root(excess, lo, hi, near = NaN) {
  let fLo, fHi;
  if (near > lo && near < hi) {
    let [x, step] = [near, 0.01]; // from a good guess outwards, until it lies between two places
    for (let side = 0; x > lo && x < hi; step *= 8) {
      const f = excess(x);
      if (Math.abs(f) < NONE) return x;
      if (f > 0) [lo, fLo] = [x, f];
      else [hi, fHi] = [x, f];
      if (side && side !== Math.sign(f)) break;
      side = Math.sign(f);
      x += side * step;
    }
  }
  fLo ??= excess(lo);
  if (!(fLo > 0)) return lo;
  fHi ??= excess(hi);
  if (!(fHi < 0)) return hi;
  let last = 0; // the side that moved last: its twin's value is halved when it does not move (Illinois)
  for (let step = 0; step < 200 && hi - lo > EXACT * Math.max(Math.abs(lo), Math.abs(hi), 1e-300); step++) {
    let x = step % 4 === 3 ? (lo + hi) / 2 : (lo * fHi - hi * fLo) / (fHi - fLo);
    if (!(x > lo && x < hi)) x = (lo + hi) / 2;
    if (x === lo || x === hi) break;
    const f = excess(x);
    if (Math.abs(f) < NONE) return x;
    if (f > 0) {
      [lo, fLo] = [x, f];
      if (last === 1) fHi /= 2;
      last = 1;
    } else {
      [hi, fHi] = [x, f];
      if (last === -1) fLo /= 2;
      last = -1;
    }
  }
  return (lo + hi) / 2;
}

/** Unnormalised weights at order 1, the highest is 1, and their divergence KL(Q||P). */
function tilted(f, tau, w) {
  let [sum, moment] = [0, 0];
  for (let j = 0; j < f.length; j++) {
    const below = (f[j] - f[0]) / tau;
    w[j] = Math.exp(below);
    sum += w[j];
    moment += w[j] > 0 ? w[j] * below : 0;
  }
  return { sum, divergence: moment / sum - Math.log(sum / f.length) };
}

/**
 * Unnormalised weights above order 1, the highest is 1, and their divergence. Entries 0 to `last`
 * are active; beta lies exp(logT) below f[last], and may do so by less than a number can hold.
 */
function powered(f, s, last, logT, w) {
  const t = Math.exp(logT); // 0 where it is too small: then only run-end entries feel it, by logT
  const top = f[0] - f[last] + t;
  const atLast = f[0] === f[last] ? 1 : Math.exp(s * (logT - Math.log(top)));
  let [sum, square] = [0, 0];
  for (let j = 0; j <= last; j++) {
    const gap = f[j] - f[last];
    const u = gap === 0 ? t / top : (gap + t) / top;
    w[j] = gap === 0 ? atLast : Math.exp(s * Math.log(u));
    sum += w[j];
    square += w[j] * u; // u^(s+1), since w^order is that
  }
  w.fill(0, last + 1);
  const logMean = Math.log(sum / f.length);
  const divergence = s * (Math.log(square / f.length) - (1 + 1 / s) * logMean);
  return { divergence, logMean: logMean + s * Math.log(top) }; // log mean of (f - beta)_+^s
}

/**
 * Fills w with the weights where an excess, which falls as beta goes down, is zero, and returns
 * beta: from run to run of equal scores first, then by the distance to the lowest active one.
 * A guess of beta says where to look first, and changes nothing else.
 */
function lowered(f, s, runs, excess, far, w, guess) {
  let [lo, hi] = [0, runs.length]; // beta lies below the scores of run lo, not below those of run hi
  let at = runs.length >> 1;
  let step = Infinity;
  if (guess < f[0]) {
    for (let [a, b] = [0, runs.length]; b - a > 1; ) {
      at = (a + b) >> 1;
      if (f[runs[at]] > guess) a = at;
      else b = at;
    }
    step = 3;
  }
  while (hi - lo > 1) {
    if (!(at > lo && at < hi)) at = (lo + hi) >> 1;
    const below = excess(powered(f, s, runs[at], -Infinity, w)) > 0; // at its scores: no weight yet
    if (below) lo = at;
    else hi = at;
    at += below ? step : -step;
    step *= 3;
  }
  const last = runs[lo];
  const inside = lo + 1 < runs.length; // between two runs, else below all scores
  const gap = inside ? f[last] - f[last + 1] : far;
  const over = (logT) => excess(powered(f, s, last, logT, w));
  const top = Math.log(gap);
  const low = Math.min(top, lo ? Math.log(f[0] - f[last]) : top) - 46 * Math.max(1, 1 / s);
  let logT;
  if (inside && over(top - 7) > 0) logT = Math.log(root((t) => over(Math.log(t)), gap * Math.exp(-7), gap));
  else logT = root(over, low, inside ? top - 7 : top, Math.log(f[last] - guess));
  powered(f, s, last, logT, w);
  return f[last] - Math.exp(logT);
}

/** What a thinned copy of many scores has for a dual; NaN, no guess, where they are few. */
function guessed(f, solve) {
  if (f.length < 40 * COARSE) return NaN;
  return solve(Float64Array.from({ length: Math.ceil(f.length / COARSE) }, (_, j) => f[j * COARSE])).dual;
}

/** The ends of runs of equal scores: the index of each run's last entry. */
function ends(f) {
  const found = [];
  for (let j = 0; j < f.length; j++) if (j + 1 === f.length || f[j + 1] < f[j]) found.push(j);
  return found;
}

/** What is shown of weights w > 0 of any sum: scaled to mean 1, with value and readouts. */
function described(f, w, order, dual) {
  const n = f.length;
  let [sum, value, square, kept, excess] = [0, 0, 0, 0, 0];
  for (let j = 0; j < n; j++) sum += w[j];
  const highest = (w[0] * n) / sum;
  for (let j = 0; j < n; j++) {
    w[j] *= n / sum;
    value += w[j] * (f[j] - f[0]);
    square += w[j] * w[j];
    kept += w[j] > 0 || order === 1 ? 1 : 0; // order 1 truncates nothing, it only underflows
    if (w[j] > 0) excess += order === 1 ? w[j] * Math.log(w[j]) : (w[j] / highest) ** order;
  }
  let radius = Math.log(highest);
  if (order === 1) radius = excess / n;
  else if (order < Infinity) radius = (Math.log(excess / n) + order * Math.log(highest)) / (order - 1);
  return {
    weights: w,
    value: f[0] + value / n,
    dual,
    k1: highest,
    truncated: 1 - kept / n,
    effectiveShare: n / square,
    radius: Math.max(0, radius),
  };
}

/**
 * The worst case over a ball of the given radius.
 *
 * f: Float64Array, the highest first. order in [1, Infinity]. radius >= 0, nats.
 * Returns weights (mean 1), value (score), dual (tau at order 1, else beta; score), k1, truncated,
 * effectiveShare and radius (of the weights).
 */
export function worstCase(f, order, radius) {
  const n = f.length;
  const w = new Float64Array(n).fill(1);
  const runs = ends(f);
  if (radius === 0 || runs.length === 1) return described(f, w, order, order === 1 ? Infinity : -Infinity);
  if (radius >= Math.log(n / (runs[0] + 1))) {
    w.fill(0, runs[0] + 1);
    return described(f, w, order, order === 1 ? 0 : f[0]);
  }
  if (order === Infinity) {
    const most = n * Math.exp(-radius); // so many entries have room for the largest weight
    const at = runs.findIndex((end) => end + 1 >= most);
    const first = at ? runs[at - 1] + 1 : 0;
    w.fill(0, runs[at] + 1);
    w.fill((most - first) / (runs[at] + 1 - first), first, runs[at] + 1);
    return described(f, w, order, f[runs[at]]);
  }
  const spread = f[0] - f[n - 1];
  const guess = guessed(f, (few) => worstCase(few, order, radius));
  // D <= order·L²/8 where log w has range L: so far away beta, or tau, lies at most
  if (order === 1) {
    const far = Math.log(spread / Math.sqrt(8 * radius));
    const near = Math.log(f[0] - f[runs[0] + 1]) - 46;
    const logTau = root((x) => tilted(f, Math.exp(x), w).divergence - radius, near, far, Math.log(guess));
    tilted(f, Math.exp(logTau), w);
    return described(f, w, order, Math.exp(logTau));
  }
  const s = 1 / (order - 1);
  const far = spread * Math.sqrt((s * (s + 1)) / (8 * radius)) + spread;
  return described(f, w, order, lowered(f, s, runs, (found) => found.divergence - radius, far, w, guess));
}

/**
 * The penalty twin: the worst of E_Q f - temperature·eta(Q), eta the Cressie-Read divergence of the
 * same order. Its weights are softmax at order 1, above it ((f - beta)_+ / (s·temperature))^s.
 */
export function penalised(f, order, temperature) {
  const w = new Float64Array(f.length);
  const s = 1 / (order - 1);
  let dual = temperature;
  if (order === 1) tilted(f, temperature, w);
  else {
    const unit = s * temperature;
    const guess = guessed(f, (few) => penalised(few, order, temperature));
    dual = lowered(f, s, ends(f), (found) => s * Math.log(unit) - found.logMean, unit, w, guess);
  }
  const found = described(f, w, order, dual);
  const eta = order === 1 ? found.radius : Math.expm1(found.radius / s) / (order / s);
  return { ...found, value: found.value - temperature * eta };
}

/** The upper bound that any dual value gives: at least the worst case, equal to it at the best one. */
export function dualObjective(f, dual, order, radius) {
  const n = f.length;
  let sum = 0;
  if (order === 1) {
    for (let j = 0; j < n; j++) sum += Math.exp((f[j] - f[0]) / dual);
    return f[0] + (dual ? dual * (radius + Math.log(sum / n)) : 0);
  }
  const top = f[0] - dual;
  if (!(top > 0)) return dual;
  const power = order === Infinity ? 1 : order / (order - 1);
  for (let j = 0; j < n && f[j] > dual; j++) sum += ((f[j] - dual) / top) ** power;
  return dual + top * Math.exp((radius + Math.log(sum / n)) / power);
}

export const weightFromRadius = (radius, order) => Math.exp(radius * (1 - 1 / order));
export const radiusFromWeight = (weight, order) => Math.log(weight) / (1 - 1 / order);
export function etaFromRadius(radius, order) {
  return order === 1 ? radius : Math.expm1((order - 1) * radius) / (order * (order - 1));
}

/** The worst case at an order when one size stays what it is at order 2, as `dro.turn`. */
export function turned(f, order, radius, hold) {
  if (hold === "weight") {
    if (order === 1) return worstCase(f, Infinity, radius > 0 ? Infinity : 0);
    return worstCase(f, order, radius / 2 / (1 - 1 / order));
  }
  if (hold === "eta") {
    if (order === 1) return worstCase(f, 1, etaFromRadius(radius, 2));
    const eta = etaFromRadius(radius, 2);
    return worstCase(f, order, order === Infinity ? 0 : Math.log1p(order * (order - 1) * eta) / (order - 1));
  }
  if (hold === "temperature") {
    if (order === Infinity) return worstCase(f, order, 0);
    const beta = worstCase(f, 2, radius).dual;
    if (beta === -Infinity) return worstCase(f, order, 0);
    let size = 0;
    for (let j = 0; j < f.length && f[j] > beta; j++) size += f[j] - beta;
    return penalised(f, order, Math.max(size / f.length, 1e-300));
  }
  return worstCase(f, order, radius);
}
