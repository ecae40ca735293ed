// The worst case of one score vector, as `drrl_core.dro` solves it: the same family, in the browser.
//
// Scores come sorted, the highest first. w is the ratio Q/P, of mean 1; s = 1/(order - 1):
//   order 1       w = exp(f/tau) over its mean
//   1 < order     w = (f - beta)_+^s over its mean
//   order inf     w = e^radius on the highest scores, 0 on the lowest

const EXACT = 1e-15;

/** Zero of a falling function between lo and hi: secant steps, bisection where they gain too little. */
export function root(excess, lo, hi) {
  let [fLo, fHi] = [excess(lo), excess(hi)];
  if (!(fLo > 0)) return lo;
  if (!(fHi < 0)) return hi;
  let last = 0; // the side that moved last: its twin's value is halved when it does not move (Illinois)
  for (let step = 0; step < 200 && hi - lo > EXACT * Math.max(Math.abs(lo), Math.abs(hi), 1e-300); step++) {
    let x = step % 3 === 2 ? (lo + hi) / 2 : (lo * fHi - hi * fLo) / (fHi - fLo);
    if (!(x > lo && x < hi)) x = (lo + hi) / 2;
    if (x === lo || x === hi) break;
    const f = excess(x);
    if (f === 0) return x;
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
 */
function lowered(f, s, runs, excess, far, w) {
  let [lo, hi] = [0, runs.length]; // beta lies below the scores of run lo, not below those of run hi
  while (hi - lo > 1) {
    const middle = (lo + hi) >> 1; // beta at its scores: they have no weight yet
    if (excess(powered(f, s, runs[middle], -Infinity, w)) > 0) lo = middle;
    else hi = middle;
  }
  const last = runs[lo];
  const top = Math.log(lo + 1 < runs.length ? f[last] - f[last + 1] : far);
  const low = Math.min(top, lo ? Math.log(f[0] - f[last]) : top) - 46 * Math.max(1, 1 / s);
  const logT = root((x) => excess(powered(f, s, last, x, w)), low, top);
  powered(f, s, last, logT, w);
  return f[last] - Math.exp(logT);
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
  // D <= order·L²/8 where log w has range L: so far away beta, or tau, lies at most
  if (order === 1) {
    const far = Math.log(spread / Math.sqrt(8 * radius));
    const near = Math.log(f[0] - f[runs[0] + 1]) - 46;
    const logTau = root((x) => tilted(f, Math.exp(x), w).divergence - radius, near, far);
    tilted(f, Math.exp(logTau), w);
    return described(f, w, order, Math.exp(logTau));
  }
  const s = 1 / (order - 1);
  const far = spread * Math.sqrt((s * (s + 1)) / (8 * radius)) + spread;
  return described(f, w, order, lowered(f, s, runs, (found) => found.divergence - radius, far, w));
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
    dual = lowered(f, s, ends(f), (found) => s * Math.log(unit) - found.logMean, unit, w);
  }
  const found = described(f, w, order, dual);
  const eta = order === 1 ? found.radius : Math.expm1(found.radius / s) / (order / s);
  return { ...found, value: found.value - temperature * eta };
}
